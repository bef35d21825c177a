"""Ranges of values made disjoint, as the content of sets needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.model.nft import Element, Interval, SetContent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from calico_debug.model.nft import Key

Range = tuple[int, int]
"""First and last value."""


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The same values in as few ranges as possible, in order."""
    found: list[Range] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return found


def innermost(prefixes: Iterable[tuple[int, int, bool]]) -> list[Range]:
    """The values whose most specific prefix is marked True, as disjoint ranges in order.

    Each prefix is (first, last, mark); of two prefixes one contains the other or they are disjoint.
    """
    found: list[Range] = []
    nesting: list[tuple[int, bool]] = []
    position = 0

    def cover(end: int) -> None:
        if nesting[-1][1] and position <= end:
            found.append((position, end))

    for low, high, mark in sorted(prefixes, key=lambda prefix: (prefix[0], -prefix[1])):
        while nesting and nesting[-1][0] < low:
            cover(nesting[-1][0])
            position = nesting.pop()[0] + 1
        if nesting:
            cover(low - 1)
        nesting.append((high, mark))
        position = low
    while nesting:
        cover(nesting[-1][0])
        position = nesting.pop()[0] + 1
    return found


def scalar(low: int, high: int) -> int | Interval:
    """A range as one field of a key."""
    return low if low == high else Interval(low, high)


def content(widths: tuple[int, ...], keys: Iterable[Key]) -> SetContent:
    """A set of these keys. Ranges of a single field must be disjoint."""
    exact: dict[int | str | tuple[int | str, ...], Element] = {}
    ranged: list[Element] = []
    for key in keys:
        if is_exact(key):
            exact[key] = Element(key)  # type: ignore[index]  # is_exact() says that no field is a range
        else:
            ranged.append(Element(key))
    return SetContent(widths, exact, tuple(ranged))


def is_exact(key: Key) -> bool:
    """Whether no field of the key is a range or a wildcard."""
    fields = key if isinstance(key, tuple) else (key,)
    return all(isinstance(field, int | str) for field in fields)
