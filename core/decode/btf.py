"""The names of an enumeration from a kernel's BTF (``/sys/kernel/btf/vmlinux``).

Source: Linux Documentation/bpf/btf.rst, include/uapi/linux/btf.h. The types are a list of 150,000 that only reading all
of it would count; so a name is looked for where the strings are, and then the type that bears it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MAGIC = 0xEB9F
HEADER = struct.Struct("=HBBIIIII")
"""magic, version, flags, length of the header; offset and length of types and of strings."""
TYPE = struct.Struct("=III")
"""name, info (kind in bits 24 to 28, members in the lower 16), size."""
MEMBER = struct.Struct("=Ii")
KIND_ENUM = 6


def enumeration(btf: bytes, name: str) -> Mapping[int, str]:
    """The values of an enumeration of 32 bits with their names; empty where there is none of that name.

    Raises `ValueError` for bytes that are no BTF of this machine's byte order.
    """
    if len(btf) < HEADER.size:
        raise ValueError("BTF is cut off")
    magic, _, _, length, types_at, types_length, strings_at, strings_length = HEADER.unpack_from(btf)
    if magic != MAGIC:
        raise ValueError(f"no BTF: it begins with {magic:#x}")
    types = btf[length + types_at : length + types_at + types_length]
    strings = btf[length + strings_at : length + strings_at + strings_length]
    found = strings.find(b"\0" + name.encode() + b"\0")
    if found < 0:
        return {}
    wanted = struct.pack("=I", found + 1)
    position = types.find(wanted)
    while position >= 0:
        if position % 4 == 0 and (values := _values(types, strings, position)):
            return values
        position = types.find(wanted, position + 1)
    return {}


def _values(types: bytes, strings: bytes, position: int) -> dict[int, str]:
    """The members, if there is an enumeration at ``position``: the same bytes may well be something else."""
    if position + TYPE.size > len(types):
        return {}
    _, info, size = TYPE.unpack_from(types, position)
    count = info & 0xFFFF
    start = position + TYPE.size
    if (info >> 24) & 0x1F != KIND_ENUM or size != 4 or start + count * MEMBER.size > len(types):
        return {}
    values: dict[int, str] = {}
    for number in range(count):
        at, value = MEMBER.unpack_from(types, start + number * MEMBER.size)
        end = strings.find(b"\0", at)
        text = strings[at:end].decode("ascii", "replace")
        # The names of an enumeration begin where strings do, and are C identifiers.
        if end < 0 or not text.isidentifier() or (at and strings[at - 1]):
            return {}
        values.setdefault(value & 0xFFFFFFFF, text)
    return values
