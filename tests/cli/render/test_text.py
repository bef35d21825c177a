"""The story: what is shown, what is left to the wide format, and that the decision is never hidden."""

from __future__ import annotations

import dataclasses

import pytest

from calico_debug.cli.render.terminal import PLAIN
from calico_debug.cli.render.text import ALWAYS_SHOWN, render
from calico_debug.model.explanation import (
    Advice,
    BackendOutcome,
    Decision,
    Evidence,
    FlowEnd,
    FlowExplanation,
    NewConnection,
    PolicyRef,
    RuleRef,
    Step,
    Witness,
)
from tests.cli.samples import CLIENT_EGRESS, SAMPLES

ENDS = ("tcp", FlowEnd("10.0.0.1"), FlowEnd("10.0.0.2", 80))
NO_MATCH = "client/platform.client-egress selects the pod, none of its rules matched"
CLOSEST = "rule 0 allows ports 80, 6379 of namespace stars; this flow goes to management-ui:9001"
DESIGN = f"""\
DENIED   tcp 10.244.1.30 -> 10.96.20.3:80 -> 10.244.2.32:9001       node1 (nftables)
  service   management-ui:80 -> 10.244.2.32:9001 (1 of 1 backends)
  egress    tier security  passed    GlobalNetworkPolicy security.quarantine, rule 1 (Pass)
            tier platform  DENIED    end of tier: {NO_MATCH}
                           closest   {CLOSEST}
  ingress   would be ALLOWED on node2 by GlobalNetworkPolicy platform.management, rule 0
  evidence  predicted from the rules in the kernel; drop counter of that rule +2 in 3 s; probe packet dropped there
"""


def body(explanation: FlowExplanation) -> list[str]:
    return render(explanation, PLAIN).splitlines()[1:]


def with_steps(*steps: Step, decision: Decision | None = None, verdict: str = "denied") -> list[str]:
    return body(FlowExplanation(*ENDS, verdict, decision, steps=steps))


def test_reads_like_the_design() -> None:
    assert render(SAMPLES["denied_end_of_tier"], PLAIN).startswith(DESIGN)


def test_a_witness_on_several_nodes_has_a_line_for_each() -> None:
    here, there = Witness("denied", "n1", "packet left n1"), Witness("denied", "n2", "packet dropped at eth0")
    witnesses = {
        "predicted": Witness("denied", "n1", "predicted"),
        "counted": Witness("undetermined", "n1", "nothing moved", nodes=(here,)),
        "observed": Witness("allowed", "n2", "all of it", nodes=(here, there)),
    }
    assert body(FlowExplanation(*ENDS, "denied", None, witnesses=witnesses))[-3:] == [
        "  evidence  predicted; counted leaves it open: nothing moved",
        "  observed  says ALLOWED: on n1 packet left n1",
        "            on n2 packet dropped at eth0",
    ]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_decision_without_steps_is_told(name: str) -> None:
    bare = dataclasses.replace(SAMPLES[name], steps=())
    assert any(line.startswith("  decision") for line in body(bare))


@pytest.mark.parametrize("verdict", ["allowed", "denied", "rejected", "undetermined"])
@pytest.mark.parametrize("stage", [*ALWAYS_SHOWN, "routing", "nat", "netfilter"])
def test_a_decision_of_no_step_is_told(verdict: str, stage: str) -> None:
    one, two, rule = PolicyRef("NetworkPolicy", "p", "ns"), PolicyRef("NetworkPolicy", "q"), RuleRef("Deny", 4)
    decision = Decision("n1", "nftables", "rule", "egress", "t", one, rule)
    other = Step("n1", stage, verdict, "another", tier="t", policy=two, rule=rule)
    words = [line.split() for line in with_steps(other, decision=decision, verdict=verdict)]
    assert ["decision", verdict.upper(), "by", "NetworkPolicy", "ns/p,", "rule", "4"] in words


@pytest.mark.parametrize("verdict", ["allowed", "denied"])
def test_a_decision_that_a_step_shows_is_told_once(verdict: str) -> None:
    ref, rule = PolicyRef("NetworkPolicy", "p", "ns"), RuleRef("Deny", 4)
    decision = Decision("n1", "nftables", "rule", "egress", "t", ref, rule)
    lines = with_steps(Step("n1", "egress", verdict, "", "egress", "t", ref, rule), decision=decision, verdict=verdict)
    assert lines == [f"  egress    tier t  {verdict.upper().ljust(8)}  NetworkPolicy ns/p, rule 4 (Deny)"]


def test_why_no_policy_was_asked_is_told() -> None:
    decision = Decision("n1", "nftables", "host-to-own-pod")
    lines = with_steps(Step("n1", "egress", "allowed", "x"), decision=decision, verdict="allowed")
    assert lines[-1] == "  decision  ALLOWED   a node's traffic to its own pods is never policed"


