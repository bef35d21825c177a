"""From chains to the names of API objects and the indices of their rules."""

from __future__ import annotations

from typing import Any

import pytest

from calico_debug.explain.attribution import Attributor, NamedPolicy, evidence_of, profile_ref
from calico_debug.explain.rulegroups import Marks
from calico_debug.model.explanation import Evidence, PolicyRef, RuleRef
from tests.explain.world import Node, Tier, World, allow, deny, endpoint, objects, passed, policy, policy_object

MARKS = Marks(0x10000, 0x20000)
RULES = [{"action": "Allow", "protocol": "TCP"}, {"action": "Deny"}]
TCP, ALL = allow("protocol=tcp"), deny()


def named(chains: dict[str, list[str]], *global_policies: Any, **lists: Any) -> NamedPolicy:
    """The first policy chain of ``chains``."""
    nodes = [Node(1, chains=chains)]
    more = {"globalnetworkpolicies_crd_projectcalico_org": list(global_policies), **lists}
    world = World(*nodes, cluster=objects(nodes, **more))
    chain = next(name for name in chains if "-cali-p" in name)
    return Attributor(world.engine.cluster).policy(world.engine._walkers["n1"], "ip", "calico", chain, MARKS)


def test_the_object_gives_tier_and_indices() -> None:
    other = {"action": "Allow", "ipVersion": 6}
    found = named(
        policy("gnp", "edge.guard", "ingress", TCP, ALL),
        policy_object("edge.guard", "edge", ingress=[other, *RULES]),
        policy_object("other", "edge", ingress=RULES),
    )
    assert found.ref == PolicyRef("GlobalNetworkPolicy", "edge.guard")
    assert (found.tier, found.direction, found.indices) == ("edge", "ingress", (1, 2))
    assert found.rule_ref(found.groups[1].rules[1]) == RuleRef("Deny", 2)
    assert found.rule_ref(None) is None


def test_an_object_that_has_changed_gives_no_index() -> None:
    found = named(
        policy("gnp", "edge.guard", "ingress", TCP, ALL), policy_object("edge.guard", "edge", ingress=RULES[:1])
    )
    assert (found.ref.name, found.indices) == ("edge.guard", (None, None))
    assert found.rule_ref(found.groups[0].main) == RuleRef("Allow", None)


def test_flow_logs_give_the_index_without_an_object() -> None:
    rules = ["dport=1 mark|10000", "mark&10000=10000 nflog=API3|gnp/x", "mark&10000=10000 return"]
    found = named(policy("gnp", "x", "ingress", rules))
    assert (found.object, found.indices) == (None, (3,))


def test_a_kubernetes_policy_counts_its_own_entries() -> None:
    """Two protocols of one entry are two rules there, and flow logs count those."""
    entry = {"ports": [{"protocol": "TCP", "port": 1}, {"protocol": "UDP", "port": 1}]}
    spec = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [entry, {}]}
    rules = [
        (f"protocol={name} mark|10000", f"mark&10000=10000 nflog=API{number}|knp/shop/web", "mark&10000=10000 return")
        for number, name in enumerate(("tcp", "udp", "sctp"))
    ]
    found = named(
        policy("knp", "shop/web", "ingress", *rules),
        networkpolicies_networking_k8s_io=[{"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}],
    )
    assert found.ref == PolicyRef("KubernetesNetworkPolicy", "web", "shop")
    assert found.indices == (0, 0, 1)


def test_a_chain_that_nothing_names() -> None:
    chain = "filter-cali-pi-_abcdefghijklmnopqrs"
    found = named({chain: ["dport=1 mark|10000"]})
    assert (found.ref, found.tier, found.indices) == (PolicyRef("", chain), "", (None,))


@pytest.mark.parametrize("rules", [(), (passed(),)])
def test_answers_are_kept(rules: tuple[Any, ...]) -> None:
    chains = {**endpoint("cali-tw-cali2", [Tier("t", ["gnp/x"])]), **policy("gnp", "x", "ingress", *rules)}
    world = World(Node(1, chains=chains))
    attributor, walker = Attributor(world.engine.cluster), world.engine._walkers["n1"]
    marks = attributor.marks(walker, "ip", "calico", "filter-cali-tw-cali2")
    assert marks == MARKS
    assert attributor.marks(walker, "ip", "calico", "filter-cali-tw-cali2") is marks
    first = attributor.policy(walker, "ip", "calico", "filter-cali-pi-gnp/x", marks)
    assert attributor.policy(walker, "ip", "calico", "filter-cali-pi-gnp/x", marks) is first


def test_evidence_and_profiles() -> None:
    found = named(policy("gnp", "x", "ingress", TCP))
    rule = found.groups[0].main
    assert evidence_of(rule) == Evidence("ip calico", rule.chain, rule.handle, rule.comment, "", 7)
    assert evidence_of(None, "ip x", "y") == Evidence("ip x", "y")
    assert profile_ref("kns.shop") == PolicyRef("Profile", "kns.shop")
