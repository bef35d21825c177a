"""What the tracing program of ``agent/packets/packets.bpf.c`` gives and takes: events, ends to look for, settings."""

from __future__ import annotations

import struct
import sys
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from calico_debug.model.packet_event import DROPPED, RECEIVED, SENT, Ends, Losses, PacketEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

EVENT = struct.Struct("=QQQIIIIIIHH16s16s16sHHBBHBBBBHH")
"""struct event, without its data."""
TUPLE = struct.Struct("=16s16sHHBBH")
"""struct tuple: source, destination, source port, destination port, protocol, version of IP, zero."""
SETTINGS = struct.Struct("=IIIIIIQQ1024s")
"""struct settings: shapes, mode, port of VXLAN, bytes, flows, a reason, price and burst of events, addresses' bits."""
TOTALS = struct.Struct("=QQQQQQQ")
"""struct totals of one program and CPU: matched, ring_full, limited, unreadable, and three of the rate limit."""
ONE = struct.pack("=I", 0)
"""The key of maps with one entry."""

KINDS = {1: RECEIVED, 2: SENT, 3: DROPPED}
BY_IDENTITY, IN_TUNNEL, ICMP_ERROR = 2, 4, 8
FULL, ANY_SOURCE_PORT, ANY_DESTINATION_PORT, ANY_PORTS, ANY_PEER = 1, 2, 4, 8, 16
DROPS_ONLY = 1
SECOND = 10**9
BURST_SECONDS = 4
"""What the rate allows in these may come at once, so that short connections are told whole where long ones are not."""
ADDRESS_BITS = 8192
"""Of the table that tells most packets of other flows by their addresses alone."""
MOST_DATA = 2048
"""Bytes of a packet that an event has room for."""

TCP, ICMP, ICMPV6 = 6, 1, 58
REASONS_ENUM = "skb_drop_reason"
_PREFIX = "SKB_DROP_REASON_"
_SUBSYSTEM_SHIFT = 16
"""Reasons of subsystems have the subsystem's number, which differs from release to release, in the upper half
(include/net/dropreason.h)."""


def decode_event(
    data: bytes, *, boot: int, filtered: bool, reasons: Mapping[int, str], place: Callable[[int], str]
) -> PacketEvent:
    """One event. ``boot`` is the time that the kernel's clock counts from, in nanoseconds since 1970; ``filtered``
    whether packets were looked for by their ends; ``reasons`` as in the kernel's BTF; ``place`` names an address.

    Raises `ValueError` for what this version does not know.
    """
    if len(data) < EVENT.size:
        raise ValueError(f"an event of {len(data)} bytes, {EVENT.size} at least are known")
    fields = EVENT.unpack_from(data)
    time, packet, location, namespace, index, length, mark, reason, fingerprint, kind, which, name = fields[:12]
    source, destination, source_port, destination_port, protocol, version, _ = fields[12:19]
    how, flags, icmp_type, icmp_code, captured, _ = fields[19:]
    if kind not in KINDS or version not in (4, 6):
        raise ValueError(f"an event of kind {kind} about IP version {version}")
    family = IPv4Address if version == 4 else IPv6Address
    width = 4 if version == 4 else 16
    ends = Ends(protocol, family(source[:width]), family(destination[:width]), source_port, destination_port)
    dropped = KINDS[kind] == DROPPED
    return PacketEvent(
        time=boot + time,
        kind=KINDS[kind],
        packet=(packet, fingerprint),
        namespace=namespace,
        interface=name.split(b"\0")[0].decode("utf-8", "replace"),
        interface_index=index,
        length=length,
        mark=mark,
        ends=ends,
        reason=reason_name(reason, reasons) if dropped else "",
        place=place(location) if dropped else "",
        flow=which >> 1 if filtered else None,
        reply=bool(filtered and which & 1),
        followed=bool(how & BY_IDENTITY),
        tunnelled=bool(how & IN_TUNNEL),
        about=bool(how & ICMP_ERROR),
        flags=flags if protocol == TCP else None,
        icmp=(icmp_type, icmp_code) if protocol in (ICMP, ICMPV6) else None,
        data=data[EVENT.size : EVENT.size + captured],
    )


