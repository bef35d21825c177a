"""Layouts of the service maps.

Sources: felix/bpf-gpl/nat_types.h, sendrecv.h and felix/bpf/nat/maps.go, maps6.go of v3.28.0 to v3.32.1. Where Go and C
disagree (affinity of IPv6: Go reads the protocol at 6 and the time at 20), C is what the programs do.
"""

from __future__ import annotations

from calico_debug.decode.bpf_layout_types import EVER, NO_PREALLOC, MapLayout, Role, family_base, width
from calico_debug.decode.bpf_structs import Field, Kind, Layout, address, uint

FRONTEND_PREFIX = {4: 56, 6: 152}
"""Bits of a frontend's key before the client's source prefix: address, port, protocol."""


def _frontend_key(family: int) -> Layout:
    port = 4 + width(family)
    return Layout(
        16 if family == 4 else 40,
        (
            uint("prefix_length", 0),
            address("address", 4, family),
            uint("port", port, 2),
            uint("protocol", port + 2, 1),
            address("source", port + 3, family),
        ),
        "struct calico_nat_key (packed), nat_types.h",
    )


_FRONTEND = Layout(
    20,
    (
        uint("service_id", 0),
        uint("count", 4),
        uint("local_count", 8),
        uint("affinity_timeout", 12),
        uint("flags", 16),
    ),
    "struct calico_nat_value, nat_types.h",
)

_ORDINAL = Layout(8, (uint("service_id", 0), uint("ordinal", 4)), "struct calico_nat_secondary_key, nat_types.h")


def _destination_fields(family: int) -> tuple[Field, ...]:
    return (address("address", 0, family), uint("port", width(family), 2))


def _destination(family: int) -> Layout:
    return Layout(width(family) + 4, _destination_fields(family), "struct calico_nat_dest, nat_types.h")


def _affinity_key(family: int) -> Layout:
    port = width(family)
    return Layout(
        16 if family == 4 else 40,
        (
            address("address", 0, family),
            uint("port", port, 2),
            uint("protocol", port + 2, 1),
            address("client", port + 4, family),
        ),
        "struct calico_nat_affinity_key, nat_types.h",
    )


def _affinity_value(family: int) -> Layout:
    time = 8 if family == 4 else 24
    return Layout(
        time + 8,
        (*_destination_fields(family), uint("last_used", time, 8)),
        "struct calico_nat_affinity_val, nat_types.h",
    )


def _socket_fields(family: int, offset: int) -> tuple[Field, ...]:
    """Address and port as struct bpf_sock_addr has them: the port in network order in the first half of 32 bits."""
    return (address("address", offset, family), Field("port", offset + width(family), 2, Kind.UINT_BE))


def _maps(family: int) -> tuple[MapLayout, ...]:
    socket_end = 8 + width(family) + 4
    return (
        MapLayout(
            Role.NAT_FRONTENDS,
            family,
            family_base("nat_fe", family),
            3,
            ("lpm_trie",),
            _frontend_key(family),
            _FRONTEND,
            EVER,
            NO_PREALLOC,
            65536,
        ),
        MapLayout(
            Role.NAT_BACKENDS,
            family,
            family_base("nat_be", family),
            0,
            ("hash",),
            _ORDINAL,
            _destination(family),
            EVER,
            NO_PREALLOC,
            262144,
        ),
        MapLayout(
            Role.NAT_AFFINITY,
            family,
            family_base("nat_aff", family),
            0,
            ("lru_hash",),
            _affinity_key(family),
            _affinity_value(family),
            EVER,
            0,
            65536,
        ),
        MapLayout(
            Role.MAGLEV,
            family,
            family_base("mglv", family),
            2,
            ("hash",),
            _ORDINAL,
            _destination(family),
            "v3.32 to master",
            NO_PREALLOC,
            50300,
        ),
        MapLayout(
            Role.REVERSE_CONNECT,
            family,
            family_base("srmsg", family),
            0,
            ("lru_hash",),
            Layout(
                16 if family == 4 else 32,
                (uint("cookie", 0, 8), *_socket_fields(family, 8)),
                "struct sendrec_key, sendrecv.h",
            ),
            Layout(width(family) + 4, _socket_fields(family, 0), "struct sendrec_val, sendrecv.h"),
            EVER,
            0,
            510000,
        ),
        MapLayout(
            Role.CONNECT_NAT,
            family,
            family_base("ct_nats", family),
            0,
            ("lru_hash",),
            Layout(
                24 if family == 4 else 32,
                (uint("cookie", 0, 8), *_socket_fields(family, 8), uint("protocol", socket_end, 1)),
                "struct ct_nats_key, sendrecv.h",
            ),
            Layout(width(family) + 4, _socket_fields(family, 0), "struct sendrec_val, sendrecv.h"),
            EVER,
            0,
            10000,
        ),
    )


MAPS = (*_maps(4), *_maps(6))
