"""What the maps of Calico's eBPF dataplane hold. Sources: felix/bpf-gpl/*.h and felix/bpf/*/map*.go, v3.28 to master.

Times are nanoseconds of CLOCK_MONOTONIC (bpf_ktime_get_ns). "ingress" and "egress" in names of fields are tc hooks, as
in Calico's structs: ingress is from the interface into the host. Nothing of that is shown to users.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from calico_debug.model.bpf_words import (
    CONNTRACK_FLAGS,
    CONNTRACK_TYPES,
    FRONTEND_FLAGS,
    INTERFACE_FLAGS,
    LEG_BITS,
    ROUTE_FLAGS,
    names_of_bits,
)
from calico_debug.model.routing import Address, Network

TCP = 6

B_TO_A = 0x100
"""Flag of a connection: the client is end B."""
FORWARD_DSR = 0x2
EVERY_BACKEND_BLOCKED = 0xFFFFFFFF
"""`Frontend.count` of an entry that drops."""


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


class _ServiceFlags:
    """What the count and the flags of a frontend say, with its key or without."""

    __slots__ = ()

    count: int
    flags: int

    @property
    def blackhole(self) -> bool:
        """Whether packets from these sources are dropped (outside of loadBalancerSourceRanges)."""
        return self.count == EVERY_BACKEND_BLOCKED

    @property
    def flag_words(self) -> tuple[str, ...]:
        """Names of the flags: "external-local", "internal-local", "nat-exclude", "maglev"."""
        return names_of_bits(self.flags, FRONTEND_FLAGS)


@dataclass(frozen=True, slots=True)
class Frontend(_ServiceFlags):
    """A service's address and port, for clients of ``sources``.

    Backends have ordinals 0 to ``count`` - 1, of which the first ``local_count`` are on this node. An address of all
    ones is the wildcard of node ports. ``affinity_timeout`` is in seconds.
    """

    address: Address
    port: int
    protocol: int
    sources: Network
    service_id: int
    count: int
    local_count: int
    affinity_timeout: int
    flags: int


@dataclass(frozen=True, slots=True)
class FrontendTarget(_ServiceFlags):
    """What a frontend's lookup yields: a `Frontend` without the key, which the kernel does not return."""

    service_id: int
    count: int
    local_count: int
    affinity_timeout: int
    flags: int


@dataclass(frozen=True, slots=True)
class NatBackend:
    """Backend number ``ordinal`` of a service. Also an entry of the Maglev table, where ``ordinal`` is a slot."""

    service_id: int
    ordinal: int
    address: Address
    port: int


@dataclass(frozen=True, slots=True)
class Affinity:
    """The backend that ``client`` sticks to; a client of 0.0.0.0 or :: is the node itself at connect time."""

    address: Address
    port: int
    protocol: int
    client: Address
    backend_address: Address
    backend_port: int
    last_used: int


@dataclass(frozen=True, slots=True)
class SocketService:
    """The service that a socket's backend stands for. ``protocol`` is None in the map of reverse UDP NAT."""

    cookie: int
    backend_address: Address
    backend_port: int
    service_address: Address
    service_port: int
    protocol: int | None = None


@dataclass(frozen=True, slots=True)
class RouteTarget:
    """What the route to an address says. ``next_hop`` is a remote node, ``ifindex`` the interface of a local pod."""

    flags: int
    next_hop: Address | None = None
    ifindex: int | None = None

    @property
    def flag_words(self) -> tuple[str, ...]:
        """Names of the flags; unknown bits in hexadecimal."""
        return names_of_bits(self.flags, ROUTE_FLAGS)

    def has(self, flag: str) -> bool:
        """Whether the flag of that name is set: "local", "workload", "host", "in-pool", "nat-out", "tunneled", …"""
        return flag in self.flag_words


@dataclass(frozen=True, slots=True)
class BpfRoute:
    """A route with its prefix."""

    prefix: Network
    target: RouteTarget


@dataclass(frozen=True, slots=True)
class IpSetMember:
    """A member of set ``set_id``: a prefix, or an address with port and protocol (both 0 for a prefix)."""

    set_id: int
    prefix: Network
    port: int = 0
    protocol: int = 0


@dataclass(frozen=True, slots=True)
class AllowedSource:
    """A prefix that the pod at ``ifindex`` may send from although it is not its address."""

    ifindex: int
    prefix: Network


@dataclass(frozen=True, slots=True)
class Failsafe:
    """A port that policy of host endpoints cannot close. ``peers`` are the other end's addresses.

    ``outbound`` means connections from the host.
    """

    protocol: int
    port: int
    outbound: bool
    peers: Network


