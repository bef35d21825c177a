"""Conditions on open numbers: every value finds its way, and no way is without a value."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from calico_debug.walk.bpf_branches import ANY_BIT, BELOW, CONDITIONS, EQUAL, LESS, UNEQUAL, Branches, condition
from calico_debug.walk.bpf_values import MASK64, Unsettled, combined
from calico_debug.walk.choices import Chooser, explore

QUESTIONS = st.lists(
    st.tuples(
        st.sampled_from(sorted(CONDITIONS - {ANY_BIT})),
        st.sampled_from([32, 64]),
        st.one_of(st.integers(0, 256), st.sampled_from([MASK64, 1 << 63, 1 << 31, 0xFFFFFFFF])),
        st.booleans(),
    ),
    max_size=6,
)


def ways(questions: list[tuple[int, int, int, bool]], number: Unsettled) -> set[tuple[bool, ...]]:
    def run(chooser: Chooser) -> tuple[bool, ...]:
        branches = Branches(chooser)
        return tuple(
            branches.holds(operation, bits, right, number) if turned else branches.holds(operation, bits, number, right)
            for operation, bits, right, turned in questions
        )

    return {one.result for one in explore(run, 200)}


def way(questions: list[tuple[int, int, int, bool]], value: int) -> tuple[bool, ...]:
    return tuple(
        condition(operation, bits)(*((right, value) if turned else (value, right)))
        for operation, bits, right, turned in questions
    )


@settings(max_examples=60)
@given(QUESTIONS)
def test_ways_are_those_of_the_values(questions: list[tuple[int, int, int, bool]]) -> None:
    found = ways(questions, Unsettled(0, 0xFF, "a field", "x"))
    assert found == {way(questions, value) for value in range(256)}


@settings(max_examples=60)
@given(QUESTIONS, st.integers(0, MASK64), st.integers(0, 0xFF))
def test_every_value_is_covered(questions: list[tuple[int, int, int, bool]], value: int, mask: int) -> None:
    number = Unsettled(value, mask, "a field", "x")
    found = ways(questions, number)
    assert {way(questions, number.value | bits) for bits in range(256) if not bits & ~mask} <= found


def test_the_same_question_is_asked_once() -> None:
    chooser = Chooser()
    branches = Branches(chooser)
    port = Unsettled(0, 0xFFFF, "source port: not given", "port")
    assert branches.holds(EQUAL, 64, port, 80)
    assert not branches.holds(UNEQUAL, 64, port, 80)
    assert branches.holds(BELOW, 64, port, 81)
    assert branches.holds(ANY_BIT, 64, port, 0x8) == branches.holds(ANY_BIT, 64, port, 0x8)
    assert [choice.why for choice in chooser.choices][:1] == ["source port: not given"]
    assert len(chooser.choices) == 2


def test_what_is_computed_alike_is_equal() -> None:
    chooser = Chooser()
    branches = Branches(chooser)
    port = Unsettled(0, 0xFFFF, "a field", "port")
    one, other = combined(32, 0x50, port, 0xFF00), combined(32, 0x50, port, 0xFF00)
    assert branches.holds(EQUAL, 64, one, other)
    assert not branches.holds(LESS, 64, one, other)
    assert chooser.choices == []
    assert branches.holds(EQUAL, 64, one, 0x100) == branches.holds(EQUAL, 64, other, 0x100)
    assert len(chooser.choices) == 1
