"""Every recorded flow gets the verdict that the network gave it, from the rules that really counted it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import permutations
from typing import TYPE_CHECKING

import pytest

from calico_debug.explain.engine import Engine
from calico_debug.model.conntrack import STATE_BITS
from calico_debug.model.explanation import REASONS
from calico_debug.state.resolve import Resolver
from calico_debug.walk.bpf_outcomes import EGRESS, PolicyResult
from calico_debug.walk.choices import Chooser, explore
from calico_debug.walk.context import PolicyRan
from calico_debug.walk.journey import Journey, Opening, _Trip, opening_packet
from calico_debug.walk.packet import ICMPV6, Packet
from calico_debug.walk.wiring import Place
from tests.recordings import Recording, recordings
from tests.truth.happened import EBPF, Happened, PolicyKey, RuleKey, what_happened
from tests.truth.happened_bpf import what_happened_on_bpf

if TYPE_CHECKING:
    from calico_debug.explain.alternatives import Told
    from calico_debug.model.explanation import Decision, FlowExplanation

API_SERVER = 6443
REDIRECT = 137
"""ICMPv6 type, RFC 4861."""
PROBED = [recording for recording in recordings("-nft") if "stale" not in recording.name]
PROBED_BPF = recordings("-bpf")
STALE = recordings("-stale-nft")


class Asked:
    """One recording, its probes and the engine that explains them."""

    def __init__(self, recording: Recording) -> None:
        self.engine = Engine(recording.source)
        self.resolver = Resolver(self.engine.cluster, self.engine.states)
        self.bpf = recording in PROBED_BPF
        self.happened = what_happened_on_bpf(recording) if self.bpf else what_happened(recording)

    def explain(self, one: Happened) -> FlowExplanation:
        return self.engine.explain(self.resolver.resolve(**one.question))

    def walked(self, one: Happened) -> list[Walked]:
        """Every alternative (which backend?) with the rules that it counts."""
        opening = self.engine._opening(self.resolver.resolve(**one.question), [])
        opening = replace(opening, source_port=one.probe["sport"] or None)

        def run(chooser: Chooser) -> tuple[Journey, frozenset[RuleKey]]:
            trip = _Trip(self.engine._traveller, opening, chooser, join_existing=False)
            journey = trip.run()
            if self.bpf:
                return journey, counted_ids(journey)
            if journey.replied and (one.probe["proto"], one.probe["outcome"]) == ("tcp", "ok"):
                answer_answered(trip, opening)
            return journey, counted(journey)

        return [
            Walked(self.engine._tell(replace(each, result=each.result[0]), with_steps=False), each.result[1])
            for each in explore(run, 64)
        ]

    def really(self, one: Happened) -> Walked:
        """The alternative that happened: the one whose rules are most like those that counted."""
        return min(self.walked(one), key=lambda each: len(each.counted ^ one.moved))


@dataclass(frozen=True)
class Walked:
    told: Told
    counted: frozenset[RuleKey]


def answer_answered(trip: _Trip, opening: Opening) -> None:
    """A TCP connection goes on: the packet that acknowledges the answer meets the rules of an established one."""
    for table in trip._tables.values():
        for _, tracking in table._own:
            tracking.state = STATE_BITS["established"]
    trip._go(opening_packet(opening, mid_stream=True), opening.place, reply=False)


def counted(journey: Journey) -> frozenset[RuleKey]:
    """The rules that count on the way, up to a denial."""
    keys: set[RuleKey] = set()
    for leg in journey.legs:
        trace = leg.made.trace
        rules = trace.counted[: trace.denials[0].counted] if trace.denials else trace.counted
        keys.update(RuleKey(leg.made.node, rule.table, rule.chain, rule.handle) for rule in rules)
        if trace.denials:
            break
    return frozenset(keys)


def counted_ids(journey: Journey) -> frozenset[RuleKey]:
    """The rules of eBPF programs that count on the way, up to a denial. Netfilter's were not watched there."""
    return frozenset(
        RuleKey(leg.made.node, EBPF, "", number)
        for leg in journey.legs
        for event in leg.made.trace.events
        if isinstance(event, PolicyRan) and not event.hypothetical
        for number in event.result.run.rule_ids
    )


