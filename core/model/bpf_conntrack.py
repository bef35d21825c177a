"""Connections of Calico's eBPF dataplane. Sources: felix/bpf-gpl/conntrack*.h and felix/bpf/conntrack, v3.28 to master.

Times are nanoseconds of CLOCK_MONOTONIC (bpf_ktime_get_ns).
"""

from __future__ import annotations

from dataclasses import dataclass

from calico_debug.model.bpf_words import (
    CONNTRACK_FLAGS,
    CONNTRACK_TYPES,
    LEG_BITS,
    names_of_bits,
)
from calico_debug.model.routing import Address

TCP = 6
B_TO_A = 0x100
"""Flag of a connection: the client is end B."""
FORWARD_DSR = 0x2


@dataclass(frozen=True, slots=True, order=True)
class ConntrackKey:
    """Both ends of a connection, the smaller one first (`ordered_key` in decode.bpf_keys). Ports of ICMP are 0."""

    protocol: int
    address_a: Address
    address_b: Address
    port_a: int
    port_b: int


@dataclass(frozen=True, slots=True)
class Leg:
    """One direction of a connection.

    ``bits`` are `bpf_words.LEG_BITS`. ``ifindex`` is where these packets enter the host, 0 for packets of the host
    itself and while unknown. ``sequence`` is the initial one of TCP.
    """

    bytes: int
    packets: int
    sequence: int
    bits: int
    ifindex: int

    def has(self, bit: str) -> bool:
        """Whether the bit of that name is set: "syn-seen", "ack-seen", "fin-seen", "rst-seen", "approved", …"""
        return bool(self.bits & LEG_BITS[bit])

    @property
    def words(self) -> tuple[str, ...]:
        """Names of the bits that are set."""
        return names_of_bits(self.bits, {bit: name for name, bit in LEG_BITS.items()})


@dataclass(frozen=True, slots=True)
class ConntrackEntry:
    """An entry of the connection tracking map.

    ``type`` 0 is a connection without service NAT, 1 an entry for packets to a service that names the other entry
    (``reverse_key``), 2 that other entry. Legs are there for types 0 and 2, "original_…" and ``tunnel_ip`` have a
    meaning for type 2. ``created`` exists up to v3.29, ``rst_seen`` since v3.30; with map version 3 the same bytes
    are both, and are then ``created_or_rst_seen``.
    """

    key: ConntrackKey
    type: int
    flags: int
    last_seen: int
    rst_seen: int | None = None
    created_or_rst_seen: int | None = None
    a_to_b: Leg | None = None
    b_to_a: Leg | None = None
    tunnel_ip: Address | None = None
    original_ip: Address | None = None
    original_port: int = 0
    original_source_ip: Address | None = None
    original_source_port: int = 0
    reverse_key: ConntrackKey | None = None
    nat_source_port: int = 0

    @property
    def type_word(self) -> str:
        """ "normal", "nat-forward", "nat-reverse", else "type N"."""
        return CONNTRACK_TYPES.get(self.type, f"type {self.type}")

    @property
    def flag_words(self) -> tuple[str, ...]:
        """Names of the flags as calico-bpf has them; unknown bits in hexadecimal."""
        return names_of_bits(self.flags, CONNTRACK_FLAGS)

    @property
    def client(self) -> tuple[Address, int]:
        """Address and port of the end that opened the connection (of types 0 and 2)."""
        if self.flags & B_TO_A:
            return self.key.address_b, self.key.port_b
        return self.key.address_a, self.key.port_a

    @property
    def server(self) -> tuple[Address, int]:
        """Address and port of the other end, behind service NAT (of types 0 and 2)."""
        if self.flags & B_TO_A:
            return self.key.address_a, self.key.port_a
        return self.key.address_b, self.key.port_b

    @property
    def client_leg(self) -> Leg | None:
        """The client's packets. "approved" there: policy where they leave has allowed the connection."""
        return self.b_to_a if self.flags & B_TO_A else self.a_to_b

    @property
    def server_leg(self) -> Leg | None:
        """The answers. "approved" there: policy at the server's side has allowed the connection."""
        return self.a_to_b if self.flags & B_TO_A else self.b_to_a

    @property
    def tcp_state(self) -> str:
        """ "syn-sent", "established", "closed" or "reset" as calico-bpf judges it; "" when not TCP or without legs."""
        client, server = self.client_leg, self.server_leg
        if self.key.protocol != TCP or client is None or server is None:
            return ""
        legs = (client, server)
        if any(leg.has("rst-seen") for leg in legs):
            return "reset"
        closed = [leg.has("fin-seen") for leg in legs]
        if all(closed) or (any(closed) and self.flags & FORWARD_DSR):
            return "closed"
        if all(leg.has("syn-seen") and leg.has("ack-seen") for leg in legs):
            return "established"
        return "syn-sent"


@dataclass(frozen=True, slots=True)
class CleanupEntry:
    """A pair of entries on its way out. Times are 0 in v3.30, which has none."""

    key: ConntrackKey
    reverse_key: ConntrackKey
    last_seen: int = 0
    reverse_last_seen: int = 0


@dataclass(frozen=True, slots=True)
class CleanupTimeouts:
    """Timeouts of connection tracking, in nanoseconds, from the clean-up program's read-only data."""

    creation_grace: int
    tcp_syn_sent: int
    tcp_established: int
    tcp_fins_seen: int
    tcp_reset_seen: int
    udp: int
    generic: int
    icmp: int
