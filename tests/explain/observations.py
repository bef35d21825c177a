"""Explanations and observations made by hand, for the tests of the witnesses."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from calico_debug.model.explanation import (
    Decision,
    Evidence,
    FlowEnd,
    FlowExplanation,
    PolicyRef,
    RuleRef,
    Step,
    Witness,
)
from calico_debug.model.nft import Counter, Match, Meta, Rule, Statement, Verdict
from calico_debug.model.observation import (
    FlowTuple,
    Headers,
    Observation,
    ProbeReport,
    Reading,
    RulePlace,
    TracedPacket,
    TraceEvent,
    Watched,
)

NODE = "node1"
TABLE = "ip calico"
CLIENT, SERVER = ip_address("10.244.1.12"), ip_address("10.244.1.10")
DROP = Evidence(TABLE, "filter-cali-fw-cali1", 7)
PASSED = Evidence(TABLE, "filter-cali-po-a", 3)
BEHIND = Evidence(TABLE, "filter-cali-pi-b", 9)
POLICY = PolicyRef("NetworkPolicy", "a", "ns")


def place(evidence: Evidence) -> RulePlace:
    return RulePlace(evidence.table, evidence.chain, evidence.handle, evidence.rule_id)


DENIED = FlowExplanation(
    "tcp",
    FlowEnd(str(CLIENT), node=NODE, interface="cali1"),
    FlowEnd(str(SERVER), 80, node=NODE, interface="cali2"),
    "denied",
    Decision(NODE, "nftables", "end-of-tier", "egress", "default", evidence=DROP),
    steps=(
        Step(NODE, "egress", "passed", "", tier="security", policy=POLICY, rule=RuleRef("Pass", 0), evidence=PASSED),
        Step(NODE, "egress", "denied", "end of tier", tier="default", evidence=DROP),
        Step(
            NODE, "egress", "closest", "", policy=POLICY, rule=RuleRef("Allow", 1), evidence=replace(PASSED, handle=4)
        ),
        Step(
            NODE, "ingress", "allowed", "", policy=POLICY, rule=RuleRef("Allow", 2), evidence=BEHIND, hypothetical=True
        ),
    ),
    witnesses={"predicted": Witness("denied", NODE, "predicted")},
)
ALLOWED = replace(
    DENIED,
    verdict="allowed",
    decision=Decision(NODE, "nftables", "rule", "ingress", evidence=BEHIND),
    steps=(DENIED.steps[0], replace(DENIED.steps[3], hypothetical=False)),
)


def rule(evidence: Evidence, *statements: Statement) -> Rule:
    """A rule with a counter; without statements, one that drops."""
    return Rule("ip", "calico", evidence.chain, evidence.handle or 0, (Counter(), *(statements or (Verdict("drop"),))))


def watched(before: dict[Evidence, int], after: dict[Evidence, int], seconds: float = 3.0) -> Watched:
    return Watched(
        {place(one): Reading(packets, rule(one)) for one, packets in before.items()},
        {place(one): Reading(packets, rule(one)) for one, packets in after.items()},
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:03Z",
        seconds,
    )


OTHER_STATEMENTS = (Match(Meta("mark"), "==", 1), Verdict("drop"))


def event(evidence: Evidence, verdict: str = "continue", table: str = "calico") -> TraceEvent:
    return TraceEvent("ip", table, evidence.chain, "rule", 1, verdict, handle=evidence.handle)


SYN = Headers(6, CLIENT, SERVER, 40000, 80, 0x02)
ACK = replace(SYN, flags=0x10)

DROPPED = TracedPacket((event(PASSED), event(DROP, "drop")), ("prerouting",), headers=SYN)
SENT = TracedPacket(
    (event(PASSED), event(BEHIND)), ("prerouting", "forward", "postrouting"), output_index=2, headers=SYN
)
ANSWER = TracedPacket((), ("prerouting", "forward", "postrouting"), True, 1, replace(SYN, flags=0x12))
LOST = TracedPacket((event(PASSED),), ("prerouting",), headers=SYN)
DELIVERED = TracedPacket((), ("prerouting", "input"), headers=SYN)


def observation(*packets: TracedPacket, lost: bool = False, full: bool = False) -> Observation:
    return Observation(packets, "2026-01-01T00:00:00Z", "2026-01-01T00:00:03Z", lost, full)


def probes(sent: int, *answers: str, by: str = str(SERVER), protocol: int = 6, error: str = "") -> ProbeReport:
    ends = FlowTuple(protocol, CLIENT, SERVER, 40000, 80)
    return ProbeReport(sent, "cali1 of node1", ends, answers, by if answers else "", error, "2026-01-01T00:00:01Z")
