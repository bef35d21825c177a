"""What counters stand for: of recorded nodes, in every mode of rules, against what the recording's probes met."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from calico_debug.metrics.rules import Meaning, Place, RuleBook
from calico_debug.model.explanation import REASONS
from calico_debug.policy.chains import ChainKind, chain_role
from calico_debug.policy.identity import policy_index
from calico_debug.state.cluster import load_cluster
from calico_debug.state.dataplane import IPTABLES, NFTABLES
from calico_debug.state.node import NodeState
from tests.recordings import Recording, recordings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calico_debug.model.nft import Rule

MODES = [(one, mode) for mode, ending in ((NFTABLES, "-nft"), (IPTABLES, "-iptables")) for one in recordings(ending)]


def calico_chains(state: NodeState, mode: str) -> dict[Place, Sequence[Rule]]:
    """Every chain of Calico that can be reached from the hooks."""
    found: dict[Place, Sequence[Rule]] = {}
    ruleset = state.ruleset
    todo = [(chain.family, chain.table, chain.name) for chain in ruleset.base_chains()]
    while todo:
        place = todo.pop()
        rules = ruleset.rules(*place)
        if place in found or rules is None:
            continue
        found[place] = rules
        for rule in rules:
            for statement in rule.statements:
                if chain := getattr(statement, "chain", ""):
                    todo.append((place[0], place[1], chain))
                if isinstance(source := getattr(statement, "source", None), str):
                    content = ruleset.elements(place[0], place[1], source)
                    values = [*content.exact.values(), *content.ranged] if content is not None else []
                    todo += [(*place[:2], v.chain) for e in values if hasattr(v := e.data, "chain")]
    return {place: rules for place, rules in found.items() if chain_role(place[2]) is not None}


def meanings(recording: Recording, node: str, mode: str, *, named: bool) -> dict[Place, list[tuple[Rule, Meaning]]]:
    index = policy_index(load_cluster(recording.source).policies() if named else ())
    chains = calico_chains(NodeState(recording.source.node(node)), mode)
    read = RuleBook(index).meanings(mode, chains)
    return {place: list(zip(rules, read[place], strict=True)) for place, rules in chains.items()}


@pytest.mark.parametrize(("recording", "mode"), MODES, ids=lambda value: getattr(value, "name", value))
def test_every_rule_of_every_policy_is_counted_once(recording: Recording, mode: str) -> None:
    policies = {(p.kind, p.namespace, p.name): p for p in load_cluster(recording.source).policies()}
    for node in recording.source.nodes():
        told = meanings(recording, node, mode, named=True)
        places = [place for place in told if (r := chain_role(place[2])) and r.kind is ChainKind.POLICY]
        assert places, f"no policy chain of {node} was found"
        for place in places:
            labels = [meaning.rule for _, meaning in told[place] if meaning.rule is not None]
            for _, direction, tier, kind, namespace, name, rule, action in labels:
                policy = policies[kind, namespace, name]
                assert tier == policy.tier
                entry = policy.spec[direction][int(rule)]
                assert action == entry.get("action", "Allow")
                assert direction in ("ingress", "egress")


@pytest.mark.parametrize(("recording", "mode"), MODES, ids=lambda value: getattr(value, "name", value))
def test_without_objects_the_chains_tell_tier_and_place(recording: Recording, mode: str) -> None:
    for node in recording.source.nodes():
        named = meanings(recording, node, mode, named=True)
        bare = meanings(recording, node, mode, named=False)
        for place in named:
            for (_, with_objects), (_, without) in zip(named[place], bare[place], strict=True):
                assert with_objects.drop == without.drop
                assert (with_objects.rule is None) == (without.rule is None)
                if with_objects.rule is not None and without.rule is not None and without.rule[3]:
                    assert with_objects.rule[:3] == without.rule[:3]
                    assert with_objects.rule[7] == without.rule[7]


@pytest.mark.parametrize(("recording", "mode"), MODES, ids=lambda value: getattr(value, "name", value))
def test_every_rule_that_drops_has_a_reason(recording: Recording, mode: str) -> None:
    reasons: Counter[str] = Counter()
    for node in recording.source.nodes():
        for place, told in meanings(recording, node, mode, named=False).items():
            for rule, meaning in told:
                verdicts = [s for s in rule.statements if getattr(s, "kind", "") == "drop"]
                role = chain_role(place[2])
                assert role is not None
                assert (meaning.drop is not None) == bool(verdicts and role.kind is not ChainKind.ARP), rule
                if meaning.drop is not None:
                    assert meaning.drop.reason in REASONS, rule
                    assert (meaning.drop.interface != "") == (role.kind is ChainKind.WORKLOAD)
                    reasons[meaning.drop.reason] += 1
    assert {"rule", "end-of-tier", "no-profile", "ct-invalid", "unknown-interface", "rpf", "encapsulation"} <= set(
        reasons
    )


def test_chains_that_did_not_change_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = recordings("1-nft")[0]
    chains = calico_chains(NodeState(recording.source.node("node1")), NFTABLES)
    book = RuleBook(policy_index(()))
    first = book.meanings(NFTABLES, chains)
    assert all(one is two for one, two in zip(first.values(), book.meanings(NFTABLES, chains).values(), strict=True))
    place = next(place for place in chains if (r := chain_role(place[2])) and r.kind is ChainKind.POLICY)
    changed: Mapping[Place, Sequence[Rule]] = {**chains, place: list(chains[place])[:-1]}
    after = book.meanings(NFTABLES, changed)
    assert len(after[place]) == len(first[place]) - 1
    assert {other for other in first if after[other] is not first[other]} == {place}
