"""Following what would match a rule through chains of a made-up node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from calico_debug.hits.reach import STEPS, Answer, Reach, Unclear
from calico_debug.state.node import NodeState
from tests.evidence.memory import MemoryNode
from tests.explain.rules import ruleset

if TYPE_CHECKING:
    from calico_debug.model.nft import Rule, Ruleset

PLACE = ("ip", "calico", "endpoint")
ACCEPT, PASS = "mark&10=10", "mark&20=0"
TCP, UDP = "protocol=tcp", "protocol=udp"
ENDPOINT = (f"{PASS} jump:one", f"{ACCEPT} return", f"{PASS} jump:two", f"{ACCEPT} return", f"{PASS} drop")


def rules(one: list[str], two: list[str], endpoint: tuple[str, ...] = ENDPOINT) -> Ruleset:
    """An endpoint that asks two policies of one tier; it clears its marks first."""
    chains = {"endpoint@forward:0": ["mark-30", *endpoint], "one": one, "two": two}
    return NodeState(MemoryNode({"nft-ruleset.json": ruleset({"ip calico": chains})})).ruleset


def ask(made: Ruleset, chain: str, number: int) -> Answer:
    found = made.rules("ip", "calico", chain)
    assert found is not None
    return Reach(made, members=False).ask(PLACE, found[number])


def places(answer: Answer) -> list[tuple[str, int]]:
    """The takers as chain and what they stand at."""

    def number(rule: Rule) -> int:
        return rule.handle

    return [(rule.chain, number(rule)) for rule in answer.takers]


ALLOW = [f"{TCP} dport=80 mark|10", f"{ACCEPT} return"]


def test_a_rule_that_can_be_reached() -> None:
    made = rules(ALLOW, [f"{TCP} dport=81 mark|10"])
    assert ask(made, "one", 0).reached
    assert ask(made, "two", 0).reached


def test_an_acceptance_before() -> None:
    found = ask(rules(ALLOW, [f"{TCP} dport=80 saddr=10.0.0.0/8 drop"]), "two", 0)
    assert (found.reached, found.arrived) == (False, False)
    assert [chain for chain, _ in places(found)] == ["one"]


def test_a_pass_before_skips_the_rest_of_the_tier() -> None:
    passing = [f"{UDP} mark|20", "mark&20=20 return"]
    found = ask(rules(passing, [f"{UDP} dport=53 mark|10"]), "two", 0)
    assert not found.reached
    assert [chain for chain, _ in places(found)] == ["one"]


def test_a_part_is_left() -> None:
    made = rules([f"{TCP} dport=80 saddr=10.0.0.0/8 drop"], [f"{TCP} dport=80 mark|10"])
    assert ask(made, "two", 0).reached


def test_halves_that_leave_nothing() -> None:
    halves = [f"{TCP} dport=80 saddr=0.0.0.0/1 drop", f"{TCP} dport=80 saddr=128.0.0.0/1 drop"]
    found = ask(rules(halves, [f"{TCP} dport=80 mark|10"]), "two", 0)
    assert not found.reached
    assert len(found.takers) == 2


def test_what_is_not_understood_takes_nothing_for_certain() -> None:
    for word in ("limit=10", "user=1000", "ct=new", "iif=eth0", "spoofed"):
        assert ask(rules([f"{word} drop"], [f"{TCP} mark|10"]), "two", 0).reached, word


def test_a_rule_that_asks_what_it_cannot_have() -> None:
    found = ask(rules([], [f"{TCP} dport=80 dport=81 mark|10"]), "two", 0)
    assert (found.reached, found.arrived, found.takers) == (False, True, ())


def test_a_rule_behind_marks_that_nobody_sets() -> None:
    found = ask(rules([], ["mark-100", f"mark&100=100 {TCP} mark|10"]), "two", 1)
    assert (found.reached, found.arrived, found.takers) == (False, True, ())


@pytest.mark.parametrize("word", ["alien", "spread=one,two", "dnat:10.0.0.1|80"])
def test_chains_that_do_more_are_not_judged(word: str) -> None:
    with pytest.raises(Unclear):
        ask(rules([word], [f"{TCP} mark|10"]), "two", 0)


def test_a_mark_that_is_tested_behind_its_change() -> None:
    with pytest.raises(Unclear):
        ask(rules(["mark|10 dport=80 drop"], [f"{TCP} mark|10"]), "two", 0)


def test_chains_that_go_round() -> None:
    with pytest.raises(Unclear):
        ask(rules(["jump:one"], [f"{TCP} mark|10"]), "two", 0)


def test_a_rule_of_another_listing() -> None:
    target = (rules([], [TCP]).rules("ip", "calico", "two") or ())[0]
    with pytest.raises(Unclear):
        Reach(rules([], [TCP]), members=False).ask(PLACE, target)


def test_questions_are_bounded() -> None:
    many = [f"saddr=10.{n // 250}.{n % 250}.0/24 {TCP} dport={n + 1} drop" for n in range(900)]
    try:
        assert ask(rules(many, ["mark|10"]), "two", 0).reached
    except Unclear:
        assert STEPS < 900 * 900
