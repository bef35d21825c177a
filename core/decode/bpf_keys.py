"""Keys to look up in Calico's maps, as its programs build them.

Sources: felix/bpf-gpl/conntrack.h, nat_lookup.h, routes.h, failsafe.h, allowsources.h, sendrecv.h and
felix/bpf/polprog/pol_prog_builder.go of v3.28.0 to v3.32.1.
"""

from __future__ import annotations

import struct

from calico_debug.decode.bpf_layout_types import MapLayout, Role
from calico_debug.decode.bpf_layouts_conntrack import key_layout
from calico_debug.model.bpf_conntrack import ConntrackKey
from calico_debug.model.routing import Address

PADDED = frozenset({Role.NAT_FRONTENDS})
"""Roles whose lpm_trie keys end in a byte of padding that lookups leave out of the prefix length."""


def endpoint_order(address: Address, port: int) -> tuple[tuple[int, ...], int]:
    """What the ends of a connection are ordered by: the words of the address as the CPU (little-endian) loads them,
    then the port (conntrack.h, src_lt_dest; ip_addr.h, ip_lt).
    """
    packed = address.packed
    return struct.unpack(f"<{len(packed) // 4}I", packed), port


def ordered_key(protocol: int, source: Address, sport: int, destination: Address, dport: int) -> ConntrackKey:
    """The key of the connection of a packet, whichever way it goes. Ports of ICMP are 0."""
    if endpoint_order(source, sport) < endpoint_order(destination, dport):
        return ConntrackKey(protocol, source, destination, sport, dport)
    return ConntrackKey(protocol, destination, source, dport, sport)


def conntrack_key(key: ConntrackKey) -> bytes:
    """The bytes of a connection's key."""
    return key_layout(key.address_a.version).pack(
        {
            "protocol": key.protocol,
            "address_a": key.address_a,
            "address_b": key.address_b,
            "port_a": key.port_a,
            "port_b": key.port_b,
        }
    )


def prefix_key(layout: MapLayout, **fields: object) -> bytes:
    """The key for a lookup in an lpm_trie: every bit counts."""
    bits = 8 * (layout.key.size - 4 - (1 if layout.role in PADDED else 0))
    return layout.key.pack({"prefix_length": bits, **fields})
