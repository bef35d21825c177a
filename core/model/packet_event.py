"""Packets as the kernel's tracepoints showed them: received, handed to an interface for sending, or dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from calico_debug.model.flow import Address

UNSPECIFIED: Mapping[int, Address] = {4: IPv4Address(0), 6: IPv6Address(0)}

RECEIVED, SENT, DROPPED = "received", "sent", "dropped"
"""Values of `PacketEvent.kind`."""


@dataclass(frozen=True, slots=True)
class Ends:
    """A packet's addresses and ports in one direction. A port of 0 is any in a filter, and none in a packet.

    In a filter a protocol of 0 stands for whatever goes from the source to anywhere; see `everything_of`.
    """

    protocol: int
    source: Address
    destination: Address
    source_port: int = 0
    destination_port: int = 0

    def reversed(self) -> Ends:
        """The same for an answer."""
        return Ends(self.protocol, self.destination, self.source, self.destination_port, self.source_port)


def everything_of(address: Address) -> Ends:
    """The filter for all that an address sends and, reversed, for all that it gets."""
    return Ends(0, address, UNSPECIFIED[address.version])


@dataclass(frozen=True, slots=True)
class PacketEvent:
    """One place where a packet was seen.

    ``time`` is nanoseconds since 1970 (UTC); ``namespace`` the inode of the network namespace; ``interface`` the
    kernel's name of the device, "" without one. ``packet`` tells packets apart: the place of the kernel's buffer and
    what stays the same in its headers. ``length`` is in bytes, with what headers were there at that moment. ``mark`` is
    the packet's. ``reason`` and ``place`` are of a drop: the kernel's word, and the function that dropped it.
    ``flow`` counts the filter's ends, None where packets are not filtered by them; ``reply`` tells the direction.
    ``followed``: its ends are none of the filter's, but it was the flow's just before (translation). ``tunnelled``: the
    ends are those of the packet inside a tunnel's. ``about``: an ICMP error that quotes a packet of the flow.
    ``flags`` are TCP's, None of other protocols, ``icmp`` type and code. ``data`` are the first bytes from the IP
    header on, if asked for.
    """

    time: int
    kind: str
    packet: tuple[int, int]
    namespace: int
    interface: str
    interface_index: int
    length: int
    mark: int
    ends: Ends
    reason: str = ""
    place: str = ""
    flow: int | None = None
    reply: bool = False
    followed: bool = False
    tunnelled: bool = False
    about: bool = False
    flags: int | None = None
    icmp: tuple[int, int] | None = None
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Losses:
    """What was not told. ``matched`` events were wanted; ``ring_full`` of them found no room, ``limited`` were over the
    limit of the rate. ``unreadable`` drops were of no IP packet, or of one whose headers could not be read. ``missed``
    packets, of the flow or not, were passed over because the program was running on that CPU already.
    """

    matched: int = 0
    ring_full: int = 0
    limited: int = 0
    unreadable: int = 0
    missed: int = 0

    @property
    def lost(self) -> int:
        """Events that were wanted and not told."""
        return self.ring_full + self.limited
