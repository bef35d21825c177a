"""Counters of recorded eBPF nodes add up: what policy evaluated to Deny is what the interfaces dropped by policy."""

from __future__ import annotations

from collections import Counter

import pytest

from calico_debug.agent.bpf_counters import BpfCounters, BpfReader
from calico_debug.metrics.bpf import Named, cells, drop_reason, interface_kind, rule_labels
from calico_debug.model.bpf import InterfaceCounters, InterfaceState
from calico_debug.model.bpf_words import COUNTERS
from calico_debug.model.bytecode import Section, SectionKind
from calico_debug.policy.identity import policy_index
from calico_debug.policy.rule_ids import rule_id
from calico_debug.state.cluster import load_cluster
from tests.recordings import Recording, recordings

INDEX = policy_index(())
RECORDED = recordings("-bpf")


def reading(recording: Recording, node: str) -> BpfCounters:
    index = policy_index(load_cluster(recording.source).policies())
    found = BpfReader(recording.source.node(node)).read(index)
    assert found is not None
    return found


@pytest.mark.parametrize("recording", RECORDED, ids=lambda recording: recording.name)
def test_denials_by_rule_are_the_drops_by_policy(recording: Recording) -> None:
    for node in recording.source.nodes():
        found = reading(recording, node)
        denied: Counter[str] = Counter()
        for _, labels, evaluations in found.rules:
            if labels[7] == "Deny":
                denied[labels[1]] += evaluations
        dropped: Counter[str] = Counter()
        for _, cell in found.cells:
            if cell.drop is not None and cell.drop.reason == "policy":
                dropped[cell.labels[0]] += cell.packets
        # What no profile allowed has one counter for both directions.
        assert denied.total() == dropped.total(), node
        if not denied[""]:
            assert +denied == +dropped, node


@pytest.mark.parametrize("recording", RECORDED, ids=lambda recording: recording.name)
def test_every_rule_has_a_name_and_its_policys_action(recording: Recording) -> None:
    policies = {(p.kind, p.namespace, p.name): p for p in load_cluster(recording.source).policies()}
    for node in recording.source.nodes():
        for _, labels, _ in reading(recording, node).rules:
            _, direction, tier, kind, namespace, name, rule, action = labels
            if (kind, namespace, name) in policies:
                policy = policies[kind, namespace, name]
                assert tier == policy.tier
                if rule.isdigit():
                    assert policy.spec[direction][int(rule)].get("action", "Allow") == action
            else:
                assert kind == "Profile" or rule in ("end-of-tier", "no-profile") or rule.startswith("id:"), labels


def state(flags: int, name: str = "cali1") -> InterfaceState:
    return InterfaceState(3, name, flags, *([-1] * 6), 0, 0)


@pytest.mark.parametrize(
    ("flags", "kind"),
    [(0x1, "workload"), (0x8, "host"), (0x40, "tunnel"), (0x80, "tunnel"), (0x100 | 0x200, "tunnel"), (0x10, "host")],
)
def test_kinds_of_interfaces(flags: int, kind: str) -> None:
    assert interface_kind(state(flags)) == kind
    assert interface_kind(None) == "unknown"


def test_directions_are_the_pods_own() -> None:
    counters = [InterfaceCounters(3, hook, (7, 0, 0, 0, 5)) for hook in (0, 1, 2)]
    of_pod = [one.labels[:2] for one in cells(counters, {3: state(0x1)}) if one.packets == 7]
    assert of_pod == [("egress", "workload"), ("ingress", "workload"), ("ingress", "workload")]
    of_host = [one.labels[:2] for one in cells(counters, {3: state(0x8)}) if one.packets == 7]
    assert of_host == [("ingress", "host"), ("egress", "host"), ("ingress", "host")]
    drops = [one.drop for one in cells(counters, {3: state(0x1)}) if one.packets == 5]
    assert drops[0] is not None
    assert drops[0] == ("ebpf", "egress", "policy", "workload", "cali1")
    assert [one.drop.interface for one in cells(counters, {}) if one.drop] == [""] * sum(
        name.category == "Dropped" for name in COUNTERS[:5]
    ) * 3


def test_reasons_are_different_words() -> None:
    dropped = [name for name in COUNTERS if name.category == "Dropped"]
    reasons = [drop_reason(name) for name in dropped]
    assert len(set(reasons)) == len(dropped)
    assert "packets-with-unknown-source" in reasons


def test_ids_without_a_name_and_without_a_profile() -> None:
    assert rule_labels(0, None, INDEX)[6:] == ("no-profile", "Deny")
    assert rule_labels(0xAB, None, INDEX)[6:] == ("id:00000000000000ab", "")


def test_the_id_tells_the_direction_better_than_the_program() -> None:
    """A workload's program holds policy of the host's, in the other direction."""
    number = rule_id("APE1|gnp/hosts")
    section = Section(SectionKind.RULE, "default", "GlobalNetworkPolicy", "", "hosts", 1, number, "allow")
    assert rule_labels(number, Named(section, "ingress"), INDEX) == (
        *("ebpf", "egress", "default", "GlobalNetworkPolicy", "", "hosts"),
        *("1", "Allow"),
    )
    # An allocated id says nothing: then the program's counts.
    other = Section(SectionKind.RULE, "default", "GlobalNetworkPolicy", "", "hosts", 1, 7, "allow")
    assert rule_labels(7, Named(other, "ingress"), INDEX)[1] == "ingress"
