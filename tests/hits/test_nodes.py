"""Rules of whole nodes: what is counted once, and what is said where nothing is counted."""

from __future__ import annotations

import pytest

from calico_debug.evidence.source import EvidenceSource
from calico_debug.explain.listing.node import NodeListings
from calico_debug.hits.model import NodeHits
from calico_debug.hits.nodes import NO_DEBUG, SINCE_BPF, SINCE_CHAINS, node_hits
from tests.doctor.patients import bpf
from tests.evidence.memory import MemorySource
from tests.explain.world import Node, objects
from tests.recordings import Recording, recordings


def hits(source: EvidenceSource, node: str) -> NodeHits:
    return node_hits(NodeListings(source, node))


@pytest.mark.parametrize("recording", [*recordings("2.1-nft"), *recordings("-iptables")], ids=lambda one: one.name)
def test_counters_of_chains_are_each_counted_once(recording: Recording) -> None:
    """A policy is asked by several endpoints; its chain is one."""
    listings = NodeListings(recording.source, "node1")
    found = node_hits(listings)
    assert found.since == SINCE_CHAINS
    counted = {one.key: one.count for one in found.counts}
    assert len(counted) == len(found.counts)
    chains = {
        (view.direction, policy.ref.name, rule.index): rule.hits
        for view in listings.policies()
        for tier in view.tiers
        for policy in tier.policies
        for rule in policy.rules
        if not view.stage
    }
    for key, count in counted.items():
        if key.policy in ("security.quarantine", "platform.client-egress"):
            assert count == chains[key.direction, key.policy, int(key.rule)], key


@pytest.mark.parametrize("recording", recordings("2.1-bpf"), ids=lambda one: one.name)
def test_rules_of_programs(recording: Recording) -> None:
    found = hits(recording.source, "node1")
    assert found.since == SINCE_BPF
    assert found.notes == ()
    assert len({one.key for one in found.counts}) == len(found.counts)
    assert any(one.count for one in found.counts)


def test_counters_that_stand_still_are_none() -> None:
    made = bpf()
    source = MemorySource(objects([Node(1, pods=[1])]), {"n1": made.evidence()})
    found = hits(source, "n1")
    assert NO_DEBUG in found.notes
    assert all(one.count is None for one in found.counts)


def test_a_node_with_policy_made_up() -> None:
    node = Node(1)
    source = MemorySource(objects([node]), {node.name: node.evidence()})
    found = hits(source, node.name)
    assert found.notes == ()
    assert all(one.count is not None for one in found.counts)
