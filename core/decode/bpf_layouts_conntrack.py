"""Layouts of the connection tracking maps.

Sources: felix/bpf-gpl/conntrack_types.h, conntrack_cleanup.h and felix/bpf/conntrack/v3/map.go, v4/map.go of the tags
v3.28.0, v3.30.0, v3.31.0, v3.32.1 and master of August 2026.
"""

from __future__ import annotations

from calico_debug.decode.bpf_layout_types import NO_PREALLOC, MapLayout, Role, family_base, width
from calico_debug.decode.bpf_structs import Field, Kind, Layout, address, uint

NORMAL, NAT_FORWARD, NAT_REVERSE = 0, 1, 2
"""enum cali_ct_type."""


def key_fields(family: int, offset: int = 0, prefix: str = "") -> tuple[Field, ...]:
    """struct calico_ct_key: address A with its port is the smaller of both ends."""
    a = offset + 4
    b = a + width(family)
    ports = b + width(family)
    return (
        uint(f"{prefix}protocol", offset),
        address(f"{prefix}address_a", a, family),
        address(f"{prefix}address_b", b, family),
        uint(f"{prefix}port_a", ports, 2),
        uint(f"{prefix}port_b", ports + 2, 2),
    )


def key_layout(family: int) -> Layout:
    """struct calico_ct_key of a family."""
    return Layout(16 if family == 4 else 40, key_fields(family), "struct calico_ct_key, conntrack_types.h")


def _leg(prefix: str, offset: int) -> tuple[Field, ...]:
    """struct calico_ct_leg; the ISN is in network order."""
    return (
        uint(f"{prefix}_bytes", offset, 8),
        uint(f"{prefix}_packets", offset + 8),
        Field(f"{prefix}_sequence", offset + 12, 4, Kind.UINT_BE),
        uint(f"{prefix}_bits", offset + 16),
        uint(f"{prefix}_ifindex", offset + 20),
    )


def _value(family: int, first: str, flags: tuple[tuple[str, int], ...]) -> Layout:
    """struct calico_ct_value; ``first`` is what its first 8 bytes are, ``flags`` where the flags' bytes are."""
    size = 88 if family == 4 else 128
    tunnel = 72
    original = tunnel + width(family)
    port = original + width(family)
    legs = Layout(
        size,
        (
            *_leg("a_to_b", 24),
            *_leg("b_to_a", 48),
            address("tunnel_ip", tunnel, family),
            address("original_ip", original, family),
            uint("original_port", port, 2),
            uint("original_source_port", port + 2, 2),
            address("original_source_ip", port + 4, family),
        ),
        "struct calico_ct_value of types normal and NAT reverse",
    )
    reverse = Layout(
        size,
        (*key_fields(family, 24, "reverse_"), uint("nat_source_port", 24 + key_layout(family).size, 2)),
        "struct calico_ct_value of type NAT forward",
    )
    common = (
        uint(first, 0, 8),
        uint("last_seen", 8, 8),
        uint("type", 16, 1),
        *(uint(name, offset, 1) for name, offset in flags),
    )
    return Layout(
        size,
        common,
        "struct calico_ct_value, conntrack_types.h",
        selector="type",
        variants=((NORMAL, legs), (NAT_FORWARD, reverse), (NAT_REVERSE, legs)),
    )


_TWO_FLAG_BYTES = (("flags_0", 17), ("flags_8", 23))
_FOUR_FLAG_BYTES = (*_TWO_FLAG_BYTES, ("flags_16", 18), ("flags_24", 19))
"""Bits 0 to 7 and so on. Releases up to v3.31 have padding, always zero, where the upper two are."""


def _maps(family: int) -> tuple[MapLayout, ...]:
    base, queue, key = family_base("ct", family), family_base("ccq", family), key_layout(family)
    second = key.size
    return (
        # v3.30 changed the meaning of the first 8 bytes without a new version: "created" became "rst_seen".
        MapLayout(
            Role.CONNTRACK,
            family,
            base,
            3,
            ("hash",),
            key,
            _value(family, "created_or_rst_seen", _TWO_FLAG_BYTES),
            "v3.28 to v3.30",
            NO_PREALLOC,
            512000,
        ),
        MapLayout(
            Role.CONNTRACK,
            family,
            base,
            4,
            ("lru_hash",),
            key,
            _value(family, "rst_seen", _FOUR_FLAG_BYTES),
            "v3.31 to master",
            0,
            512000,
        ),
        MapLayout(
            Role.CONNTRACK_CLEANUP,
            family,
            queue,
            1,
            ("hash",),
            key,
            Layout(second, key_fields(family, 0, "reverse_"), "struct calico_ct_key, conntrack_cleanup.h"),
            "v3.30",
            NO_PREALLOC,
            100000,
        ),
        MapLayout(
            Role.CONNTRACK_CLEANUP,
            family,
            queue,
            2,
            ("hash",),
            key,
            Layout(
                second + 16,
                (
                    *key_fields(family, 0, "reverse_"),
                    uint("last_seen", second, 8),
                    uint("reverse_last_seen", second + 8, 8),
                ),
                "struct ccq_value, conntrack_cleanup.h",
            ),
            "v3.31 to master",
            NO_PREALLOC,
            100000,
        ),
    )


MAPS = (*_maps(4), *_maps(6))
