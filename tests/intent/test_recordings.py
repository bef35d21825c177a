"""What the API means, against what really happened to every probe of recorded clusters, and against Felix's chains."""

from __future__ import annotations

import re
from collections import Counter
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, cast

import pytest

from calico_debug.intent.applies import Traffic
from calico_debug.intent.decide import FlowDecision, Intent
from calico_debug.intent.evaluate import Decision
from calico_debug.intent.flows import policy_flows
from calico_debug.intent.ip_sets import Member, ip_sets, members
from calico_debug.intent.model import Direction, Endpoint
from calico_debug.model.flow import PROTOCOL_NUMBERS
from calico_debug.model.nft import Verdict
from calico_debug.policy.chains import ChainKind, chain_role, parse_comment
from calico_debug.policy.identity import PolicyIndex, identify, policy_index
from calico_debug.state.cluster import load_cluster
from calico_debug.state.node import NodeState
from calico_debug.state.resolve import Resolver
from tests.recordings import Recording, recordings
from tests.truth.happened import Happened, what_happened
from tests.truth.happened_bpf import what_happened_on_bpf

if TYPE_CHECKING:
    from collections.abc import Iterator

NFT = [recording for recording in recordings("-nft") if "stale" not in recording.name]
PROBED = [*NFT, *recordings("-bpf")]


class Asked:
    """A recording, what happened there, and what its objects mean."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        bpf = recording.name.split()[0].endswith("-bpf")
        self.happened = (what_happened_on_bpf if bpf else what_happened)(recording)
        self.cluster = load_cluster(recording.source)
        self.states = {node: NodeState(recording.source.node(node)) for node in recording.source.nodes()}
        self.resolver = Resolver(self.cluster, self.states)
        self.intent = Intent(self.cluster.cluster)

    def decide(self, one: Happened) -> list[FlowDecision]:
        """One decision a backend."""
        asked = policy_flows(self.resolver.resolve(**one.question), self.cluster)
        return [self.intent.decide(each.flow, each.via) for each in asked]


@pytest.fixture(scope="module", params=PROBED, ids=lambda recording: recording.name)
def asked(request: pytest.FixtureRequest) -> Asked:
    return Asked(request.param)


def test_verdicts(asked: Asked) -> None:
    """Nothing is decided wrongly; what is left open is what the API says nothing about."""
    wrong, seen = [], Counter[str]()
    for one in asked.happened:
        decisions = asked.decide(one)
        if one.verdict in (None, "rejected") or not decisions:
            continue  # it tells nothing of policy: no way there, no backend
        happened = "allowed" if one.verdict == "allowed" else "denied"
        verdicts = {decision.verdict for decision in decisions}
        seen["open" if "undetermined" in verdicts else happened] += 1
        if happened not in verdicts and "undetermined" not in verdicts:
            wrong.append(f"{one.probe['src']} to {one.probe['dst']}: {one.verdict}, decided {decisions}")
        for decision in decisions:
            if decision.verdict == "undetermined":
                check_open(asked, one, decision)
    assert not wrong, "\n".join(wrong)
    assert seen["allowed"] > 50, seen
    assert seen["denied"] > 150, seen
    assert seen["open"] < 40, seen


def check_open(asked: Asked, one: Happened, decision: FlowDecision) -> None:
    """Open is only what reaches a pod through a service with another source perhaps, or a pod's own node."""
    stage = decision.decisive
    assert stage is not None
    if stage.reason == "host-default":
        source = asked.cluster.pod_by_address(ip_address(one.probe["src_ip"]))
        assert source is not None
        node = asked.cluster.node(source.node)
        assert node is not None
        assert ip_address(one.probe["dst_ip"]) in node.addresses
    else:
        assert any("address" in doubt for doubt in stage.doubts), (one, stage.doubts)
        assert {outcome.verdict for outcome in stage.possible} == {"allowed", "denied"}


def test_who_denied(asked: Asked) -> None:
    """The policy or tier that denied is the one whose rule or end counted."""
    wrong, number = [], 0
    for one in asked.happened:
        decided = [decision.decisive for decision in asked.decide(one) if decision.verdict == "denied"]
        if not decided or one.verdict != "denied" or not (one.policies or one.tier):
            continue
        number += 1
        if not any(agrees(one, decision) for decision in decided if decision):
            wrong.append(f"{one.probe['src']} to {one.probe['dst']}: {one.policies} {one.tier}, decided {decided}")
    assert not wrong, "\n".join(wrong)
    assert number > 100


def agrees(one: Happened, decision: Decision) -> bool:
    if decision.policy is None:
        return decision.reason == "end-of-tier" and decision.tier == one.tier
    return decision.policy.key in one.policies


@pytest.mark.parametrize("recording", [*recordings("-nft"), *recordings("-iptables")], ids=lambda one: one.name)
def test_felix_programmed_the_policies_that_apply(recording: Recording) -> None:
    """The chains of every endpoint jump to the policies that apply to it, and to no others."""
    cluster = load_cluster(recording.source)
    intent = Intent(cluster.cluster)
    number = 0
    for node in recording.source.nodes():
        state = NodeState(recording.source.node(node))
        for endpoint, direction, programmed in programmed_policies(state, intent, node):
            tiers = intent.applicability.tiers_of(endpoint, direction)
            expected = [(t.name, [p.policy.key for p in t.enforced]) for t in tiers if t.enforced]
            assert programmed == [key for _, keys in expected for key in keys], (node, endpoint, direction)
            number += 1
    assert number == 2 * sum(one.kind == "pod" for one in intent.applicability.endpoints)


