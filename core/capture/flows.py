"""Whose flow a packet is: packets are told apart, and ends are turned the way the connection was opened.

Everything is bounded: what was not seen for long is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from calico_debug.model.packet_event import DROPPED, Ends

if TYPE_CHECKING:
    from calico_debug.model.packet_event import PacketEvent

MOST_PACKETS = 4096
"""Packets that are on their way at once."""
MOST_FLOWS = 8192
ICMP, ICMPV6 = 1, 58
SYN, ACK = 0x02, 0x10
ECHO = {ICMP: (8, 0), ICMPV6: (128, 129)}
"""Types of an echo request and of its answer."""

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """A mapping that forgets what was not asked for longest."""

    def __init__(self, most: int) -> None:
        """``most`` entries are kept."""
        self._most = most
        self._entries: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """The value, None where there is none."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: Key, value: Value) -> None:
        """Keep a value."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)

    def drop(self, key: Key) -> None:
        """Forget one."""
        self._entries.pop(key, None)


@dataclass(frozen=True, slots=True)
class FlowOf:
    """The flow of a packet. ``ends`` are those of its request, before translation where that was seen.

    ``icmp`` is type and code of an ICMP request. Not ``sure``: nothing says which end opened the connection.
    """

    ends: Ends
    reply: bool = False
    sure: bool = True
    icmp: tuple[int, int] | None = None


@dataclass(slots=True)
class _Packet:
    number: int
    flow: FlowOf | None
    been: set[tuple[str, int, int]] = field(default_factory=set)


class PacketFlows:
    """Takes events one by one."""

    def __init__(self, opened: Callable[[Ends], tuple[Ends, bool] | None]) -> None:
        """``opened`` gives, for ends of a packet, those that its connection was opened with, and whether the packet is
        an answer; None where nobody knows the connection.
        """
        self._opened = opened
        self._packets: Recent[tuple[int, int], _Packet] = Recent(MOST_PACKETS)
        self._forward: Recent[Ends, Ends] = Recent(MOST_FLOWS)
        self.packets = 0
        """Packets that were told apart."""

    def add(self, event: PacketEvent) -> tuple[int, FlowOf | None]:
        """The packet's number, from 1 on, and its flow; None for what is no flow's, such as an ICMP error."""
        packet = self._packets.get(event.packet)
        place = (event.kind, event.namespace, event.interface_index)
        # Memory is used again, and packets of some senders have the same header each time: nothing comes by twice.
        if packet is None or place in packet.been:
            self.packets += 1
            packet = _Packet(self.packets, self._flow(event))
            self._packets.put(event.packet, packet)
        packet.been.add(place)
        if packet.flow is not None and not packet.flow.reply:
            # Translated on its way: answers come from there.
            self._forward.put(event.ends, packet.flow.ends)
        if event.kind == DROPPED:
            self._packets.drop(event.packet)
        return packet.number, packet.flow

    def _flow(self, event: PacketEvent) -> FlowOf | None:
        ends = event.ends
        if event.about:
            return None
        if event.icmp is not None:
            request, answer = ECHO.get(ends.protocol, (-1, -1))
            if event.icmp[0] == answer:
                return FlowOf(self._forward.get(ends.reversed()) or ends.reversed(), True, icmp=(request, 0))
            return FlowOf(self._forward.get(ends) or ends, icmp=event.icmp) if event.icmp[0] == request else None
        if known := self._forward.get(ends):
            return FlowOf(known)
        if known := self._forward.get(ends.reversed()):
            return FlowOf(known, True)
        if event.flow is not None:
            return FlowOf(ends.reversed() if event.reply else ends, event.reply)
        opening = (event.flags or 0) & (SYN | ACK)
        if opening == SYN:
            return FlowOf(ends)
        opened = self._opened(ends)
        if opening == SYN | ACK:
            return FlowOf(*opened) if opened is not None and opened[1] else FlowOf(ends.reversed(), True)
        return FlowOf(*opened) if opened is not None else FlowOf(ends, sure=False)