@dataclass(frozen=True, slots=True)
class ArpEntry:
    """MAC addresses for packets to ``address`` out of ``ifindex``."""

    address: Address
    ifindex: int
    source_mac: str
    destination_mac: str


@dataclass(frozen=True, slots=True)
class InterfaceState:
    """What the programs know of an interface. Policies are indexes into the jump maps of a tc hook, -1 for none."""

    ifindex: int
    name: str
    flags: int
    xdp_policy_v4: int
    ingress_policy_v4: int
    egress_policy_v4: int
    xdp_policy_v6: int
    ingress_policy_v6: int
    egress_policy_v6: int
    ingress_filter: int
    egress_filter: int

    @property
    def flag_words(self) -> tuple[str, ...]:
        """Names of the flags; unknown bits in hexadecimal."""
        return names_of_bits(self.flags, INTERFACE_FLAGS)

    @property
    def workload(self) -> bool:
        """Whether a pod is behind it."""
        return "workload" in self.flag_words

    def ready(self, family: int) -> bool:
        """Whether packets of that family may be sent to the pod behind it."""
        return f"ipv{family}-ready" in self.flag_words

    def policy_index(self, hook: str, family: int) -> int:
        """The index of the policy program at ``hook`` "ingress", "egress" (of tc) or "xdp"; -1 for none."""
        index: int = getattr(self, f"{hook}_policy_v{family}")
        return index


@dataclass(frozen=True, slots=True)
class InterfaceCounters:
    """Counters of an interface at ``hook`` 0 (tc ingress), 1 (tc egress) or 2 (XDP), by index."""

    ifindex: int
    hook: int
    cells: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """Run time of programs. ``kind``: 0 to the pod new, 1 established, 2 from the pod new, 3 established."""

    ifindex: int
    kind: int
    nanoseconds: int
    samples: int


@dataclass(frozen=True, slots=True)
class PacketRate:
    """A limit of packets a second. ``to_pod`` is the direction; ``family`` is 0 where one limit is for both."""

    ifindex: int
    to_pod: bool
    family: int
    packet_rate: int
    packet_burst: int
    tokens: int
    last_update: int


@dataclass(frozen=True, slots=True)
class ConnectionLimit:
    """A limit of connections; ``limit`` 0 means none."""

    ifindex: int
    to_pod: bool
    family: int
    limit: int
    count: int


@dataclass(frozen=True, slots=True)
class Slot:
    """A program in a program array."""

    index: int
    program_id: int


@dataclass(frozen=True, slots=True)
class StateSnapshot:
    """What one CPU's programs last wrote of a packet: a hint, the next packet overwrites it."""

    cpu: int
    index: int
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Fragment:
    """A fragment that waits for the others."""

    source: Address
    destination: Address
    id: int
    offset: int
    length: int
    more_fragments: bool


@dataclass(frozen=True, slots=True)
class FragmentForward:
    """How further fragments of a packet are treated. Ports are None where the release does not hold them."""

    source: Address
    destination: Address
    ifindex: int
    id: int
    mark: int
    source_port: int | None = None
    destination_port: int | None = None
    flags: int = 0


@dataclass(frozen=True, slots=True)
class EventDrops:
    """Events that did not fit into the ring buffer since the last flush."""

    count: int
    last_flush: int


@dataclass(frozen=True, slots=True)
class TcGlobals:
    """Settings of one interface's programs for one IP version, from the preamble's read-only data.

    ``jumps`` are indexes into the maps of programs by the jump's number, None where there is none; number 1 is the
    policy and an index into the jump map. Fields that a release does not have are None.
    """

    interface: str
    flags: int
    host_ip: Address
    interface_ip: Address
    host_tunnel_ip: Address
    jumps: tuple[int | None, ...]
    log_filter_jump: int | None
    nat_in_ifindex: int
    nat_out_ifindex: int
    overlay_tunnel_id: int | None = None
    dscp: int | None = None
    istio_dscp: int | None = None
    maglev_table_size: int | None = None
    fragment_timeout: int | None = None
    host_ifindex: int | None = None


@dataclass(frozen=True, slots=True)
class XdpGlobals:
    """Settings of one interface's XDP programs for one IP version; ``jumps`` as in `TcGlobals`."""

    interface: str
    jumps: tuple[int | None, ...]


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


@dataclass(frozen=True, slots=True)
class UnknownEntry:
    """An entry that could not be decoded: its bytes, and why."""

    key: bytes
    value: bytes
    why: str
