"""Comparisons with three answers."""

from __future__ import annotations

import pytest

from calico_debug.model.nft import Element, Interval, NamePrefix, SetContent
from calico_debug.model.values import Drawn, Partial, unknown
from calico_debug.walk.choices import Kind, Unsure
from calico_debug.walk.compare import candidates, compare, matches_key

OPEN = unknown(16, "the source port was not given")
HALF = Partial(0x10, 0xF0, 8, "half of it is known")


@pytest.mark.parametrize(
    ("left", "sign", "right", "answer"),
    [
        (5, "==", 5, True),
        (5, "!=", 5, False),
        (5, "<", 6, True),
        (5, ">=", 6, False),
        (5, "==", Interval(1, 5), True),
        (5, "!=", Interval(1, 5), False),
        ("cali1", "==", NamePrefix("cali"), True),
        ("eth0", "!=", NamePrefix("cali"), True),
        ("eth0", "==", Interval(1, 5), False),
        (HALF, "==", 0x20, False),
        (HALF, "<", 0x20, True),
        (HALF, ">", 0x20, False),
        (HALF, "==", Interval(0x10, 0x1F), True),
        (Drawn(0, 2, "numgen"), "==", 3, False),
        (Drawn(0, 0, "numgen"), "==", 0, True),
    ],
)
def test_settled_answers(left: object, sign: str, right: object, answer: bool) -> None:
    assert compare(left, sign, right) is answer  # type: ignore[arg-type]


def test_what_depends_on_an_open_value_names_it() -> None:
    assert compare(OPEN, "==", 80) == Unsure(Kind.UNKNOWN, "the source port was not given")
    assert compare(OPEN, "<", 1024) == Unsure(Kind.UNKNOWN, "the source port was not given")
    assert compare(Drawn(0, 2, "numgen random mod 3"), "==", 1) == Unsure(Kind.BACKEND, "numgen random mod 3")


def test_keys_match_field_by_field() -> None:
    key = (Interval(10, 20), 6)
    assert matches_key((15, 6), key) is True
    assert matches_key((15, 17), key) is False
    assert matches_key((15,), key) is False
    assert isinstance(matches_key((15, OPEN), key), Unsure)
    assert matches_key((9, OPEN), key) is False


def test_candidates_of_an_open_key_hold_the_catch_all_too() -> None:
    sure, ranged, rest = Element(80, 1), Element(Interval(90, 99), 2), Element(0, 3)
    content = SetContent((16,), {80: sure}, (ranged,), rest)
    assert candidates(content, (95,)) == ([ranged], None)
    found, doubt = candidates(content, (OPEN,))
    assert found == [sure, ranged, rest]
    assert doubt is not None


def test_candidates_are_in_the_order_of_their_keys() -> None:
    drawn = Drawn(0, 20, "a random number")
    elements = [Element(key) for key in (3, 1, 10)]
    ranged = (Element(Interval(4, 9)), Element(Interval(2, 2)))
    content = SetContent((32,), {element.key: element for element in elements}, ranged)  # type: ignore[misc]
    found, doubt = candidates(content, (drawn,))
    assert [element.key for element in found] == [1, Interval(2, 2), 3, Interval(4, 9), 10]
    assert doubt is not None
    assert doubt.kind is Kind.BACKEND
