"""Entries made up for every layout: values drawn at random, encoded by `Layout.pack`."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from calico_debug.decode.bpf_layout_types import MapLayout
from calico_debug.decode.bpf_layouts import LAYOUTS
from calico_debug.decode.bpf_structs import Field, Kind, Layout
from calico_debug.model.bpf_objects import MapInfo

FILLABLE = [layout for layout in LAYOUTS if layout.types != ("perf_event_array",)]
IDS = [f"{layout.name}-{layout.value.size}" for layout in FILLABLE]


def map_info(layout: MapLayout, map_id: int = 7, *, entries: int = 0) -> MapInfo:
    size = entries or layout.size
    kind = layout.types[-1]
    return MapInfo(map_id, layout.name, kind, layout.key.size, layout.value.size, size, layout.flags)


def draw_value(field: Field, rng: random.Random) -> Any:
    if field.kind is Kind.ADDRESS:
        return (IPv4Address if field.size == 4 else IPv6Address)(rng.randbytes(field.size))
    if field.kind is Kind.TEXT:
        return "".join(rng.choices("abcdef0123456789", k=rng.randrange(field.size)))
    if field.kind is Kind.MAC:
        return rng.randbytes(6).hex(":")
    if field.kind is Kind.BYTES:
        return rng.randbytes(field.size)
    if field.kind is Kind.UINTS:
        return tuple(rng.getrandbits(8 * field.width) for _ in range(field.size // field.width))
    number = rng.getrandbits(8 * field.size)
    return number - (1 << (8 * field.size - 1)) if field.kind is Kind.INT else number


def draw(layout: Layout, rng: random.Random) -> dict[str, Any]:
    values = {field.name: draw_value(field, rng) for field in layout.fields}
    if layout.variants:
        kind, chosen = rng.choice(layout.variants)
        values[layout.selector] = kind
        values.update({field.name: draw_value(field, rng) for field in chosen.fields})
    return values


def draw_key(layout: MapLayout, rng: random.Random, place: int) -> dict[str, Any]:
    """A key that the kernel takes: indexes of arrays within bounds, prefixes that end behind the fixed fields and
    whose further bits, address and all, are zero, since the kernel compares keys bit by bit.
    """
    values = draw(layout.key, rng)
    if "index" in values:
        values["index"] = place
    if "prefix_length" in values:
        first = next(f.offset for f in layout.key.fields if f.kind is Kind.ADDRESS and f.offset >= 4)
        bits = 8 * (layout.key.size - 4)
        if layout.name.endswith(("nat_fe3",)):
            first = next(f.offset for f in layout.key.fields if f.name == "source")
            bits -= 8
        fixed = 8 * (first - 4)
        length = rng.randint(fixed, bits)
        data = int.from_bytes(layout.key.pack(values)[4:], "big")
        total = 8 * (layout.key.size - 4)
        masked = (data >> (total - length) << (total - length)).to_bytes(total // 8, "big")
        values = layout.key.unpack(length.to_bytes(4, "little") + masked)
    return values


def draw_pairs(layout: MapLayout, rng: random.Random, count: int, cpus: int = 1) -> dict[bytes, bytes]:
    """Packed keys and values; per-CPU values are ``cpus`` pieces of the rounded size."""
    info = map_info(layout)
    pairs: dict[bytes, bytes] = {}
    for place in range(min(count, layout.size)):
        key = layout.key.pack(draw_key(layout, rng, place))
        pieces = [layout.value.pack(draw(layout.value, rng)).ljust(info.value_stride, b"\0") for _ in range(cpus)]
        pairs[key] = b"".join(pieces if info.per_cpu else pieces[:1])
    return pairs


def as_dump(pairs: dict[bytes, bytes], info: MapInfo, cpus: int = 1) -> list[dict[str, Any]]:
    """What ``bpftool -j map dump`` prints of them."""
    entries = []
    for key, value in pairs.items():
        entry: dict[str, Any] = {"key": listed(key)}
        if info.per_cpu:
            stride = info.value_stride
            pieces = [value[cpu * stride : cpu * stride + info.value_size] for cpu in range(cpus)]
            entry["values"] = [{"cpu": cpu, "value": listed(piece)} for cpu, piece in enumerate(pieces)]
        else:
            entry["value"] = listed(value)
        entries.append(entry)
    return entries


def listed(data: bytes) -> list[str]:
    return [f"0x{byte:02x}" for byte in data]
