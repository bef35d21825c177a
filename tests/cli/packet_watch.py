"""A watch made of memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Self

from calico_debug.capture.teller import Teller
from calico_debug.explain.packet_story import Places
from calico_debug.model.explanation import FlowExplanation
from calico_debug.model.packet_event import Losses, PacketEvent
from tests.explain.test_packet_story import PLACES


class MemoryWatch:
    """Gives ``events`` as they come and ``queued`` at the end; an exception among them is raised, a signal sent."""

    def __init__(
        self,
        events: list[PacketEvent | BaseException | int],
        queued: list[PacketEvent] | None = None,
        explanation: FlowExplanation | None = None,
        losses: Losses | None = None,
        limited_by: str = "seconds",
    ) -> None:
        self.explanation = explanation
        self.subject = "tcp a -> b"
        self.notes: list[str] = []
        self.places: Places = PLACES
        self.losses = losses or Losses()
        self.limited_by = limited_by
        self.open = self.stopped = False
        self._events, self._queued = events, queued or []

    def __enter__(self) -> Self:
        self.open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.open = False

    def events(self) -> Iterator[PacketEvent]:
        assert self.open
        for one in self._events:
            if self.stopped:
                return
            if isinstance(one, BaseException):
                raise one
            if isinstance(one, int):
                os.kill(os.getpid(), one)
                continue
            yield one

    def stop(self) -> None:
        self.stopped = True

    def finish(self) -> list[PacketEvent]:
        assert self.open
        self.notes.append("told at the end")
        return self._queued

    def teller(self) -> Teller:
        return Teller(self.explanation)

    def mark_words(self, mark: int) -> tuple[str, ...]:
        return ("accept",) if mark else ()
