from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from calico_debug.metrics.accumulator import Accumulator, Reading


def summed(accumulator: Accumulator[str], *readings: tuple[object, str, int]) -> dict[str, int]:
    accumulator.update([Reading(*one) for one in readings])
    return dict(accumulator.totals)


def test_counters_of_one_key_are_summed() -> None:
    sums = Accumulator[str](10)
    assert summed(sums, (1, "a", 5), (2, "a", 7), (3, "b", 1)) == {"a": 12, "b": 1}
    assert summed(sums, (1, "a", 6), (2, "a", 7), (3, "b", 1)) == {"a": 13, "b": 1}


def test_a_counter_that_starts_anew_goes_on() -> None:
    sums = Accumulator[str](10)
    summed(sums, (1, "a", 5))
    assert summed(sums, (1, "a", 2)) == {"a": 7}
    assert summed(sums, (2, "a", 1)) == {"a": 8}


def test_what_is_gone_stays_counted_and_is_forgotten_in_the_end() -> None:
    sums = Accumulator[str](10, retained=2)
    summed(sums, (1, "a", 5), (2, "b", 1))
    assert summed(sums, (2, "b", 1)) == {"a": 5, "b": 1}
    assert summed(sums, (2, "b", 1)) == {"a": 5, "b": 1}
    assert summed(sums, (2, "b", 1)) == {"b": 1}
    assert summed(sums, (3, "a", 4), (2, "b", 1)) == {"a": 4, "b": 1}


def test_absence_is_counted_in_a_row() -> None:
    sums = Accumulator[str](10, retained=1)
    for _ in range(4):
        summed(sums, (1, "a", 5))
        assert summed(sums) == {"a": 5} or dict(sums.totals)["a"] >= 5


def test_a_counter_that_stands_for_something_else_counts_once() -> None:
    sums = Accumulator[str](10)
    summed(sums, (1, "#0", 5))
    assert summed(sums, (1, "3", 6)) == {"#0": 5, "3": 1}


def test_the_first_keys_stay_and_others_are_refused() -> None:
    sums = Accumulator[str](2)
    assert summed(sums, (1, "a", 1), (2, "b", 1), (3, "c", 1), (4, "c", 1), (5, "d", 1)) == {"a": 1, "b": 1}
    assert sums.refused == 2
    assert summed(sums, (3, "c", 9), (1, "a", 2)) == {"a": 2, "b": 1}
    assert sums.refused == 1


steps = st.lists(st.dictionaries(st.integers(0, 4), st.tuples(st.sampled_from("ab"), st.integers(0, 9))), max_size=12)


@given(steps)
def test_no_sum_ever_goes_back(readings: list[dict[int, tuple[str, int]]]) -> None:
    sums = Accumulator[str](10, retained=100)
    before: dict[str, int] = {}
    for reading in readings:
        after = summed(sums, *((counter, key, value) for counter, (key, value) in reading.items()))
        assert all(after[key] >= value for key, value in before.items())
        before = after


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=30))
def test_nothing_that_was_seen_is_lost_or_counted_twice(steps: list[tuple[bool, int]]) -> None:
    """A rule that is replaced now and then, read after every change."""
    sums, handle, value, counted = Accumulator[str](10), 0, 0, 0
    for replaced, packets in steps:
        if replaced:
            handle, value = handle + 1, 0
        value += packets
        counted += packets
        assert summed(sums, (handle, "a", value)) == {"a": counted}
