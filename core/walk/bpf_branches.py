"""Conditions of eBPF jumps, on settled numbers and on open ones.

What was assumed about an open number at one branch holds at the next: a port that was taken to be 80 is not 443 later.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterable
from typing import Final

from calico_debug.walk.bpf_values import MASK64, Number, Unsettled, truncated
from calico_debug.walk.choices import Chooser, Kind

EQUAL, ABOVE, ABOVE_OR_EQUAL, ANY_BIT, UNEQUAL = 0x10, 0x20, 0x30, 0x40, 0x50
GREATER, GREATER_OR_EQUAL, BELOW, BELOW_OR_EQUAL, LESS, LESS_OR_EQUAL = 0x60, 0x70, 0xA0, 0xB0, 0xC0, 0xD0

Intervals = tuple[tuple[int, int], ...]
Compare = Callable[[int, int], bool]

_UNSIGNED: Final[dict[int, Compare]] = {
    EQUAL: operator.eq,
    UNEQUAL: operator.ne,
    ABOVE: operator.gt,
    ABOVE_OR_EQUAL: operator.ge,
    BELOW: operator.lt,
    BELOW_OR_EQUAL: operator.le,
    ANY_BIT: lambda left, right: left & right != 0,
}
_SIGNED: Final[dict[int, int]] = {
    GREATER: ABOVE,
    GREATER_OR_EQUAL: ABOVE_OR_EQUAL,
    LESS: BELOW,
    LESS_OR_EQUAL: BELOW_OR_EQUAL,
}
"""Signed comparisons and the unsigned ones that give the same on numbers with the sign bit flipped."""

CONDITIONS: Final = frozenset((*_UNSIGNED, *_SIGNED))
_MIRRORED: Final = {
    EQUAL: EQUAL,
    UNEQUAL: UNEQUAL,
    ANY_BIT: ANY_BIT,
    ABOVE: BELOW,
    BELOW: ABOVE,
    ABOVE_OR_EQUAL: BELOW_OR_EQUAL,
    BELOW_OR_EQUAL: ABOVE_OR_EQUAL,
    GREATER: LESS,
    LESS: GREATER,
    GREATER_OR_EQUAL: LESS_OR_EQUAL,
    LESS_OR_EQUAL: GREATER_OR_EQUAL,
}
"""The same condition with its operands exchanged."""


def condition(operation: int, bits: int) -> Compare:
    """The condition of a jump on two numbers of 64 bits, of which the lower ``bits`` are compared."""
    if operation in _SIGNED:
        compare, sign, whole = _UNSIGNED[_SIGNED[operation]], 1 << (bits - 1), (1 << bits) - 1
        return lambda left, right: compare((left & whole) ^ sign, (right & whole) ^ sign)
    compare = _UNSIGNED[operation]
    if bits == 64:
        return compare
    whole = (1 << bits) - 1
    return lambda left, right: compare(left & whole, right & whole)


class Branches:
    """Decides conditions during one run and remembers what was assumed."""

    __slots__ = ("_answers", "_chooser", "_facts")

    def __init__(self, chooser: Chooser) -> None:
        """``chooser`` answers what is open."""
        self._chooser = chooser
        self._facts: dict[Hashable, Intervals] = {}
        self._answers: dict[Hashable, bool] = {}

    def ask(self, question: Hashable, why: str) -> bool:
        """A question with two answers, the same answer each time."""
        if question not in self._answers:
            self._answers[question] = self._chooser.choose(Kind.UNKNOWN, why, 2) == 0
        return self._answers[question]

    def holds(self, operation: int, bits: int, left: Number, right: Number) -> bool:
        """Whether the condition holds, asking where that is open."""
        left, right = truncated(left, bits), truncated(right, bits)
        if isinstance(left, int) and isinstance(right, int):
            return condition(operation, bits)(left, right)
        if isinstance(left, int):
            left, right, operation = right, left, _MIRRORED[operation]
        if isinstance(left, Unsettled) and isinstance(right, int):
            if operation == ANY_BIT:
                return self._any_bit(left, right)
            return self._against(operation, bits, left, right)
        assert isinstance(left, Unsettled)
        assert isinstance(right, Unsettled)
        if left.origin == right.origin and operation != ANY_BIT:
            return condition(operation, bits)(0, 0)
        return self.ask((operation, bits, left.origin, right.origin), left.why)

    def _any_bit(self, left: Unsettled, right: int) -> bool:
        if left.value & right:
            return True
        if not left.mask & right:
            return False
        return self.ask((ANY_BIT, left.origin, right), left.why)

    def _against(self, operation: int, bits: int, left: Unsettled, right: int) -> bool:
        facts = self._facts.get(left.origin)
        if facts is None:
            facts = ((left.value, left.value | left.mask),)
        fitting = [_cut(one, other) for one in facts for other in _satisfying(operation, bits, right)]
        meeting = _possible(fitting, left)
        failing = _possible(_without(facts, meeting), left)
        if not meeting or not failing:
            return bool(meeting)
        answer = self._chooser.choose(Kind.UNKNOWN, left.why, 2) == 0
        self._facts[left.origin] = meeting if answer else failing
        return answer


def _satisfying(operation: int, bits: int, right: int) -> Intervals:
    """The numbers of ``bits`` bits, unsigned, for which ``number operation right`` holds."""
    whole, sign = (1 << bits) - 1, 1 << (bits - 1)
    if operation in _SIGNED:
        flipped = _satisfying(_SIGNED[operation], bits, right ^ sign)
        halves = [_cut(one, half) for one in flipped for half in ((0, sign - 1), (sign, whole))]
        return tuple((low ^ sign, high ^ sign) for low, high in halves if low <= high)
    ranges = {
        EQUAL: ((right, right),),
        UNEQUAL: ((0, right - 1), (right + 1, whole)),
        ABOVE: ((right + 1, whole),),
        ABOVE_OR_EQUAL: ((right, whole),),
        BELOW: ((0, right - 1),),
        BELOW_OR_EQUAL: ((0, right),),
    }[operation]
    return tuple((low, high) for low, high in ranges if low <= high)


def _cut(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return max(one[0], other[0]), min(one[1], other[1])


def _without(facts: Intervals, taken: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    rest = list(facts)
    for low, high in taken:
        rest = [
            piece
            for start, end in rest
            for piece in ([(start, end)] if high < start or end < low else [(start, low - 1), (high + 1, end)])
        ]
    return rest


def _possible(intervals: Iterable[tuple[int, int]], number: Unsettled) -> Intervals:
    """Those that are not empty and that a number with these known bits can lie in."""
    known = ~number.mask & MASK64
    return tuple(
        (low, high) for low, high in intervals if low <= high and not (low == high and (low ^ number.value) & known)
    )
