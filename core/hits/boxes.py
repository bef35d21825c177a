"""Sets of packets: boxes, which restrict each field by itself, and what is left of them.

A box may hold packets that cannot exist, never the other way round: a box that is empty is no packet at all.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

Range = tuple[int, int]
"""First and last value."""

Values = tuple[Range, ...]
"""Disjoint ranges in order."""

ABSENT: Final = -1
"""The value of a field that a packet does not have (a port of a fragment): no comparison holds for it."""

NOTHING: Final[Values] = ()


@dataclass(frozen=True, slots=True)
class Field:
    """A field of packets. ``what`` tells fields apart; values are 0 to 2 ** ``width`` - 1, and `ABSENT` unless every
    packet ``has`` the field.
    """

    what: Hashable
    width: int
    has: bool = False

    @property
    def known(self) -> Values:
        """Every value that can be compared."""
        return ((0, (1 << self.width) - 1),)

    @property
    def everything(self) -> Values:
        """Every value."""
        return ((0 if self.has else ABSENT, (1 << self.width) - 1),)


@lru_cache(maxsize=65536)
def field_of(what: Hashable, width: int, has: bool = False) -> Field:
    """The same object for the same field, which makes it quick to look up."""
    return Field(what, width, has)


Box = Mapping[Field, Values]
"""Packets whose fields have these values; fields that it does not name may have any."""

ANY: Final[Box] = {}


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a rule wants of a packet: each field in its values.

    Not ``exact`` where the rule wants more that is not understood: then fewer packets may match.
    """

    wanted: tuple[tuple[Field, Values], ...] = ()
    exact: bool = True


def ranges(values: Iterable[Range]) -> Values:
    """The same values as `Values`."""
    found: list[Range] = []
    for low, high in sorted(values):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        elif low <= high:
            found.append((low, high))
    return tuple(found)


def common(left: Values, right: Values) -> Values:
    """Values of both."""
    found: list[Range] = []
    one, other = 0, 0
    while one < len(left) and other < len(right):
        low, high = max(left[one][0], right[other][0]), min(left[one][1], right[other][1])
        if low <= high:
            found.append((low, high))
        if left[one][1] < right[other][1]:
            one += 1
        else:
            other += 1
    return tuple(found)


def without(left: Values, right: Values) -> Values:
    """Values of ``left`` that ``right`` does not have."""
    found: list[Range] = []
    start = 0
    for first, last in left:
        low, high = first, last
        while start < len(right) and right[start][1] < low:
            start += 1
        at = start
        while at < len(right) and right[at][0] <= high and low <= high:
            if right[at][0] > low:
                found.append((low, right[at][0] - 1))
            low = right[at][1] + 1
            at += 1
        if low <= high:
            found.append((low, high))
    return tuple(found)


def apart(box: Box, conditions: Conditions) -> bool:
    """Whether no packet of the box can match; `restricted` says the same, and takes longer."""
    return any(not _meet(box.get(field) or field.everything, values) for field, values in conditions.wanted)


def _meet(left: Values, right: Values) -> bool:
    """Whether `common` has any."""
    one = other = 0
    while one < len(left) and other < len(right):
        if left[one][1] < right[other][0]:
            one += 1
        elif right[other][1] < left[one][0]:
            other += 1
        else:
            return True
    return False


def restricted(box: Box, conditions: Conditions) -> Box | None:
    """The packets of the box that may match, None if none does."""
    result = dict(box)
    for field, values in conditions.wanted:
        left = common(result.get(field, field.everything), values)
        if not left:
            return None
        result[field] = left
    return result


def rest(box: Box, conditions: Conditions) -> Iterator[Box]:
    """The packets of the box that may fail to match, in boxes that have none in common."""
    if not conditions.exact:
        yield box
        return
    inside = dict(box)
    for field, values in conditions.wanted:
        before = inside.get(field, field.everything)
        left = without(before, values)
        if left:
            yield {**inside, field: left}
        met = common(before, values)
        if not met:
            return
        inside[field] = met
