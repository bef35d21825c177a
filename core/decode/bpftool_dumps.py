"""Entries of maps from ``bpftool -j map dump``.

Source: bpftool 7.1, tools/bpf/bpftool/map.c (print_entry_json). Keys and values are lists of "0x…" strings; a per-CPU
map has "values" with one for each possible CPU; where the map has BTF, "formatted" stands beside, which is not needed.
A dump made without -j holds only formatted values, and is refused with the remedy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from calico_debug.decode.json_text import parse_json
from calico_debug.errors import EvidenceError
from calico_debug.model.bpf_objects import MapInfo, RawEntries

QUICK_FROM = 4 << 20
"""Bytes from which a dump is searched for its entries instead of parsed as JSON, which for a full conntrack map of
365 MiB takes 21 s and several GiB.
"""

BATCH = 4096
"""Entries handed out at once."""

_ENTRY = re.compile(rb'(?<=[\[,])\{"key":\[("0x[^\]]*)\],"value":\[("0x[^\]]*)\]')
_STARTS = re.compile(rb'(?<=[\[,])\{"key":\["0x')
_HEX = re.compile(rb'["x,0-9a-f]+')


def decode_dump(data: bytes, info: MapInfo, what: str) -> Iterator[RawEntries]:
    """The entries in pieces of bounded size. Entries of another size than the map's are an error of the whole file,
    since it is then another map's.

    Raises `EvidenceError` naming ``what``: for a damaged or foreign file before the first piece, for a damaged entry
    of a large file where it is met.
    """
    if len(data) >= QUICK_FROM and not info.per_cpu:
        return _quick(data, info, what)
    document = parse_json(data, what)
    if not isinstance(document, list) or not all(isinstance(entry, dict) for entry in document):
        raise EvidenceError(f"{what} is no list of entries: record it again with `bpftool -j map dump`")
    decoded = [pair for entry in document if (pair := _entry(entry, info, what)) is not None]
    return _batched(iter(decoded))


def _batched(pairs: Iterator[tuple[bytes, bytes, int]]) -> Iterator[RawEntries]:
    keys: list[bytes] = []
    values: list[bytes] = []
    cpus = 1
    for key, value, count in pairs:
        if keys and (count != cpus or len(keys) >= BATCH):
            yield RawEntries(b"".join(keys), b"".join(values), len(keys), cpus)
            keys, values = [], []
        cpus = count
        keys.append(key)
        values.append(value)
    if keys:
        yield RawEntries(b"".join(keys), b"".join(values), len(keys), cpus)


def _entry(entry: Mapping[str, Any], info: MapInfo, what: str) -> tuple[bytes, bytes, int] | None:
    if "error" in entry or (isinstance(entry.get("value"), dict) and "error" in entry["value"]):
        return None  # the entry went away while the map was walked, or a slot of an array is empty
    try:
        key = _bytes(entry["key"])
        if "values" in entry:
            pieces = sorted((int(piece["cpu"]), _bytes(piece["value"])) for piece in entry["values"])
            values = [piece.ljust(info.value_stride, b"\0") for _, piece in pieces]
        else:
            values = [_bytes(entry["value"])]
    except (KeyError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise EvidenceError(f"{what}: cannot decode an entry: {reason}; record it with `bpftool -j map dump`") from None
    _check(info, what, key, values[0] if values else b"", info.value_stride)
    return key, b"".join(values), len(values)


def _bytes(numbers: Any) -> bytes:
    if not isinstance(numbers, list):
        raise TypeError("its key or value is no list of bytes")
    return bytes(int(number, 16) for number in numbers)


def _check(info: MapInfo, what: str, key: bytes, value: bytes, value_size: int) -> None:
    if (len(key), len(value)) != (info.key_size, value_size):
        raise EvidenceError(
            f"{what} holds keys of {len(key)} and values of {len(value)} bytes, but map {info.name} has "
            f"{info.key_size} and {info.value_size}: it is another map's dump; record both again"
        )


def _quick(data: bytes, info: MapInfo, what: str) -> Iterator[RawEntries]:
    if not data.rstrip().endswith(b"]"):
        raise EvidenceError(f"{what} is not complete JSON: it is truncated; record it again")
    found = sum(1 for _ in _STARTS.finditer(data))
    if found == 0:
        raise EvidenceError(f"{what} holds no lists of bytes: record it again with `bpftool -j map dump` (not -p)")
    return _batched(_search(data, info, what, found))


def _search(data: bytes, info: MapInfo, what: str, expected: int) -> Iterator[tuple[bytes, bytes, int]]:
    count = 0
    for match in _ENTRY.finditer(data):
        try:
            key, value = (bytes.fromhex(_digits(part)) for part in match.groups())
        except ValueError:
            raise EvidenceError(f"{what}: damaged at byte {match.start()}; record it again") from None
        _check(info, what, key, value, info.value_size)
        count += 1
        yield key, value, 1
    if count != expected:
        raise EvidenceError(f"{what}: {expected - count} of its {expected} entries are damaged; record it again")


def _digits(listing: bytes) -> str:
    if _HEX.fullmatch(listing) is None:
        raise ValueError("no list of bytes")
    return listing.replace(b'"0x', b"").replace(b'"', b"").replace(b",", b" ").decode()
