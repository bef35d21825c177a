"""Minimal sets of changes that suffice for an effect: delta debugging (Zeller and Hildebrandt, 2002: ddmin)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

Item = TypeVar("Item")


class OutOfTries(Exception):  # noqa: N818 - no error of the user's: the search says so and goes on
    """More tries would be needed than are granted."""


def minimal(items: Sequence[Item], suffices: Callable[[Sequence[Item]], bool]) -> tuple[Item, ...]:
    """A subset that suffices, and of which no single item can be left out. All ``items`` together must suffice.

    ``suffices`` may raise `OutOfTries`.
    """
    rest, parts = list(items), 2
    while len(rest) > 1:
        chunks = _chunks(rest, parts)
        found = next((chunk for chunk in chunks if suffices(chunk)), None)
        if found is not None:
            rest, parts = found, 2
            continue
        if parts > 2:
            without = ([item for item in rest if item not in chunk] for chunk in chunks)
            found = next((other for other in without if suffices(other)), None)
            if found is not None:
                rest, parts = found, parts - 1
                continue
        if parts >= len(rest):
            break
        parts = min(len(rest), parts * 2)
    return tuple(rest)


def _chunks(items: Sequence[Item], parts: int) -> list[list[Item]]:
    size, more = divmod(len(items), parts)
    ends = [number * size + min(number, more) for number in range(parts + 1)]
    return [list(items[start:end]) for start, end in pairwise(ends) if end > start]


def independent(
    items: Sequence[Item], suffices: Callable[[Sequence[Item]], bool], most: int
) -> Iterator[tuple[Item, ...]]:
    """Up to ``most`` disjoint minimal sets, each of which suffices alone.

    Without any of them what is left does not suffice, or ``most`` was reached.
    """
    rest = list(items)
    for _ in range(most):
        if not rest or not suffices(rest):
            return
        found = minimal(rest, suffices)
        yield found
        rest = [item for item in rest if item not in found]
