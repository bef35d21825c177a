"""Names of tiers where the rule that starts a tier still has the comment of another, as Felix leaves it there.

Seen with Felix v3.32.1 in nftables mode: the policies of one tier were deleted, and those of another took their place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from calico_debug.explain.listing.node import NodeListings
from calico_debug.metrics.rules import RuleBook
from calico_debug.policy.identity import policy_index
from calico_debug.state.dataplane import NFTABLES
from calico_debug.state.node import NodeState
from tests.explain.rules import Json
from tests.explain.world import Node, Tier, World, allow, endpoint, objects, passed, policy_object

CHAIN = "filter-cali-tw-cali2"
WEB = policy_object("web", ingress=[{"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}}])
GUARD = policy_object("edge.guard", "edge", ingress=[{"action": "Pass"}])
V3_29 = ("default/default.web", "Policy default.web"), ("edge/edge.guard", "Policy edge.guard")
V3_32 = ("gnp/web", "GlobalNetworkPolicy web"), ("gnp/edge.guard", "GlobalNetworkPolicy edge.guard")
"""Of both policies: the id in the chain's name, and what the chain's first comment says (v3.29 to v3.31, v3.32)."""


def world(
    named: Sequence[tuple[str, str]], *, ends: bool = True, group: bool = False, policies: Sequence[Json] = ()
) -> World:
    """Tier edge passes, then tier default allows TCP 80; both begin with "Start of tier old"."""
    (web, web_words), (guard, guard_words) = named
    tiers = Tier("edge", [guard]), Tier("default", ["../gi-0123" if group else web])
    rules = [
        f"{rule.rpartition(' ')[0]} old" if "Start of tier" in rule else rule.replace("pi-../gi", "gi")
        for rule in endpoint("cali-tw-cali2", tiers)[CHAIN]
    ]
    if not ends:
        rules = [re.sub(r"End of tier \w+\. ", "", rule) for rule in rules]
    first, *rest = allow("protocol=tcp dport=80")
    passing, *after = passed()
    chains = {
        CHAIN: rules,
        f"filter-cali-pi-{web}": [f"{first} # cali:p; {web_words} ingress", *rest],
        f"filter-cali-pi-{guard}": [f"{passing} # cali:p; {guard_words} ingress", *after],
        "filter-cali-gi-0123": [f"jump:filter-cali-pi-{web}"],
    }
    node = Node(1, chains=chains)
    return World(node, cluster=objects([node], globalnetworkpolicies_crd_projectcalico_org=policies))


WORLDS = pytest.mark.parametrize(
    "asked",
    [
        pytest.param(world(V3_32, policies=[WEB, GUARD]), id="v3.32"),
        pytest.param(world(V3_32, policies=[WEB, GUARD], ends=False), id="objects alone"),
        pytest.param(world(V3_32, policies=[WEB, GUARD], ends=False, group=True), id="a group"),
        pytest.param(world(V3_32), id="no objects"),
        pytest.param(world(V3_29, policies=[WEB, GUARD], ends=False), id="v3.29"),
        pytest.param(world(V3_29, ends=False), id="v3.29, no objects"),
    ],
)


@WORLDS
def test_explanations_name_the_tier_of_the_policies(asked: World) -> None:
    denied, allowed = asked.ask("11", "12:81"), asked.ask("11", "12:80")
    assert denied.decision is not None
    assert allowed.decision is not None
    assert (denied.decision.reason, denied.decision.tier) == ("end-of-tier", "default")
    assert (allowed.decision.reason, allowed.decision.tier) == ("rule", "default")
    steps = [step for step in allowed.steps if step.direction == "ingress" and step.tier]
    assert [(step.tier, step.action) for step in steps] == [("edge", "passed"), ("default", "allowed")]


@WORLDS
def test_listings_name_it_too(asked: World) -> None:
    views = NodeListings(asked.source, "n1").policies()
    (view,) = (view for view in views if (view.interface, view.direction) == ("cali2", "ingress"))
    assert [tier.name for tier in view.tiers] == ["edge", "default"]
    assert {count.tier for count in view.counts} == {"", "edge", "default"}


@WORLDS
def test_and_so_do_counters(asked: World) -> None:
    state = NodeState(asked.source.node("n1"))
    names = (CHAIN, *(f"filter-cali-pi-{of}" for form in (V3_29, V3_32) for of, _ in form), "filter-cali-gi-0123")
    places = [("ip", "calico", name) for name in names]
    chains = {place: rules for place in places if (rules := state.ruleset.rules(*place)) is not None}
    index = policy_index(asked.engine.cluster.policies())
    told = RuleBook(index).meanings(NFTABLES, chains)["ip", "calico", CHAIN]
    assert [one.rule[2] for one in told if one.rule and one.rule[6] == "end-of-tier"] == ["edge", "default"]


def test_the_start_is_believed_where_nothing_else_tells() -> None:
    denied = world(V3_32, ends=False).ask("11", "12:81")
    assert denied.decision is not None
    assert denied.decision.tier == "old"