def rule_of(decision: Decision) -> RuleKey:
    """The rule that an explanation gives as the cause."""
    evidence = decision.evidence
    assert evidence is not None
    if evidence.rule_id:
        return RuleKey(decision.node, EBPF, "", int(evidence.rule_id, 16))
    return RuleKey(decision.node, evidence.table.split()[1], evidence.chain, evidence.handle or 0)


@pytest.fixture(scope="module", params=[*PROBED, *PROBED_BPF], ids=lambda recording: recording.name)
def asked(request: pytest.FixtureRequest) -> Asked:
    return Asked(request.param)


def test_verdicts(asked: Asked) -> None:
    wrong = []
    for one in asked.happened:
        if one.verdict is None:
            continue
        explanation = asked.explain(one)
        verdict = explanation.verdict
        if len(explanation.backends) > 1:
            taken = asked.really(one).told.narrative
            address, port = taken.backend or (0, None)
            picked = [b for b in explanation.backends if (int(ip_address(b.ip)), b.port) == (address, port)]
            assert len(picked) == 1, one
            if verdict == "undetermined":
                assert any(finding.code == "backends-differ" for finding in explanation.findings)
                verdict = picked[0].verdict
            assert picked[0].verdict == verdict, one
        if verdict != one.verdict:
            wrong.append(f"{one}: {one.verdict}, explained as {verdict}, {explanation.decision}")
    assert not wrong, "\n".join(wrong)
    assert len(asked.happened) > 200


def test_deciding_policies_and_tiers(asked: Asked) -> None:
    wrong, number = [], 0
    for one in asked.happened:
        if not one.dropped or one.verdict == "allowed":  # it was answered: what was denied is not its own
            continue
        number += 1
        narrative = asked.really(one).told.narrative
        decision = narrative.decision
        assert narrative.verdict == "denied", one
        assert decision is not None
        where = rule_of(decision)
        policy = decision.policy and PolicyKey(decision.policy.kind, decision.policy.namespace, decision.policy.name)
        right = where in one.dropped
        if one.policies:
            right &= policy in one.policies and decision.reason == "rule" and decision.rule.action == "Deny"
        elif one.tier:
            right &= (decision.tier, decision.reason, policy) == (one.tier, "end-of-tier", None)
        if not right:
            wrong.append(f"{one}: {sorted(one.dropped)}, explained as {decision}")
    assert not wrong, "\n".join(wrong)
    assert number > 100


def test_rules_that_counted(asked: Asked) -> None:
    """Exactly the rules that the walk counts have counted, but for packets that are not the flow's own.

    Those are few, and accounted for too: traffic between nodes, and flows between the same pods as another probe's.
    """
    if asked.bpf:
        pytest.skip("see test_rules_of_programs_that_counted")
    nodes = between_nodes(asked.engine)
    walks = [(one, asked.really(one)) for one in asked.happened if one.verdict is not None]
    wrong, disturbed = [], 0
    for one, walked in walks:
        more = walked.counted - one.moved
        fewer = one.moved - walked.counted - redirects(walked, one.moved) - refusals(walked, one.moved)
        disturbed += bool(fewer)
        fewer -= nodes
        if more or (fewer and not any(fewer <= other.counted for _, other in walks)):
            wrong.append(f"{one}: only walked {sorted(more)}, only counted {sorted(fewer)}")
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong)
    assert disturbed < len(walks) / 10, disturbed


def test_rules_of_programs_that_counted(asked: Asked) -> None:
    """The same for the rules of eBPF programs; there, few packets are not the flow's own."""
    if not asked.bpf:
        pytest.skip("see test_rules_that_counted")
    walks = [(one, asked.really(one)) for one in asked.happened]
    wrong, disturbed = [], 0
    for one, walked in walks:
        more = walked.counted - one.moved
        fewer = one.moved - walked.counted - redirects_to_pods(asked.engine, walked)
        disturbed += bool(fewer)
        if more or (fewer and not any(fewer <= other.counted for _, other in walks)):
            wrong.append(f"{one}: only walked {sorted(more)}, only counted {sorted(fewer)}")
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong)
    assert disturbed < len(walks) / 50, disturbed


