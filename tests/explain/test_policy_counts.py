from __future__ import annotations

from dataclasses import replace

import pytest

from calico_debug.explain.policy_counts import UNIT, PolicyCount, PolicyCounts, RuleCount
from calico_debug.model.cluster import PolicyObject
from calico_debug.state.cluster import load_cluster
from calico_debug.state.node import NodeState
from tests.evidence.memory import MemoryNode
from tests.explain.world import Node, Tier, allow, deny, endpoint, policy
from tests.recordings import Recording, recordings
from tests.truth.happened import what_happened

RULES = [{"action": "Allow", "protocol": "TCP"}, {"action": "Deny"}]
WEB = PolicyObject("NetworkPolicy", "shop", "web", "default", None, {"ingress": RULES})
SEVEN = 7
"""What every rule of such a node has counted (tests.explain.rules)."""


def counts(chains: dict[str, list[str]], **files: str | None) -> PolicyCounts:
    ends = endpoint("cali-fw-cali1", [Tier("default", ["np/shop/web"])])
    return PolicyCounts(NodeState(Node(chains={**chains, **ends}, files=files).evidence()))


CHAINS = policy("np", "shop/web", "ingress", allow("dport=80"), deny())


def test_each_rule_and_their_sum() -> None:
    found = counts(CHAINS).count(WEB, "ingress")
    assert found == PolicyCount(2 * SEVEN, (RuleCount(0, "Allow", SEVEN), RuleCount(1, "Deny", SEVEN)), UNIT)


def test_rules_that_do_not_line_up_have_no_index() -> None:
    other = replace(WEB, spec={"ingress": RULES[:1]})
    found = counts(CHAINS).count(other, "ingress")
    assert found is not None
    assert [(rule.index, rule.action) for rule in found.rules] == [(None, "Allow"), (None, "Deny")]


def test_what_is_not_there_has_no_count() -> None:
    made = counts(CHAINS)
    assert made.count(WEB, "egress") is None
    assert made.count(replace(WEB, name="other"), "ingress") is None
    assert PolicyCounts(NodeState(MemoryNode({}))).count(WEB, "ingress") is None
    assert made.count(replace(WEB, kind="StagedNetworkPolicy"), "ingress") is None


@pytest.mark.parametrize(
    "recording", [r for r in recordings("-nft") if "stale" not in r.name], ids=lambda one: one.name
)
def test_probes_moved_what_is_counted(recording: Recording) -> None:
    """Every denial by a policy that a probe met is among the counts of the policy's Deny rules."""
    cluster = load_cluster(recording.source)
    denied: dict[tuple[str, tuple[str, str, str]], int] = {}
    for one in what_happened(recording):
        for place in one.dropped:
            for policy_key in one.policies:
                if policy_key.name in place.chain:
                    denied[place.node, policy_key] = denied.get((place.node, policy_key), 0) + 1
    assert len(denied) > 3
    for (node, key), number in denied.items():
        made = PolicyCounts(NodeState(recording.source.node(node)))
        source = next(p for p in cluster.policies() if (p.kind, p.namespace, p.name) == key)
        found = [made.count(source, direction) for direction in ("ingress", "egress")]
        drops = sum(rule.packets for one in found if one for rule in one.rules if rule.action == "Deny")
        assert drops >= number, (node, key)
