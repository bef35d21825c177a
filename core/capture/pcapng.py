"""Packets as a pcapng file, which Wireshark and tcpdump open.

Source: draft-ietf-opsawg-pcapng; LINKTYPE_RAW of the tcpdump group's list. Every block is whole when it is written, so
a file that ends early is still one.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from mmap import mmap

SECTION, INTERFACE, NAMES, STATISTICS, PACKET = 0x0A0D0D0A, 1, 4, 5, 6
"""Types of blocks."""
BYTE_ORDER = 0x1A2B3C4D
LINKTYPE_RAW = 101
"""Packets begin with the IP header."""
COMMENT, APPLICATION, NAME, DESCRIPTION, RESOLUTION, FLAGS, PACKET_ID, RECEIVED = 1, 4, 2, 3, 9, 2, 5, 4
"""Options: of any block, of the section, of interfaces (three), of packets (two), of statistics."""
NANOSECONDS = 9
INBOUND, OUTBOUND = 1, 2
NAME_V4, NAME_V6 = 1, 2
LONGEST = 0xFFFF
"""Bytes of an option's value, and of a record of names."""


def section(application: str, comment: str = "") -> bytes:
    """The block that begins the file."""
    body = struct.pack("=IHHq", BYTE_ORDER, 1, 0, -1)
    options = [(COMMENT, comment.encode())] if comment else []
    return _block(SECTION, body + _options([*options, (APPLICATION, application.encode())]))


def interface(name: str, description: str, most: int) -> bytes:
    """An interface; packets name it by how many came before. ``most`` is the longest packet kept, in bytes."""
    options = [(NAME, name.encode()), (DESCRIPTION, description.encode()), (RESOLUTION, bytes([NANOSECONDS]))]
    return _block(INTERFACE, struct.pack("=HHI", LINKTYPE_RAW, 0, most) + _options(options))


def names(known: Mapping[str, Sequence[str]]) -> bytes:
    """Names of addresses."""
    body = b""
    for address, each in known.items():
        value = ip_address(address)
        kind = NAME_V4 if isinstance(value, IPv4Address) else NAME_V6
        texts = b"".join(name.encode() + b"\0" for name in each)
        body += _record(kind, (value.packed + texts)[:LONGEST])
    return _block(NAMES, body + struct.pack("=HH", 0, 0))


def packet(
    interface_number: int, time: int, data: bytes, length: int, *, comment: str, sent: bool | None, number: int
) -> bytes:
    """A packet at an interface. ``time`` is nanoseconds since 1970, ``length`` what the packet had before it was cut,
    ``number`` the same wherever it was seen; ``sent`` None is for neither way.
    """
    body = struct.pack("=IIIII", interface_number, time >> 32, time & 0xFFFFFFFF, len(data), max(length, len(data)))
    options = [(COMMENT, comment.encode()[:LONGEST]), (PACKET_ID, struct.pack("=Q", number))]
    if sent is not None:
        options.append((FLAGS, struct.pack("=I", OUTBOUND if sent else INBOUND)))
    return _block(PACKET, body + _padded(data) + _options(options))


def statistics(interface_number: int, time: int, *, received: int, comment: str) -> bytes:
    """What an interface had until ``time``: ``received`` packets in this file."""
    body = struct.pack("=III", interface_number, time >> 32, time & 0xFFFFFFFF)
    options = [(COMMENT, comment.encode())] if comment else []
    return _block(STATISTICS, body + _options([*options, (RECEIVED, struct.pack("=Q", received))]))


def whole_blocks(data: bytes | mmap) -> tuple[int, int]:
    """How many of the first bytes are whole blocks, which is what to keep of a file whose writer was killed, and how
    many of these blocks are packets. Nothing is, when the file does not begin as `section` does.
    """
    packets = 0
    at = 0
    while at + 12 <= len(data):
        kind, length = struct.unpack_from("=II", data, at)
        if at == 0 and kind != SECTION:
            return 0, 0
        ends = at + length
        if length < 12 or length % 4 or ends > len(data) or data[ends - 4 : ends] != data[at + 4 : at + 8]:
            break
        packets += kind == PACKET
        at = ends
    return at, packets


def ip_length(data: bytes, otherwise: int) -> int:
    """The length that an IP header says; ``otherwise`` where it says none (segments that are still to be cut)."""
    if len(data) >= 4 and data[0] >> 4 == 4:
        return int.from_bytes(data[2:4], "big") or otherwise
    if len(data) >= 6 and data[0] >> 4 == 6:
        length = int.from_bytes(data[4:6], "big")
        return 40 + length if length else otherwise
    return otherwise


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return struct.pack("=II", kind, length) + body + struct.pack("=I", length)


def _options(options: Sequence[tuple[int, bytes]]) -> bytes:
    return b"".join(_record(code, value[:LONGEST]) for code, value in options) + struct.pack("=HH", 0, 0)


def _record(code: int, value: bytes) -> bytes:
    return struct.pack("=HH", code, len(value)) + _padded(value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