def reason_name(number: int, reasons: Mapping[int, str]) -> str:
    """The kernel's word without what all have in common; the number where this kernel has no word."""
    word = reasons.get(number)
    if word is not None:
        return word.removeprefix(_PREFIX).removeprefix("SKB_")
    subsystem = number >> _SUBSYSTEM_SHIFT
    return f"reason {number & 0xFFFF} of subsystem {subsystem}" if subsystem else f"reason {number}"


def encode_ends(ends: Ends) -> bytes:
    """The key under which the program looks for a packet."""
    source, destination = ends.source.packed.ljust(16, b"\0"), ends.destination.packed.ljust(16, b"\0")
    return TUPLE.pack(
        source, destination, ends.source_port, ends.destination_port, ends.protocol, ends.source.version, 0
    )


def filter_entries(flows: Sequence[Ends], first: int = 0) -> dict[bytes, bytes]:
    """Keys and values of the filter: each of the flow's ends, and the same for the answer; ``first`` is the number of
    the first of them.
    """
    entries: dict[bytes, bytes] = {}
    for number, ends in enumerate(flows, first):
        entries.setdefault(encode_ends(ends), struct.pack("=I", number << 1))
    for number, ends in enumerate(flows, first):
        entries.setdefault(encode_ends(ends.reversed()), struct.pack("=I", number << 1 | 1))
    return entries


def encode_settings(
    flows: Sequence[Ends] | None, *, rate: int = 0, vxlan_port: int = 0, data: int = 0, purged: int = 0
) -> bytes:
    """Settings for a filter, or with None for all drops; ``rate`` events a second and CPU, of which `BURST_SECONDS` may
    come at once, 0 for no limit. ``purged`` is the reason of packets that closed sockets had not read, which are then
    no drops.
    """
    shapes = 0
    known = flows or ()
    for ends in known:
        if not ends.protocol:
            shapes |= ANY_PEER
            continue
        for one in (ends, ends.reversed()):
            shapes |= {
                (True, True): FULL,
                (False, True): ANY_SOURCE_PORT,
                (True, False): ANY_DESTINATION_PORT,
                (False, False): ANY_PORTS,
            }[bool(one.source_port), bool(one.destination_port)]
    price = SECOND // rate if rate else 0
    burst = BURST_SECONDS * rate * price
    mode = DROPS_ONLY if flows is None else 0
    snap = min(data, MOST_DATA)
    return SETTINGS.pack(shapes, mode, vxlan_port, snap, len(known), purged, price, burst, address_bits(known))


def address_bits(flows: Sequence[Ends]) -> bytes:
    """The table of bits: one for each pair of addresses, whichever way, with a port of which there is one, and one for
    each address of which all is wanted.
    """
    bits = 0
    for ends in flows:
        place = mixed(ends.source.packed) ^ (mixed(ends.destination.packed) if ends.protocol else 0)
        if port := ends.destination_port or ends.source_port:
            # As it stands in the packet, seen by the machine.
            place ^= mixed(struct.pack("=I", int.from_bytes(port.to_bytes(2, "big"), sys.byteorder)))
        bits |= 1 << place % ADDRESS_BITS
    # Words of 64 bits in the machine's order.
    words = [bits >> at & 0xFFFFFFFFFFFFFFFF for at in range(0, ADDRESS_BITS, 64)]
    return struct.pack(f"={len(words)}Q", *words)


def mixed(data: bytes) -> int:
    """Words of an address or a port, mixed as the program does: 32 bits."""
    found = 0
    for (word,) in struct.iter_unpack("=I", data):
        found ^= word
        found = (found ^ found >> 16) * 0x85EBCA6B & 0xFFFFFFFF
        found = (found ^ found >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
        found ^= found >> 16
    return found


def decode_losses(values: bytes, missed: int) -> Losses:
    """The sum over all CPUs and programs. ``missed`` is how often the kernel did not run a program."""
    rows = [TOTALS.unpack_from(values, at) for at in range(0, len(values) - TOTALS.size + 1, TOTALS.size)]
    matched, ring_full, limited, unreadable = (sum(row[column] for row in rows) for column in range(4))
    return Losses(matched, ring_full, limited, unreadable, missed)
