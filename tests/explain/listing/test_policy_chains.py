"""Endpoints' chains told as policy."""

from __future__ import annotations

from typing import Any

from calico_debug.explain.listing.node import NodeListings
from calico_debug.explain.listing.policy_view import EndpointView
from calico_debug.model.explanation import PolicyRef
from tests.explain.guarded import INGRESS, POLICIES, POLICY_OBJECTS, guarded
from tests.explain.world import Node, Tier, World, allow, deny, endpoint, objects, policy

PACKETS = 7
"""What every counter of the made-up rules shows."""


def views(node: Node, **more: Any) -> dict[tuple[str, str], EndpointView]:
    world = World(node, cluster=objects((node,), **more))
    found = NodeListings(world.source, node.name).policies()
    return {(view.interface, view.direction): view for view in found}


def test_tiers_policies_rules_and_ends() -> None:
    view = views(guarded(), **POLICY_OBJECTS)["cali2", "ingress"]
    assert (view.kind, view.pod, view.family, view.dataplane) == ("pod", ("shop", "pod12"), 4, "nftables")
    assert [(tier.name, tier.end and (tier.end.action, tier.end.hits)) for tier in view.tiers] == [
        ("security", ("Deny", PACKETS)),
        ("default", ("Deny", PACKETS)),
    ]
    told = [
        (policy.ref, [(rule.index, rule.action, rule.hits, rule.text, rule.programmed) for rule in policy.rules])
        for policy in view.policies
    ]
    assert told == [
        (
            PolicyRef("GlobalNetworkPolicy", "security.guard"),
            [
                (0, "Deny", PACKETS, "Deny TCP to port 23", "protocol tcp, dport 23"),
                (1, "Pass", PACKETS, "Pass all traffic", "everything"),
            ],
        ),
        (
            PolicyRef("NetworkPolicy", "web", "shop"),
            [(0, "Allow", PACKETS, "Allow TCP to port 80", "protocol tcp, dport 80")],
        ),
        (PolicyRef("Profile", "kns.shop"), [(0, "Allow", PACKETS, "", "everything")]),
    ]
    assert view.end is not None
    assert (view.end.action, view.findings, view.problem) == ("Deny", (), "")


def test_without_objects_the_rules_are_told_as_programmed() -> None:
    view = views(guarded())["cali2", "ingress"]
    guard = next(iter(view.policies))
    assert guard.ref == PolicyRef("GlobalNetworkPolicy", "security.guard")
    assert [(rule.index, rule.text) for rule in guard.rules] == [(None, ""), (None, "")]


def test_an_object_with_other_rules_is_a_finding_and_gives_no_words() -> None:
    changed = {**POLICY_OBJECTS, "networkpolicies_crd_projectcalico_org": []}
    changed["globalnetworkpolicies_crd_projectcalico_org"] = [
        {"metadata": {"name": "security.guard"}, "spec": {"tier": "security", "ingress": [{"action": "Allow"}]}}
    ]
    view = views(guarded(), **changed)["cali2", "ingress"]
    assert [(one.code, one.severity) for one in view.findings] == [("policy-not-as-programmed", "warning")]
    assert "GlobalNetworkPolicy security.guard has other ingress rules than chain" in view.findings[0].message
    assert [rule.text for rule in next(iter(view.policies)).rules] == ["", ""]


def test_a_tier_that_does_not_deny_passes_and_a_policy_may_have_no_rules() -> None:
    tiers = (Tier("soft", ["gnp/soft.a"], "Pass"), Tier("default", ["gnp/b"]))
    node = Node(
        chains={
            **endpoint("cali-tw-cali1", tiers),
            **policy("gnp", "soft.a", "ingress", allow("protocol=tcp")),
            **policy("gnp", "b", "ingress"),
        }
    )
    view = views(node)["cali1", "ingress"]
    assert [tier.end and (tier.end.action, tier.end.hits) for tier in view.tiers] == [("Pass", None), ("Deny", PACKETS)]
    assert [len(policy.rules) for policy in view.policies] == [1, 0, 1]


def test_groups_are_told_policy_by_policy() -> None:
    chain = endpoint("cali-tw-cali1", INGRESS)
    name, rules = next(iter(chain.items()))
    grouped = [rule.replace("filter-cali-pi-gnp/security.guard", "filter-cali-gi-abc") for rule in rules]
    members = ["mark&20000=0 jump:filter-cali-pi-gnp/security.guard", "mark&20000=0 jump:filter-cali-pi-gnp/other"]
    node = Node(
        chains={
            name: grouped,
            "filter-cali-gi-abc": members,
            **POLICIES,
            **policy("gnp", "other", "ingress", deny("protocol=udp")),
        }
    )
    view = views(node)["cali1", "ingress"]
    first = view.tiers[0]
    assert [(one.ref.name, one.group) for one in first.policies] == [
        ("security.guard", "filter-cali-gi-abc"),
        ("other", "filter-cali-gi-abc"),
    ]
    asked = "GlobalNetworkPolicy security.guard, GlobalNetworkPolicy other"
    assert [count.what for count in view.counts if count.tier == "security"] == [
        f"asked {asked}",
        f"accepted by {asked}",
        "denied: end of tier",
    ]


def test_counters_of_the_endpoints_own_chain() -> None:
    view = views(guarded())["cali2", "ingress"]
    assert [(count.what, count.tier, count.packets) for count in view.counts] == [
        ("accepted: conntrack knows the connection", "", PACKETS),
        ("denied: invalid for conntrack", "", PACKETS),
        ("asked GlobalNetworkPolicy security.guard", "security", PACKETS),
        ("accepted by GlobalNetworkPolicy security.guard", "security", PACKETS),
        ("denied: end of tier", "security", PACKETS),
        ("asked NetworkPolicy shop/web", "default", PACKETS),
        ("accepted by NetworkPolicy shop/web", "default", PACKETS),
        ("denied: end of tier", "default", PACKETS),
        ("accepted by profile kns.shop", "", PACKETS),
        ("denied: no profile allowed", "", PACKETS),
    ]


def test_a_rejecting_felix_is_told_so() -> None:
    node = Node(
        chains={
            **endpoint("cali-tw-cali1", (Tier("default", ["gnp/b"]),), deny="reject"),
            **policy("gnp", "b", "ingress"),
        }
    )
    view = views(node)["cali1", "ingress"]
    assert view.tiers[0].end is not None
    assert view.end is not None
    assert (view.tiers[0].end.action, view.end.action) == ("Reject", "Reject")
