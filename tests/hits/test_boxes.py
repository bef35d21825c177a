"""Boxes against the sets of numbers that they stand for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from calico_debug.hits.boxes import (
    ABSENT,
    ANY,
    Box,
    Conditions,
    Field,
    Values,
    common,
    ranges,
    rest,
    restricted,
    without,
)

LEFT, RIGHT = Field("left", 4), Field("right", 4)
NUMBERS = range(ABSENT, 16)
VALUES = st.lists(st.tuples(st.integers(ABSENT, 15), st.integers(ABSENT, 15)), max_size=4).map(
    lambda pairs: ranges((min(pair), max(pair)) for pair in pairs)
)
WANTED = st.lists(st.tuples(st.sampled_from((LEFT, RIGHT)), VALUES), max_size=3).map(
    lambda pairs: Conditions(tuple(pairs))
)


def numbers(values: Values) -> set[int]:
    return {number for low, high in values for number in range(low, high + 1)}


def points(box: Box | None) -> set[tuple[int, int]]:
    if box is None:
        return set()
    sides = [numbers(box.get(field, field.everything)) for field in (LEFT, RIGHT)]
    return {(left, right) for left in sides[0] for right in sides[1]}


def wanted(conditions: Conditions) -> set[tuple[int, int]]:
    found = points(ANY)
    for field, values in conditions.wanted:
        found = {point for point in found if point[field is RIGHT] in numbers(values)}
    return found


@given(VALUES, VALUES)
def test_values(left: Values, right: Values) -> None:
    assert numbers(common(left, right)) == numbers(left) & numbers(right)
    assert numbers(without(left, right)) == numbers(left) - numbers(right)
    for found in (common(left, right), without(left, right)):
        assert found == ranges(found)


@given(WANTED, WANTED)
def test_what_matches_and_what_is_left(before: Conditions, conditions: Conditions) -> None:
    box = restricted(ANY, before)
    if box is None:
        assert not wanted(before)
        return
    assert points(box) == wanted(before)
    assert points(restricted(box, conditions)) == points(box) & wanted(conditions)
    left = list(rest(box, conditions))
    assert set().union(*map(points, left)) == points(box) - wanted(conditions)
    assert sum(len(points(one)) for one in left) == len(points(box) - wanted(conditions))


def test_what_is_not_understood_leaves_everything() -> None:
    box = {LEFT: ((1, 3),)}
    assert list(rest(box, Conditions(((LEFT, ((1, 1),)),), exact=False))) == [box]