def programmed_policies(
    state: NodeState, intent: Intent, node: str
) -> Iterator[tuple[Endpoint, Direction, list[tuple[str, str, str]]]]:
    """Each pod of a node with the policies of its chains, by direction, as (kind, namespace, name)."""
    index = policy_index(intent.cluster.policies)
    behind = {hop.interface: route.destination for route in state.routing(4).tables["main"] for hop in route.hops}
    table = next(place for place in (("ip", "calico"), ("ip", "filter")) if place in state.ruleset.tables())
    layer = "filter-" if table[1] == "calico" else ""
    for interface, network in behind.items():
        pod = intent.applicability.owners.pod(network.network_address)
        if pod is None or pod.node != node or not interface.startswith("cali"):
            continue
        for direction, way in (("ingress", "tw"), ("egress", "fw")):
            keys = policies_of(state, table, f"{layer}cali-{way}-{interface}", index)
            yield pod, cast("Direction", direction), keys


def policies_of(state: NodeState, table: tuple[str, str], chain: str, index: PolicyIndex) -> list[tuple[str, str, str]]:
    """The policies that an endpoint's chain asks, in order."""
    found = []
    for target in targets(state, table, chain):
        rules = state.ruleset.rules(*table, target) or ()
        role = chain_role(target)
        if role and role.kind is ChainKind.POLICY:
            identity = identify(role, parse_comment(rules[0].comment) if rules else None, index, target)
            assert identity is not None, target
            found.append((identity.kind, identity.namespace, identity.name))
    return found


HOST_CHAINS: dict[tuple[Traffic, Direction], str] = {
    ("normal", "ingress"): "filter-cali-fh-",
    ("normal", "egress"): "filter-cali-th-",
    ("forward", "ingress"): "filter-cali-fhfw-",
    ("forward", "egress"): "filter-cali-thfw-",
    ("pre-dnat", "ingress"): "mangle-cali-fh-",
}
"""Chains of host endpoints in nftables mode (felix/rules/rule_defs.go)."""


@pytest.mark.parametrize("recording", recordings("-nft"), ids=lambda one: one.name)
def test_felix_programmed_the_policies_of_host_endpoints(recording: Recording) -> None:
    intent = Intent(load_cluster(recording.source).cluster)
    index = policy_index(intent.cluster.policies)
    endpoints = [one for one in intent.applicability.endpoints if one.kind == "host"]
    for endpoint in endpoints:
        state = NodeState(recording.source.node(endpoint.node))
        for (traffic, direction), chain in HOST_CHAINS.items():
            tiers = intent.applicability.tiers_of(endpoint, direction, traffic)
            expected = [applied.policy.key for tier in tiers for applied in tier.enforced]
            programmed = policies_of(state, ("ip", "calico"), chain + endpoint.interface, index)
            assert programmed == expected, (traffic, direction)
    assert endpoints


def targets(state: NodeState, table: tuple[str, str], chain: str) -> Iterator[str]:
    """The chains that a chain jumps to; for one of a group of policies, those that this one jumps to."""
    rules = state.ruleset.rules(*table, chain)
    assert rules is not None, chain
    for rule in rules:
        for statement in rule.statements:
            if isinstance(statement, Verdict) and statement.chain:
                role = chain_role(statement.chain)
                if role and role.kind is ChainKind.POLICY_GROUP:
                    yield from targets(state, table, statement.chain)
                else:
                    yield statement.chain


@pytest.mark.parametrize("recording", recordings("-nft"), ids=lambda one: one.name)
def test_ip_sets_and_their_members(recording: Recording) -> None:
    """The sets that the applying policies' rules ask for are those that Felix made, with the same members."""
    intent = Intent(load_cluster(recording.source).cluster)
    for node in recording.source.nodes():
        listing = recording.json(f"nodes/{node}/nft-ruleset.json")["nftables"]
        made = {
            entry["set"]["name"]: frozenset(map(element, entry["set"].get("elem") or ()))
            for entry in listing
            if "set" in entry and re.match(r"cali40(s|n|svc)-", entry["set"]["name"])
        }
        here = [one for one in intent.applicability.endpoints if one.node == node]
        asked = {
            one.id: one
            for policy in intent.applicability.policies
            if not policy.staged and any(intent.applicability.selects(policy, endpoint) for endpoint in here)
            for rule in (*policy.ingress, *policy.egress)
            for one in ip_sets(rule)
        }
        expected = {
            f"cali40{one.id.replace(':', '-')}"[:31]: frozenset(
                member for member in members(intent.applicability, one).found if version(member) == 4
            )
            for one in asked.values()
        }
        assert expected == made, node
        assert len(made) >= 6


def version(member: Member) -> int:
    return member[0].version if isinstance(member, tuple) else member.version


def element(content: Any) -> Member:
    if isinstance(content, str):
        return ip_network(content)
    if "prefix" in content:
        return ip_network(f"{content['prefix']['addr']}/{content['prefix']['len']}")
    address, protocol, port = content["concat"]
    return ip_address(address), PROTOCOL_NUMBERS[protocol], port
