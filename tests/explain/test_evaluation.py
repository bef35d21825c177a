"""Matched rules back to tiers and policies, pass by pass."""

from __future__ import annotations

from calico_debug.explain.evaluation import EndpointVisit, endpoint_visits, mark_test
from calico_debug.model.nft import Bitwise, Match, Meta
from calico_debug.walk.journey import Opening
from calico_debug.walk.wiring import Place
from tests.explain.world import PASS, Node, Tier, World, allow, deny, endpoint, passed, policy


def visits(node: Node, port: int = 80, protocol: int = 6) -> list[EndpointVisit]:
    """What the first pass of a packet from the first pod to the second met."""
    opening = Opening(4, protocol, 0x0AF40101, 0x0AF40102, 40000, port, Place("n1", "cali1"))
    (found,) = World(node).engine._alternatives(opening, join_existing=False)
    return endpoint_visits(found.journey.legs[0].made.trace.events)


def summary(visit: EndpointVisit) -> list[tuple[str, str, list[tuple[str, str]]]]:
    return [
        (tier.name, tier.outcome, [(p.chain.partition("-cali-")[2], p.outcome) for p in tier.policies])
        for tier in visit.tiers
    ]


def ingress(*tiers: Tier) -> dict[str, list[str]]:
    return endpoint("cali-tw-cali2", tiers)


def test_both_endpoints_of_a_node_are_visited() -> None:
    found = visits(Node(1))
    assert [(v.role.direction, v.outcome, v.reason, v.profile, v.hook) for v in found] == [
        ("egress", "allowed", "profile", "kns.shop", "forward"),
        ("ingress", "allowed", "profile", "kns.shop", "forward"),
    ]
    assert found[0].position < found[1].position
    assert not found[0].hypothetical


def test_tiers_and_policies_in_order() -> None:
    chains = {
        **ingress(
            Tier("first", ["gnp/a", "gnp/b"]), Tier("open", ["gnp/c"], "Pass"), Tier("empty"), Tier("last", ["gnp/d"])
        ),
        **policy("gnp", "a", "ingress", deny("dport=1")),
        **policy("gnp", "b", "ingress", passed("dport=80")),
        **policy("gnp", "c", "ingress", deny("dport=2")),
        **policy("gnp", "d", "ingress", allow("dport=80")),
    }
    visit = visits(Node(1, chains=chains))[1]
    assert summary(visit) == [
        ("first", "passed", [("pi-gnp/a", "no match"), ("pi-gnp/b", "passed")]),
        ("open", "passed", [("pi-gnp/c", "no match")]),
        ("empty", "passed", []),
        ("last", "allowed", [("pi-gnp/d", "allowed")]),
    ]
    assert (visit.outcome, visit.reason) == ("allowed", "rule")
    assert visit.tiers[0].by is visit.tiers[0].policies[1]
    assert visit.tiers[1].by is None
    assert visit.tier is visit.tiers[3]
    by = visit.tiers[3].by
    assert by is not None
    assert by.rule is not None
    assert by.rule.comment.endswith("GlobalNetworkPolicy d ingress")


def test_a_denying_rule_and_the_rule_that_drops() -> None:
    chains = {**ingress(Tier("t", ["gnp/a"])), **policy("gnp", "a", "ingress", deny("dport=80"))}
    visit = visits(Node(1, chains=chains))[1]
    assert (visit.outcome, visit.reason, visit.rejected) == ("denied", "rule", False)
    assert visit.rule is not None
    by = visit.tiers[0].by
    assert by is not None
    assert by.rule is not None
    assert by.rule.handle + 1 == visit.rule.handle, "the rule that matched, and the one that acts on its mark"
    one_rule = {**chains, **policy("gnp", "a", "ingress", ["dport=80 reject"])}
    visit = visits(Node(1, chains=one_rule))[1]
    assert (visit.outcome, visit.rejected) == ("denied", True)
    assert visit.tiers[0].by is not None
    assert visit.tiers[0].by.rule is visit.rule


def test_the_end_of_a_tier() -> None:
    chains = {**ingress(Tier("t", ["gnp/a"])), **policy("gnp", "a", "ingress")}
    visit = visits(Node(1, chains=chains))[1]
    assert (visit.outcome, visit.reason, summary(visit)) == (
        "denied",
        "end-of-tier",
        [("t", "denied", [("pi-gnp/a", "no match")])],
    )


def test_a_tier_of_v3_28_has_no_start() -> None:
    ((name, rules),) = ingress(Tier("default", ["gnp/a"])).items()
    rules = [f"mark-{PASS}" if "Start of tier" in rule else rule for rule in rules]
    visit = visits(Node(1, chains={name: rules, **policy("gnp", "a", "ingress")}))[1]
    assert summary(visit) == [("default", "denied", [("pi-gnp/a", "no match")])]


def test_policies_in_a_group() -> None:
    ((name, rules),) = ingress(Tier("t", ["gnp/a"])).items()
    rules = [rule.replace("pi-gnp/a", "gi-group") for rule in rules]
    group = [
        "jump:filter-cali-pi-gnp/a",
        "mark&30000=0 jump:filter-cali-pi-gnp/b",
        "return # cali:g; Return on verdict",
    ]
    chains = {
        name: rules,
        "filter-cali-gi-group": group,
        **policy("gnp", "a", "ingress"),
        **policy("gnp", "b", "ingress", passed()),
    }
    visit = visits(Node(1, chains=chains))[1]
    assert summary(visit) == [("t", "passed", [("pi-gnp/a", "no match"), ("pi-gnp/b", "passed")])]
    assert visit.tiers[0].by is visit.tiers[0].policies[1]


def test_shortcuts_of_conntrack() -> None:
    chains = {"filter-cali-tw-cali2": ["ct=new accept"]}
    visit = visits(Node(1, chains=chains))[1]
    assert (visit.outcome, visit.reason) == ("allowed", "established")
    chains = {"filter-cali-tw-cali2": ["ct=new drop"]}
    visit = visits(Node(1, chains=chains))[1]
    assert (visit.outcome, visit.reason) == ("denied", "ct-invalid")


def test_what_follows_a_denial_is_another_visits() -> None:
    chains = {**endpoint("cali-fw-cali1", [Tier("t", ["gnp/a"])]), **policy("gnp", "a", "egress", deny())}
    first, second = visits(Node(1, chains=chains))
    assert (first.outcome, first.hypothetical) == ("denied", False)
    assert (second.outcome, second.hypothetical) == ("allowed", True)


def test_other_tables_and_chains_are_no_visits() -> None:
    node = Node(1, chains={"filter-cali-FORWARD": ["accept"]}, tables={"inet x": {"f@forward:5": ["accept"]}})
    assert visits(node) == []


def test_tests_of_marks() -> None:
    assert mark_test(Match(Bitwise(Meta("mark"), 0x10, 0), "==", 0x10)) == (0x10, 0x10)
    assert mark_test(Match(Bitwise(Meta("mark"), 0x10, 0), "!=", 0x10)) is None
    assert mark_test(Match(Bitwise(Meta("priority"), 0x10, 0), "==", 0x10)) is None
    assert mark_test(Match(Meta("mark"), "==", 0x10)) is None
