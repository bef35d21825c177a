"""Layouts of routes, IP sets, failsafe ports, allowed sources, neighbours and fragments.

Sources: felix/bpf-gpl/routes.h, policy.h, failsafe.h, allowsources.h, arp.h, ip_v4_fragment.h and felix/bpf/routes,
ipsets, failsafes, allowsources, arp, ipfrags of v3.28.0 to v3.32.1 and master of August 2026.
"""

from __future__ import annotations

from calico_debug.decode.bpf_layout_types import DUMMY, EVER, INDEX, NO_PREALLOC, MapLayout, Role, family_base, width
from calico_debug.decode.bpf_structs import Field, Kind, Layout, address, uint

FRAGMENT_DATA = 1504
"""MAX_FRAG, ip_v4_fragment.h."""


def _maps(family: int) -> tuple[MapLayout, ...]:
    end = 12 + width(family)
    tail = 4 + width(family)
    return (
        MapLayout(
            Role.ROUTES,
            family,
            family_base("routes", family),
            0,
            ("lpm_trie",),
            Layout(tail, (uint("prefix_length", 0), address("address", 4, family)), "union cali_rt_lpm_key, routes.h"),
            Layout(
                tail,
                # A union: the next hop's address, or a local workload's interface in its first 4 bytes.
                (uint("flags", 0), Field("next_hop_or_ifindex", 4, width(family), Kind.BYTES)),
                "struct cali_rt, routes.h",
            ),
            EVER,
            NO_PREALLOC,
            262144,
        ),
        MapLayout(
            Role.IP_SETS,
            family,
            family_base("ip_sets", family),
            0,
            ("lpm_trie",),
            Layout(
                end + 4,
                (
                    uint("prefix_length", 0),
                    Field("set_id", 4, 8, Kind.UINT_BE),
                    address("address", 12, family),
                    uint("port", end, 2),
                    uint("protocol", end + 2, 1),
                ),
                "union ip4_set_lpm_key, union ip6_set_lpm_key (packed), policy.h",
            ),
            DUMMY,
            EVER,
            NO_PREALLOC,
            1048576,
        ),
        MapLayout(
            Role.ALLOWED_SOURCES,
            family,
            family_base("sprefix", family),
            0,
            ("lpm_trie",),
            Layout(
                8 + width(family),
                (uint("prefix_length", 0), uint("ifindex", 4), address("address", 8, family)),
                "struct allow_source_key, allowsources.h",
            ),
            DUMMY,
            "v3.32 to master",
            NO_PREALLOC,
            1048576,
        ),
        MapLayout(
            Role.FAILSAFES,
            family,
            family_base("fsafes", family),
            2,
            ("lpm_trie",),
            Layout(
                8 + width(family),
                (
                    uint("prefix_length", 0),
                    uint("port", 4, 2),
                    uint("protocol", 6, 1),
                    uint("flags", 7, 1),
                    address("address", 8, family),
                ),
                "struct failsafe_key, failsafe.h",
            ),
            DUMMY,
            EVER,
            NO_PREALLOC,
            65536,
        ),
        MapLayout(
            Role.ARP,
            family,
            family_base("arp", family),
            2,
            ("lru_hash",),
            Layout(tail, (address("address", 0, family), uint("ifindex", width(family))), "struct arp_key, arp.h"),
            Layout(
                12,
                (Field("source_mac", 0, 6, Kind.MAC), Field("destination_mac", 6, 6, Kind.MAC)),
                "struct arp_value, arp.h",
            ),
            EVER,
            0,
            10000,
        ),
    )


_FRAGMENT_KEY = Layout(
    12,
    (address("source", 0, 4), address("destination", 4, 4), uint("id", 8, 2), uint("offset", 10, 2)),
    "struct frags4_key, ip_v4_fragment.h",
)
_FRAGMENT = Layout(
    8 + FRAGMENT_DATA,
    (uint("more_fragments", 0, 2), uint("length", 2, 2), Field("data", 8, FRAGMENT_DATA, Kind.BYTES)),
    "struct frags4_value, ip_v4_fragment.h",
)
_FORWARD_KEY = Layout(
    16,
    (address("source", 0, 4), address("destination", 4, 4), uint("ifindex", 8), uint("id", 12, 2)),
    "struct frags4_fwd_key, ip_v4_fragment.h",
)


def _fragments(version: int, releases: str) -> tuple[MapLayout, ...]:
    scratch = family_base("frgtmp", 4)
    return (
        MapLayout(
            Role.FRAGMENTS,
            4,
            family_base("frags", 4),
            version,
            ("lru_hash",),
            _FRAGMENT_KEY,
            _FRAGMENT,
            releases,
            size=10000,
        ),
        MapLayout(Role.FRAGMENT_SCRATCH, 4, scratch, version, ("percpu_array",), INDEX, _FRAGMENT, releases, size=1),
    )


def _forward(version: int, value: Layout, releases: str) -> MapLayout:
    return MapLayout(
        Role.FRAGMENT_FORWARD,
        4,
        family_base("frgfwd", 4),
        version,
        ("lru_hash",),
        _FORWARD_KEY,
        value,
        releases,
        size=10000,
    )


MAPS = (
    *_maps(4),
    *_maps(6),
    *_fragments(2, "v3.31 and v3.32"),
    *_fragments(3, "master"),
    _forward(2, Layout(4, (uint("mark", 0),), "__u32, ip_v4_fragment.h"), "v3.31.0 to v3.31.3"),
    _forward(
        3,
        Layout(
            8,
            (uint("source_port", 0, 2), uint("destination_port", 2, 2), uint("mark", 4)),
            "struct frags4_fwd_value, ip_v4_fragment.h",
        ),
        "v3.31.4 to v3.32",
    ),
    _forward(
        4,
        Layout(
            # A struct bpf_timer of 16 bytes is in front, which reads as zero; the kernel rounds the struct to 8 bytes.
            32,
            (
                uint("source_port", 16, 2),
                uint("destination_port", 18, 2),
                uint("mark", 20),
                uint("flags", 24),
            ),
            "struct frags4_fwd_value, ip_v4_fragment.h",
        ),
        "master",
    ),
)