def test_a_lost_packet_is_told_once() -> None:
    decision = Decision("n1", "nftables", "no-route", detail="no route to 10.0.0.2")
    lines = with_steps(Step("n1", "routing", "dropped", "no route to 10.0.0.2"), decision=decision)
    assert lines == ["  routing   dropped   no route to 10.0.0.2"]


def test_the_machinery_is_left_out_unless_it_decides() -> None:
    evidence = Evidence(chain="c", handle=1)
    steps = [Step("n1", stage, "accepted", stage, evidence=evidence) for stage in ("source", "routing", "conntrack")]
    assert with_steps(*steps) == []
    decision = Decision("n1", "nftables", "established", evidence=evidence)
    shown = with_steps(*steps[2:], decision=decision, verdict="allowed")
    assert shown[0] == "  conntrack  accepted  conntrack"


def test_a_policy_that_did_not_match_is_left_out() -> None:
    assert with_steps(Step("n1", "egress", "no match", "none of the rules matched", tier="t")) == []


def test_the_other_node_is_named() -> None:
    decision = Decision("n1", "nftables", "missing-evidence", detail="x")
    lines = with_steps(Step("n2", "reply", "delivered", "to the pod"), decision=decision)
    assert lines[0] == "  reply     delivered  to the pod (on n2)"


def test_closest_names_its_policy() -> None:
    step = Step(
        "n1", "egress", "closest", "rule 0 (Allow TCP): protocol udp", "", "t", CLIENT_EGRESS, RuleRef("Allow", 0)
    )
    assert with_steps(step) == ["  egress    closest   client/platform.client-egress, rule 0 (Allow TCP): protocol udp"]


def hypothetical(action: str, detail: str = "", **more: object) -> Step:
    return Step("n2", "ingress", action, detail, "ingress", "t", hypothetical=True, **more)  # type: ignore[arg-type]


def test_what_would_have_happened() -> None:
    assert with_steps(
        hypothetical("passed"),
        hypothetical("no match", "no policy of the tier decides here"),
        hypothetical("denied", "end of tier: p selects the pod"),
        hypothetical("closest", "rule 1 (Allow): port 80 is not in 443", policy=PolicyRef("GlobalNetworkPolicy", "p")),
        Step("n2", "routing", "routed", "out of cali1", hypothetical=True),
    ) == [
        "  ingress   would be DENIED on n2: end of tier: p selects the pod",
        "            closest: p, rule 1 (Allow): port 80 is not in 443",
    ]
    assert with_steps(hypothetical("no match")) == []
    assert with_steps(hypothetical("passed", "no policy here")) == ["  ingress   would be passed on n2: no policy here"]


def test_what_would_have_happened_on_each_node() -> None:
    steps = (hypothetical("allowed", "a"), dataclasses.replace(hypothetical("denied", "b"), node="n3"))
    assert with_steps(*steps) == ["  ingress   would be ALLOWED on n2: a", "            would be DENIED on n3: b"]


def test_backends_that_agree_need_no_lines() -> None:
    backends = tuple(BackendOutcome(f"10.0.0.{n}", 80, "allowed") for n in range(3))
    assert body(FlowExplanation(*ENDS, "allowed", backends=backends)) == []
    assert "-> 3 backends" in render(FlowExplanation(*ENDS, "allowed", backends=backends), PLAIN)


def test_a_new_connection_without_a_decision() -> None:
    explanation = FlowExplanation(*ENDS, "allowed", new_connection=NewConnection("undetermined", None))
    assert body(explanation) == ["  if new    a new connection would be UNDETERMINED"]


@pytest.mark.parametrize(
    ("verdict", "label"),
    [("denied", "to allow"), ("rejected", "to allow"), ("allowed", "to deny "), ("undetermined", "advice  ")],
)
def test_advice(verdict: str, label: str) -> None:
    assert body(FlowExplanation(*ENDS, verdict, advice=(Advice("do it"),))) == [f"  {label}  do it"]


def test_nothing_but_a_verdict() -> None:
    assert render(FlowExplanation(*ENDS, "undetermined"), PLAIN) == "UNDETERMINED tcp 10.0.0.1 -> 10.0.0.2:80\n"


def test_no_dataplane_without_its_node() -> None:
    explanation = FlowExplanation(*ENDS, "undetermined", Decision("", "nftables", "missing-evidence", detail="no node"))
    assert render(explanation, PLAIN).splitlines() == [
        "UNDETERMINED tcp 10.0.0.1 -> 10.0.0.2:80",
        "  decision  UNDETERMINED  no node",
    ]
