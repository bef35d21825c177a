"""C structs as tables: the code that unpacks and packs every Calico map (`bpf_layouts` holds the tables).

Numbers are little-endian unless a field says otherwise: Felix writes them with Go's binary.LittleEndian on every
machine (felix/bpf/*/map*.go). Addresses are in network order.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any

Fields = Mapping[str, Any]
"""A struct's fields by their name: int, tuple of int, address, text or bytes."""

Buffer = bytes | bytearray | memoryview


class Kind(StrEnum):
    """How a field's bytes are read."""

    UINT = "uint"
    UINT_BE = "uint-be"
    INT = "int"
    UINTS = "uints"
    """Numbers of ``width`` bytes one after the other."""
    ADDRESS = "address"
    TEXT = "text"
    """Up to the first NUL."""
    MAC = "mac"
    BYTES = "bytes"


@dataclass(frozen=True, slots=True)
class Field:
    """``offset`` and ``size`` in bytes. ``width`` is that of one number of `Kind.UINTS`."""

    name: str
    offset: int
    size: int
    kind: Kind = Kind.UINT
    width: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """A struct of ``size`` bytes; bytes that no field covers are padding. Two layouts are equal when they are the same
    object: comparing and hashing a whole table for each of half a million entries would take most of the time.

    A union has ``variants``: the value of field ``selector`` chooses the layout that is laid over the same bytes.
    ``source`` names the struct and where Calico declares it.
    """

    size: int
    fields: tuple[Field, ...]
    source: str = ""
    selector: str = ""
    variants: tuple[tuple[int, Layout], ...] = ()

    def unpack(self, data: Buffer) -> dict[str, Any]:
        """The fields, with those of the chosen variant. Raises `ValueError` for data of another size."""
        if len(data) != self.size:
            raise ValueError(f"it has {len(data)} bytes instead of {self.size}")
        return self.name_values(_codec(self).struct.unpack(data), data)

    def unpack_all(self, data: Buffer) -> Iterator[tuple[Any, ...]]:
        """The raw values (`raw_names`) of structs one after the other: the fast way to look at many."""
        return _codec(self).struct.iter_unpack(data)

    @property
    def raw_names(self) -> tuple[str, ...]:
        """Field names in the order of a tuple from `unpack_all`, in which addresses and texts are still bytes."""
        return _codec(self).names

    def name_values(self, raw: tuple[Any, ...], data: Buffer = b"") -> dict[str, Any]:
        """Fields from a tuple of `unpack_all`; ``data`` are the same bytes, which a union's variants need."""
        codec = _codec(self)
        values = dict(zip(codec.names, raw, strict=True))
        for name, convert in codec.converters:
            values[name] = convert(values[name])
        if self.variants:
            chosen = codec.variants.get(values[self.selector])
            if chosen is not None:
                values.update(chosen.unpack(data))
        return values

    def pack(self, values: Fields) -> bytes:
        """The bytes; fields that are not given are zero. Raises `ValueError` for a value that does not fit."""
        buffer = bytearray(self.size)
        layouts = [self]
        chosen = _codec(self).variants.get(values.get(self.selector, 0))
        if chosen is not None:
            layouts.append(chosen)
        for layout in layouts:
            for field in layout.fields:
                if field.name in values:
                    buffer[field.offset : field.offset + field.size] = _encode(field, values[field.name])
        return bytes(buffer)


@dataclass(frozen=True, slots=True)
class _Codec:
    struct: struct.Struct
    names: tuple[str, ...]
    converters: tuple[tuple[str, Callable[[bytes], Any]], ...]
    variants: Mapping[int, Layout]


_UINT_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


@lru_cache(maxsize=512)
def _codec(layout: Layout) -> _Codec:
    parts: list[str] = ["<"]
    names: list[str] = []
    converters: list[tuple[str, Callable[[bytes], Any]]] = []
    position = 0
    for field in sorted(layout.fields, key=lambda f: f.offset):
        if field.offset < position or field.offset + field.size > layout.size:
            raise ValueError(f"field {field.name} of {layout.source} overlaps another or the end")
        parts.append(f"{field.offset - position}x")
        names.append(field.name)
        position = field.offset + field.size
        if field.kind in (Kind.UINT, Kind.INT):
            code = _UINT_CODES[field.size]
            parts.append(code if field.kind is Kind.UINT else code.lower())
            continue
        parts.append(f"{field.size}s")
        converters.append((field.name, _converter(field)))
    parts.append(f"{layout.size - position}x")
    return _Codec(struct.Struct("".join(parts)), tuple(names), tuple(converters), dict(layout.variants))


def _converter(field: Field) -> Callable[[bytes], Any]:
    if field.kind is Kind.ADDRESS:
        return IPv4Address if field.size == 4 else IPv6Address
    if field.kind is Kind.UINT_BE:
        return lambda raw: int.from_bytes(raw, "big")
    if field.kind is Kind.TEXT:
        return lambda raw: raw.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
    if field.kind is Kind.MAC:
        return lambda raw: raw.hex(":")
    if field.kind is Kind.UINTS:
        numbers = struct.Struct(f"<{field.size // field.width}{_UINT_CODES[field.width]}")
        return numbers.unpack
    return bytes


def _encode(field: Field, value: Any) -> bytes:
    try:
        if field.kind in (Kind.UINT, Kind.INT):
            return int(value).to_bytes(field.size, "little", signed=field.kind is Kind.INT)
        if field.kind is Kind.UINT_BE:
            return int(value).to_bytes(field.size, "big")
        if field.kind is Kind.UINTS:
            encoded = b"".join(int(number).to_bytes(field.width, "little") for number in value)
        elif field.kind is Kind.ADDRESS:
            encoded = value.packed
        elif field.kind is Kind.MAC:
            encoded = bytes.fromhex(value.replace(":", ""))
        elif field.kind is Kind.TEXT:
            encoded = value.encode().ljust(field.size, b"\0")
        else:
            encoded = bytes(value)
    except OverflowError:
        raise ValueError(f"{value} does not fit into {field.name}, which has {field.size} bytes") from None
    if len(encoded) != field.size:
        raise ValueError(f"{value!r} has {len(encoded)} bytes instead of the {field.size} of {field.name}")
    return encoded


def uint(name: str, offset: int, size: int = 4) -> Field:
    """A little-endian number."""
    return Field(name, offset, size)


def address(name: str, offset: int, family: int) -> Field:
    """An address of ``family`` 4 or 6."""
    return Field(name, offset, 4 if family == 4 else 16, Kind.ADDRESS)
