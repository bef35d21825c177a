"""Trace events put together to packets. Other observers' packets and rules are told apart from ours."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from calico_debug.decode.nft_trace_table import FIRST_CHAIN, LAST_CHAIN, PREFIX, TRACKED_CHAIN
from calico_debug.model.observation import TracedPacket

if TYPE_CHECKING:
    from calico_debug.model.observation import Headers, TraceEvent

MOST_OPEN = 512
"""Packets that are put together at once: beyond that the oldest counts as ended."""
MOST_EVENTS = 2000
"""Events of one packet that are kept."""


@dataclass(slots=True)
class _Open:
    """A packet on its way. ``ours`` once a rule of our table met it."""

    ours: bool = False
    reply: bool = False
    events: list[TraceEvent] = field(default_factory=list)
    hooks: list[str] = field(default_factory=list)
    met: set[str] = field(default_factory=set)
    headers: Headers | None = None
    output_index: int | None = None
    last: float = 0.0


class Assembler:
    """Takes events in the order the kernel gives them; a packet is ours when a rule of our own table met it."""

    def __init__(self, table: str) -> None:
        """``table`` is the name of our own table."""
        self._table = table
        self._open: dict[int, _Open] = {}
        self._done: list[TracedPacket] = []

    @property
    def seen(self) -> int:
        """Packets of ours that have come to their end."""
        return len(self._done)

    def add(self, event: TraceEvent, at: float = 0.0) -> None:
        """Take one event, read ``at`` a time of the caller's clock."""
        ours = event.table == self._table
        if not ours and event.table.startswith(PREFIX):
            return
        if ours and event.kind == "rule" and self._begins_anew(event):
            # The kernel has given the number of a packet that vanished to another one.
            self._end(event.packet)
        packet = self._open.get(event.packet)
        if packet is None:
            if len(self._open) >= MOST_OPEN:
                self._end(next(iter(self._open)))
            packet = self._open[event.packet] = _Open()
        packet.last = at
        if event.headers is not None and packet.headers is None:
            packet.headers = event.headers
        packet.reply = packet.reply or event.direction == "reply"
        if ours:
            self._own(packet, event)
            return
        if len(packet.events) < MOST_EVENTS:
            packet.events.append(event)
        if event.verdict == "drop" and event.kind != "return":
            self._end(event.packet)

    def finish(self, before: float = math.inf) -> tuple[TracedPacket, ...]:
        """End what is still open and was last heard of ``before`` a time, and give every packet of ours."""
        for number in [number for number, packet in self._open.items() if packet.last < before]:
            self._end(number)
        return tuple(self._done)

    def _begins_anew(self, event: TraceEvent) -> bool:
        packet = self._open.get(event.packet)
        return packet is not None and event.chain in packet.met

    def _own(self, packet: _Open, event: TraceEvent) -> None:
        if event.kind == "rule":
            packet.ours = True
            # Met by its connection and not by its own addresses: it goes the other way, or was translated before.
            packet.reply = packet.reply or (
                event.chain.startswith(TRACKED_CHAIN)
                and not any(chain.startswith(FIRST_CHAIN) for chain in packet.met)
                and event.direction != "original"
            )
            packet.met.add(event.chain)
            return
        if not event.chain.startswith(LAST_CHAIN):
            return
        hook = event.chain.removeprefix(LAST_CHAIN)
        if hook == "postrouting" and event.output_index is not None:
            packet.output_index = event.output_index
        if event.kind != "policy":
            return
        packet.hooks.append(hook)
        if hook in ("input", "postrouting"):
            self._end(event.packet)

    def _end(self, number: int) -> None:
        packet = self._open.pop(number)
        if packet.ours:
            self._done.append(
                TracedPacket(
                    tuple(packet.events), tuple(packet.hooks), packet.reply, packet.output_index, packet.headers
                )
            )
