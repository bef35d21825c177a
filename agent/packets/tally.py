"""What this process' observers of packets were to tell, and did not: sums that outlast each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple
from operator import add
from threading import Lock

from calico_debug.errors import EvidenceError
from calico_debug.model.packet_event import Losses

CAPTURE, DROP_STREAM, OBSERVATION = "capture", "drops", "observation"
OBSERVERS = (CAPTURE, DROP_STREAM, OBSERVATION)
"""Kinds of observers: label ``observer`` of the metrics."""


class Tally:
    """Sums by kind of observer. May be used by several threads."""

    def __init__(self) -> None:
        """Nothing was observed yet."""
        self._lock = Lock()
        self._ended = dict.fromkeys(OBSERVERS, Losses())
        self._running: dict[object, tuple[str, Callable[[], Losses], Losses]] = {}

    @contextmanager
    def counting(self, kind: str, read: Callable[[], Losses]) -> Iterator[None]:
        """Count an observer. ``read`` gives what its kernel program has counted, for as long as this is open; where it
        cannot (`EvidenceError`), what it gave last stands.
        """
        key = object()
        with self._lock:
            self._running[key] = kind, read, Losses()
        try:
            yield
        finally:
            with self._lock:
                self._ended[kind] = _of_each(add, self._ended[kind], self._read(key))
                del self._running[key]

    def totals(self) -> Mapping[str, Losses]:
        """The sums over observers that have ended and those that run; they never go back."""
        with self._lock:
            found = dict(self._ended)
            for key, (kind, *_) in tuple(self._running.items()):
                found[kind] = _of_each(add, found[kind], self._read(key))
            return found

    def _read(self, key: object) -> Losses:
        kind, read, last = self._running[key]
        try:
            last = _of_each(max, last, read())
        except EvidenceError:
            return last
        self._running[key] = kind, read, last
        return last


def _of_each(function: Callable[[int, int], int], one: Losses, other: Losses) -> Losses:
    return Losses(*map(function, astuple(one), astuple(other)))


TALLY = Tally()
"""That of this process."""
