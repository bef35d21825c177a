"""What else the maps of Calico's eBPF dataplane hold: routes, sets, interfaces, counters, settings of its programs.

Sources: felix/bpf-gpl/*.h and felix/bpf/*/map*.go, v3.28 to master. Times are nanoseconds of CLOCK_MONOTONIC
(bpf_ktime_get_ns). "ingress" and "egress" in names of fields are tc hooks, as in Calico's structs: ingress is from the
interface into the host. Nothing of that is shown to users.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from calico_debug.model.bpf_words import (
    INTERFACE_FLAGS,
    ROUTE_FLAGS,
    names_of_bits,
)
from calico_debug.model.routing import Address, Network


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

    def policy_index(self, hook: str, family: int, joint: bool = False) -> int:
        """The index of the policy program at ``hook`` "ingress", "egress" (of tc) or "xdp"; -1 for none.

        ``joint`` says that one jump map serves both hooks, as up to v3.31.2: a workload's places are noted by the
        direction of its policy then, which is the opposite (bpf_ep_mgr.go, wepApplyPolicyToDirection).
        """
        if joint and self.workload:
            hook = {"ingress": "egress", "egress": "ingress"}.get(hook, hook)
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
class UnknownEntry:
    """An entry that could not be decoded: its bytes, and why."""

    key: bytes
    value: bytes
    why: str