def test_every_explanation_is_complete(asked: Asked) -> None:
    for one in asked.happened:
        explanation = asked.explain(one)
        assert explanation.decision is not None, one
        assert explanation.decision.reason in REASONS, one
        assert explanation.steps, one
        evidence = explanation.decision.evidence
        if one.verdict is not None and evidence is not None and (evidence.handle is not None or evidence.rule_id):
            key = rule_of(explanation.decision)
            assert key in one.moved or len(explanation.backends) > 1 or key.table == "kube-proxy", one
            assert evidence.counter or key.table == "kube-proxy", one  # whose rules count nothing


@pytest.mark.parametrize("recording", STALE, ids=lambda recording: recording.name)
def test_a_connection_that_outlived_its_policy(recording: Recording) -> None:
    stale = recording.json("stale.json")
    engine = Engine(recording.source)
    resolver = Resolver(engine.cluster, engine.states)
    flow = resolver.resolve(
        f"{stale['src_ip']}:{stale['sport']}", f"{stale['dst_ip']}:{stale['dport']}", protocol=stale["proto"]
    )
    explanation = engine.explain(flow)
    assert stale["existing"].startswith("alive")
    assert stale["new"].startswith("timeout")
    assert explanation.verdict == "allowed"
    assert explanation.decision is not None
    assert explanation.decision.reason == "established"
    new = explanation.new_connection
    assert new is not None
    assert new.verdict == "denied"
    assert new.decision is not None
    assert new.decision.policy is not None
    assert new.decision.policy.name == stale["policy"]
    assert new.decision.tier == "platform"
    assert "outlived-policy" in {finding.code for finding in explanation.findings}


# ------------------------------------------------------------------------------- packets that are not the flow's own


def redirects(walked: Walked, moved: frozenset[RuleKey]) -> set[RuleKey]:
    """A node that sends a packet back out of the interface it came from tells its sender by an ICMP redirect.

    While translation of the connection is not decided the kernel drops it behind raw (nf_nat_icmp_reply_translation).
    """
    legs = [leg.made for leg in walked.told.journey.legs]
    nodes = {made.node for made in legs if made.packet.outgoing and made.arrived == made.packet.outgoing.name}
    return {key for key in moved if key.node in nodes and key.chain in ("raw-OUTPUT", "raw-cali-OUTPUT")}


def redirects_to_pods(engine: Engine, walked: Walked) -> set[RuleKey]:
    """The same with eBPF: the pod's own policy meets ICMPv6 redirects, since link-local addresses are no node's."""
    found: set[RuleKey] = set()
    for made in (leg.made for leg in walked.told.journey.legs):
        packet, datapath = made.packet, engine._walkers[made.node].datapath
        assert datapath is not None
        if packet.family == 6 and packet.outgoing is not None and packet.outgoing.name == made.arrived:
            source = int(ip_address("fe80::1"))
            redirect = Packet(6, ICMPV6, source, packet.destination, None, None, (REDIRECT, 0))
            ran = datapath.policy(redirect, made.arrived, EGRESS, None, Chooser())
            if isinstance(ran, PolicyResult):
                found.update(RuleKey(made.node, EBPF, "", number) for number in ran.run.rule_ids)
    return found


def refusals(walked: Walked, moved: frozenset[RuleKey]) -> set[RuleKey]:
    """What refuses answers with a packet of the node itself, which comes back in if the node itself asked."""
    last = walked.told.journey.legs[-1].made
    if walked.told.narrative.verdict != "rejected":
        return set()
    hooks = {"OUTPUT", "POSTROUTING", *(() if last.arrived else ("PREROUTING", "INPUT"))}
    return {key for key in moved if key.node == last.node and key.chain.rpartition("-")[2] in hooks}


def between_nodes(engine: Engine) -> frozenset[RuleKey]:
    """The rules of packets that nodes exchange all the time: connections that are opened and that go on."""
    found: frozenset[RuleKey] = frozenset()
    for source, destination in permutations(engine.states, 2):
        ends = []
        for name in (source, destination):
            node = engine.cluster.node(name)
            assert node is not None
            ends.append(int(node.addresses[0]))
        opening = Opening(4, 6, *ends, 40000, API_SERVER, Place(source))
        trip = _Trip(engine._traveller, opening, Chooser(), join_existing=False)
        journey = trip.run()
        assert journey.replied, "the API server's port is a failsafe port"
        answer_answered(trip, opening)
        found |= counted(journey)
    return found
