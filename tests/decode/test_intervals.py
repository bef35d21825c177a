"""Ranges made disjoint."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode.intervals import content, innermost, is_exact, merged, scalar
from calico_debug.model.nft import Interval, NamePrefix

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)).map(lambda r: (r[0], r[0] + r[1])))


@given(RANGES)
def test_merged_ranges_have_the_same_values_and_gaps_between_them(ranges: list[tuple[int, int]]) -> None:
    found = merged(ranges)
    assert {n for low, high in found for n in range(low, high + 1)} == {
        n for low, high in ranges for n in range(low, high + 1)
    }
    assert all(before[1] + 1 < after[0] for before, after in pairwise(found))


def test_the_innermost_prefix_counts() -> None:
    assert innermost([(0, 9, True), (2, 5, False), (3, 3, True), (20, 29, True)]) == [(0, 1), (3, 3), (6, 9), (20, 29)]
    assert innermost([(0, 9, False), (4, 5, True)]) == [(4, 5)]
    assert innermost([]) == []


def test_keys() -> None:
    assert scalar(3, 3) == 3
    assert scalar(3, 4) == Interval(3, 4)
    assert is_exact((1, "eth0"))
    assert not is_exact((1, NamePrefix("eth")))
    found = content((32,), [1, Interval(3, 4)])
    assert (list(found.exact), [element.key for element in found.ranged]) == ([1], [Interval(3, 4)])
