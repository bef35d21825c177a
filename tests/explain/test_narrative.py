"""What a journey's story says, step by step."""

from __future__ import annotations

from calico_debug.explain.narrative import narrate, service_backend
from calico_debug.walk.choices import Chooser
from calico_debug.walk.journey import Journey, Opening
from calico_debug.walk.wiring import Place
from tests.explain.world import Node, Tier, World, allow, deny, endpoint, passed, policy, told

TIERS = endpoint("cali-tw-cali1", [Tier("first", ["gnp/a"]), Tier("open", ["np/shop/b"], "Pass"), Tier("staged")])
POLICIES = {
    **policy("gnp", "a", "ingress", deny("dport=23"), allow("dport=80"), passed()),
    **policy("np", "shop/b", "ingress", deny("dport=24")),
}


def world(**chains: list[str]) -> World:
    return World(Node(1), Node(2, chains={**TIERS, **POLICIES, **chains}))


def test_a_flow_in_the_order_in_which_the_packet_meets_things() -> None:
    assert told(world().ask("11:40000", "21:81")) == [
        "n1 conntrack new: the packet's connection",
        "n1 routing routed: out of eth0 (route 10.244.2.0/24)",
        "n1 egress allowed: no tier decided; profile kns.shop allows",
        "n2 conntrack new: the packet's connection",
        "n2 routing routed: out of cali1 (route 10.244.2.1/32)",
        "n2 ingress first passed: ",
        "n2 ingress open passed: no rule matched, and the tier's default action is to pass",
        "n2 ingress staged passed: no policy of the tier is enforced here",
        "n2 ingress allowed: no tier decided; profile kns.shop allows",
        "n2 reply passed: conntrack lets the answer through",
        "n1 reply passed: conntrack lets the answer through",
    ]


def test_rules_need_no_words_beside_themselves() -> None:
    for port, action in ((23, "denied"), (80, "allowed")):
        answer = world().ask("11:40000", f"21:{port}")
        step = next(step for step in answer.steps if step.tier == "first")
        assert (step.action, step.detail) == (action, "")
        assert step.policy is not None
        assert step.rule is not None
        assert step.evidence is not None
        assert step.evidence.chain == "filter-cali-pi-gnp/a"


def test_a_denial_ends_the_story_but_for_what_would_have_been() -> None:
    real = told(world().ask("11:40000", "21:23"), hypothetical=False)
    assert real[-1] == "n2 ingress first denied: "
    assert len(real) == 6


def test_without_steps_the_verdict_is_the_same() -> None:
    engine = world().engine
    opening = Opening(4, 6, 0x0AF40101, 0x0AF40201, 40000, 23, Place("n1", "cali1"))
    journey = engine._traveller.travel(opening, Chooser(), join_existing=False)
    parts = (journey, engine._walkers, engine._attributor, engine.name_of)
    long, short = narrate(*parts), narrate(*parts, with_steps=False)
    assert long.steps
    assert not short.steps
    assert (long.verdict, long.decision) == (short.verdict, short.decision)
    assert long.verdict == "denied"


def test_translations() -> None:
    nat = {
        "nat-PREROUTING@prerouting:-100:accept:nat": ["daddr=10.96.0.1 protocol=tcp dnat:10.244.2.1|80"],
        "nat-POSTROUTING@postrouting:100:accept:nat": ["oif=eth0 masquerade"],
    }
    nodes = (Node(1, chains=nat), Node(2))
    story = told(World(*nodes).ask("11:40000", "10.96.0.1:90"))
    assert "n1 nat translated: 10.96.0.1:90 -> 10.244.2.1:80 (shop/pod21)" in story
    assert "n1 nat masqueraded: source 10.244.1.1 becomes 172.30.0.1" in story
    assert [line for line in story if "reply" in line] == [
        "n2 reply passed: conntrack lets the answer through",
        "n1 reply passed: conntrack lets the answer through",
    ]


def test_the_backend_is_where_the_request_was_sent_last() -> None:
    nat = {"nat-PREROUTING@prerouting:-100:accept:nat": ["daddr=10.96.0.1 protocol=tcp dnat:10.244.2.1|80"]}
    engine = World(Node(1, chains=nat), Node(2)).engine
    for target, wanted in ((0x0A600001, (0x0AF40201, 80)), (0x0AF40201, None)):
        opening = Opening(4, 6, 0x0AF40101, target, 40000, 90, Place("n1", "cali1"))
        assert service_backend(engine._traveller.travel(opening, Chooser(), join_existing=False)) == wanted
    assert service_backend(Journey()) is None


def test_nothing_to_tell() -> None:
    engine = World(Node(1)).engine
    found = narrate(Journey(stopped="why"), engine._walkers, engine._attributor, engine.name_of)
    assert (found.verdict, found.steps) == ("undetermined", [])
    assert found.decision is not None
    assert (found.decision.reason, found.decision.detail) == ("missing-evidence", "why")
