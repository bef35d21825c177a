"""Netlink attributes: type, length, value. Source: include/uapi/linux/netlink.h (struct nlattr), nfnetlink.h."""

from __future__ import annotations

import struct

HEADER = struct.Struct("=HH")
_unpack = HEADER.unpack_from
TYPE_MASK = 0x3FFF
"""Bits of the type that are the type; the two above say nested and network byte order."""
NESTED = 0x8000
NFGENMSG_SIZE = 4
"""Size of struct nfgenmsg, with which each nf_tables message begins: family, version, resource id."""

Attributes = dict[int, bytes]


def parse(data: bytes) -> Attributes:
    """Attributes by type, the last one of a type winning. Raises ValueError when lengths do not add up."""
    # The hot loop of reading rules: written out, since a list in between costs a third more.
    found = {}
    position, end = 0, len(data)
    while end - position >= 4:
        length, kind = _unpack(data, position)
        if length < 4 or position + length > end:
            raise _misfit(length, end - position)
        found[kind & TYPE_MASK] = data[position + 4 : position + length]
        position += (length + 3) & ~3
    return found


def parse_list(data: bytes) -> list[tuple[int, bytes]]:
    """Attributes in order, as (type, value). Raises ValueError when lengths do not add up."""
    found = []
    position, end = 0, len(data)
    while end - position >= 4:
        length, kind = _unpack(data, position)
        if length < 4 or position + length > end:
            raise _misfit(length, end - position)
        found.append((kind & TYPE_MASK, data[position + 4 : position + length]))
        position += (length + 3) & ~3
    return found


def _misfit(length: int, left: int) -> ValueError:
    return ValueError(f"attribute of {length} bytes where {left} are left")


def text(data: bytes) -> str:
    """A string, up to its NUL; bytes that are not UTF-8 stay visible as escapes."""
    return data.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def number(data: bytes) -> int:
    """An unsigned integer in network byte order, as nf_tables sends every number of its own."""
    return int.from_bytes(data)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return HEADER.pack(len(value) + 4, kind) + value + b"\0" * (-len(value) % 4)


def string_attribute(kind: int, value: str) -> bytes:
    """A string attribute with its NUL."""
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, value: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NESTED, value)
