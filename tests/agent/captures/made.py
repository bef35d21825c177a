"""Captures whose packets are made of memory, and an agent that has them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from calico_debug.agent.captures.manager import Captures
from calico_debug.capture.teller import Teller
from calico_debug.errors import UsageError
from calico_debug.model.packet_event import Losses
from tests.agent.serving import Agent, serving, work_over
from tests.evidence.memory import MemoryNode, MemorySource
from tests.explain.test_packet_story import DENIED, PLACES

if TYPE_CHECKING:
    from pathlib import Path

    from calico_debug.agent.packets.observer import Limits
    from calico_debug.capture.aim import NamedPolicy
    from calico_debug.evidence.source import EvidenceSource
    from calico_debug.model.packet_event import PacketEvent
    from calico_debug.model.subject import Subject

EVENTS = [replace(event, data=bytes(60)) for event in DENIED]


@dataclass
class MadeWatch:
    """As `LiveWatch`, for as much of it as captures need; gives ``events`` and then waits to be stopped."""

    events_given: list[PacketEvent | BaseException] = field(default_factory=lambda: list(EVENTS))
    subject: str = "pod a/b"
    node: str = "node1"
    policy: NamedPolicy | None = None
    open: bool = False
    stopped: threading.Event = field(default_factory=threading.Event)
    limited_by: str = ""

    def __post_init__(self) -> None:
        self.notes = ["a note"]
        self.places = PLACES
        self.losses = Losses(limited=5)

    def __enter__(self) -> Self:
        self.open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.open = False

    def turns(self) -> Iterator[Iterator[PacketEvent]]:
        for event in self.events_given:
            if isinstance(event, BaseException):
                raise event
            yield iter([event])
        if not self.limited_by:
            assert self.stopped.wait(20)

    def stop(self) -> None:
        self.stopped.set()

    def finish(self) -> list[PacketEvent]:
        return []

    def losses_so_far(self) -> Losses:
        return self.losses

    def teller(self) -> Teller:
        return Teller(None)

    def mark_words(self, _: int) -> tuple[str, ...]:
        return ()


class Made:
    """Captures in a folder; each takes the next watch, or a new one."""

    def __init__(self, folder: Path, *watches: MadeWatch) -> None:
        self.asked: list[tuple[Subject, Limits, int]] = []
        self._watches = list(watches)
        self.captures = Captures(folder, lambda: MemorySource({}), self._watch)  # type: ignore[arg-type]

    def _watch(self, _: Callable[[], EvidenceSource], subject: Subject, limits: Limits, data: int) -> MadeWatch:
        self.asked.append((subject, limits, data))
        if subject.pod == "nobody":
            raise UsageError("no pod is named 'nobody'")
        return self._watches.pop(0) if self._watches else MadeWatch()

    def until(self, name: str, state: str) -> dict[str, object]:
        """The capture when it is in that state."""
        running = self.captures._running[name]
        running._thread.join(20)
        document = self.captures.one(name)
        assert document["state"] == state, document
        return document


@contextmanager
def serving_captures(folder: Path, made: Made | None, **listener: Any) -> Iterator[Agent]:
    """An agent in this process, of node n1; ``listener`` as of `serving`."""
    source = MemorySource({}, {"n1": MemoryNode({})})
    work = replace(work_over(source), captures=made.captures if made is not None else None)
    with serving(folder, work=work, **listener) as agent:
        yield agent
    if made is not None:
        made.captures.close()
