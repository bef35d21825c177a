"""Minimal sets: of every shape that an effect of changes can have."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.diff.bisect import OutOfTries, independent, minimal

ITEMS = range(24)


@given(needed=st.sets(st.sampled_from(ITEMS), min_size=1, max_size=4))
def test_all_that_is_needed_and_nothing_else(needed: set[int]) -> None:
    assert set(minimal(ITEMS, needed.issubset)) == needed


@given(st.data())
def test_nothing_can_be_left_out(data: st.DataObject) -> None:
    """Also where more changes can undo what fewer do."""
    ways = data.draw(st.sets(st.frozensets(st.sampled_from(range(8)), min_size=1, max_size=3), min_size=1, max_size=5))
    spoilers = data.draw(st.sets(st.sampled_from(range(8)), max_size=2))

    def suffices(some: Sequence[int]) -> bool:
        given_ = set(some)
        return given_ == set(range(8)) or (any(way <= given_ for way in ways) and not given_ & spoilers)

    found = minimal(range(8), suffices)
    assert suffices(found)
    assert not any(suffices([item for item in found if item != one]) for one in found if len(found) > 1)


def test_one_of_many_takes_few_tries() -> None:
    tries = []

    def suffices(some: Sequence[int]) -> bool:
        tries.append(some)
        return 700 in some

    assert minimal(range(1000), suffices) == (700,)
    assert len(tries) <= 20


def test_independent_sets() -> None:
    ways = [{1}, {5, 9}, {3}]

    def suffices(some: Sequence[int]) -> bool:
        return any(way <= set(some) for way in ways)

    found = list(independent(ITEMS, suffices, 5))
    assert sorted(map(sorted, found)) == [[1], [3], [5, 9]]
    assert len(list(independent(ITEMS, suffices, 2))) == 2
    assert list(independent([0, 2], suffices, 5)) == []


def test_running_out_of_tries_is_told() -> None:
    def suffices(_: Sequence[int]) -> bool:
        raise OutOfTries

    with pytest.raises(OutOfTries):
        minimal(ITEMS, suffices)
