"""Counters that never go backwards, made of counters that do.

A kernel rule's counter starts anew when Felix rewrites its chain, and goes away with a pod. What is exported is the sum
of what was counted, by what a counter stands for and not by which rule counted it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, NamedTuple, TypeVar

Key = TypeVar("Key", bound=Hashable)

RETAINED = 20
"""Readings for which the sum of a key without counters is kept; behind them it is forgotten."""


class Reading(NamedTuple, Generic[Key]):
    """One counter as read. ``counter`` identifies it as long as it exists, ``key`` is what it counts for."""

    counter: Hashable
    key: Key
    value: int


class Accumulator(Generic[Key]):
    """Sums readings by key. At most ``capacity`` keys are held: the first that come stay, others are refused."""

    def __init__(self, capacity: int, retained: int = RETAINED) -> None:
        """Nothing was counted yet."""
        self._capacity = capacity
        self._retained = retained
        self._last: dict[Hashable, int] = {}
        self._totals: dict[Key, int] = {}
        self._absent: dict[Key, int] = {}
        self.refused = 0
        """Keys of the last `update` that found no place."""

    @property
    def totals(self) -> dict[Key, int]:
        """What each key has counted since the first reading, and before it as far as its counters told then."""
        return self._totals

    def update(self, readings: Iterable[Reading[Key]]) -> None:
        """Take one reading of every counter that there is.

        A counter that is new or counts less than before was started since the last reading: all of it is new. One that
        stands for another key than before counts for that from now on. What was counted between the last reading and
        the end of a counter is lost.
        """
        before, last = self._last, dict[Hashable, int]()
        totals, seen, refused = self._totals, set[Key](), set[Key]()
        for counter, key, value in readings:
            known = before.get(counter, 0)
            delta = value - known if known <= value else value
            last[counter] = value
            if key in totals:
                totals[key] += delta
            elif len(totals) < self._capacity:
                totals[key] = delta
            else:
                refused.add(key)
                continue
            seen.add(key)
        self._last = last
        self.refused = len(refused)
        self._forget(seen)

    def _forget(self, seen: set[Key]) -> None:
        if len(seen) == len(self._totals):
            self._absent.clear()
            return
        self._absent = {key: self._absent.get(key, 0) + 1 for key in self._totals if key not in seen}
        for key in [key for key, times in self._absent.items() if times > self._retained]:
            del self._totals[key], self._absent[key]
