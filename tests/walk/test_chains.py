"""Jumps, gotos, returns, verdicts and denials."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from calico_debug.errors import MissingEvidence
from calico_debug.model.nft import Constant, Hook, Limit, Match, Meta, Payload, Reject, SetMeta, Verdict
from calico_debug.model.values import unknown
from calico_debug.walk.chains import MAX_DEPTH, Program, run_base_chain
from calico_debug.walk.choices import Chooser, Kind, in_words
from calico_debug.walk.context import Context, Matched, Onward, Undecided
from calico_debug.walk.packet import SOURCE_PORT_OPEN, Packet
from tests.walk.worlds import COUNT, Rules, context, counted

if TYPE_CHECKING:
    from calico_debug.model.nft import Statement

FORWARD = Hook("filter", "forward", 0)
DROPPING = Hook("filter", "forward", 0, "drop")
ACCEPT, DROP, RETURN = Verdict("accept"), Verdict("drop"), Verdict("return")


def _jump(chain: str) -> Verdict:
    return Verdict("jump", chain)


def _run(rules: Rules, about: Context | None = None, go_on: object = None) -> tuple[bool, Context]:
    about = about or context()
    base = next(chain for chain in rules.base_chains())
    return run_base_chain(Program(rules), base, about, go_on), about  # type: ignore[arg-type]


def test_accept_ends_the_base_chain_from_any_depth() -> None:
    rules = Rules().chain("base", (COUNT, _jump("a")), (COUNT, DROP), hook=FORWARD).chain("a", (COUNT, ACCEPT))
    survived, about = _run(rules)
    assert survived
    assert list(counted(about.trace.counted)) == [("base", 1), ("a", 1)]


def test_return_goes_back_and_goto_does_not_come_back() -> None:
    rules = Rules().chain("base", (_jump("a"),), (COUNT,), hook=FORWARD)
    rules.chain("a", (Verdict("goto", "b"),), (COUNT,)).chain("b", (COUNT, RETURN), (COUNT,))
    assert list(counted(_run(rules)[1].trace.counted)) == [("b", 1), ("base", 2)]


def test_goto_from_the_base_chain_meets_its_policy() -> None:
    rules = Rules().chain("base", (Verdict("goto", "a"),), (ACCEPT,), hook=DROPPING).chain("a", (COUNT,))
    survived, about = _run(rules)
    assert not survived
    assert about.trace.denials[-1].rule is None


def test_statements_stop_at_the_first_that_does_not_hold() -> None:
    rules = Rules().chain("base", (COUNT, Match(Meta("l4proto"), "==", 17), DROP), hook=FORWARD)
    survived, about = _run(rules)
    assert survived
    assert len(about.trace.counted) == 1
    assert not [event for event in about.trace.events if isinstance(event, Matched)]


def test_continue_goes_on_within_the_rule() -> None:
    assert not _run(Rules().chain("base", (Verdict("continue"), DROP), hook=FORWARD))[0]


def test_denials_tell_rule_stack_and_answer() -> None:
    refusal = Reject("tcp reset")
    rules = Rules().chain("base", (_jump("a"),), hook=FORWARD).chain("a", (refusal,))
    survived, about = _run(rules)
    denial = about.trace.denials[-1]
    assert not survived
    assert (denial.stack, denial.reject, denial.hypothetical) == (("base", "a"), refusal, False)


def test_a_walk_goes_on_hypothetically_where_it_is_told_to() -> None:
    rules = Rules().chain("base", (_jump("a"),), (COUNT,), hook=FORWARD).chain("a", (DROP,), (COUNT,))
    survived, about = _run(rules, go_on=lambda _rule, _stack: Onward("a", 0x8))
    assert survived
    assert (about.trace.hypothetical, about.packet.mark) == (True, 0x8)
    assert list(counted(about.trace.counted)) == [("base", 2)]


def test_what_a_denying_policy_marks_is_not_there_where_it_had_accepted() -> None:
    denies = (SetMeta("mark", Constant(0x40)),), (Match(Meta("mark"), "==", 0x40), DROP)
    rules = Rules().chain("base", (Verdict("goto", "endpoint"),), hook=FORWARD)
    rules.chain("endpoint", (SetMeta("mark", Constant(0x2)),), (_jump("group"),))
    rules.chain("group", (_jump("policy"),)).chain("policy", *denies)
    survived, about = _run(rules, go_on=lambda _rule, _stack: Onward("endpoint", 0x8))
    assert survived
    assert (about.trace.hypothetical, about.packet.mark) == (True, 0x2 | 0x8)


def test_a_doubt_is_a_question_that_names_the_rule() -> None:
    rules = Rules().chain("base", (Limit(1, "second"), DROP), hook=FORWARD)
    chooser = Chooser((1,))
    assert _run(rules, context(chooser=chooser))[0]
    assert chooser.choices[0].kind is Kind.RATE
    assert in_words(chooser.choices)[0].endswith("(table ip t, chain base, rule handle 1)")
    assert not _run(rules)[0]


@pytest.mark.parametrize("more", [(), (COUNT,), (SetMeta("mark", Constant(1)),)])
def test_what_makes_no_difference_is_no_question(more: tuple[Statement, ...]) -> None:
    """Neither to a packet nor to a counter."""
    chooser = Chooser()
    rule = Limit(1, "second"), SetMeta("nftrace", Constant(1)), *more
    _run(Rules().chain("base", rule, hook=FORWARD), context(chooser=chooser))
    assert [choice.kind for choice in chooser.choices] == ([Kind.RATE] if more else [])


@pytest.mark.parametrize(("operator", "usual"), [("==", False), ("!=", True), (">=", True)])
def test_a_source_port_that_nobody_gave_is_first_taken_for_one_of_a_client(operator: str, usual: bool) -> None:
    open_port, source_port = unknown(16, SOURCE_PORT_OPEN), Payload("transport", 0, 16)
    rules = Rules().chain("base", (Match(source_port, operator, 1024), DROP), hook=FORWARD)
    for script, matches in (((), usual), ((1,), not usual)):
        packet = Packet(4, 6, 1, 2, open_port, 80)
        chooser = Chooser(script)
        assert _run(rules, context(packet, chooser=chooser))[0] is not matches
        assert (len(chooser.choices), packet.sport) == (1, open_port)


def test_a_chain_that_is_not_there_is_missing_evidence() -> None:
    with pytest.raises(MissingEvidence, match="chain gone of table ip t"):
        _run(Rules().chain("base", (_jump("gone"),), hook=FORWARD))


def test_loops_and_queues_are_undecided() -> None:
    loop = Rules().chain("base", (_jump("a"),), hook=FORWARD).chain("a", (_jump("a"),))
    with pytest.raises(Undecided, match=f"deeper than {MAX_DEPTH}"):
        _run(loop)
    with pytest.raises(Undecided, match="queue"):
        _run(Rules().chain("base", (Verdict("queue"),), hook=FORWARD))
