"""What a map of Calico is to us, and the row of a table that describes one of its versions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from calico_debug.decode.bpf_structs import Layout, uint


class Role(StrEnum):
    """What a map is for, whatever its name and version."""

    CONNTRACK = "conntrack"
    CONNTRACK_CLEANUP = "conntrack-cleanup"
    NAT_FRONTENDS = "nat-frontends"
    NAT_BACKENDS = "nat-backends"
    NAT_AFFINITY = "nat-affinity"
    MAGLEV = "maglev"
    REVERSE_CONNECT = "reverse-connect"
    """Service addresses of connected UDP sockets (srmsg)."""
    CONNECT_NAT = "connect-nat"
    """Recent choices of the connect-time load balancer (ct_nats)."""
    ROUTES = "routes"
    IP_SETS = "ip-sets"
    ALLOWED_SOURCES = "allowed-sources"
    FAILSAFES = "failsafes"
    ARP = "arp"
    FRAGMENTS = "fragments"
    FRAGMENT_SCRATCH = "fragment-scratch"
    FRAGMENT_FORWARD = "fragment-forward"
    STATE = "state"
    INTERFACES = "interfaces"
    COUNTERS = "counters"
    RULE_COUNTERS = "rule-counters"
    PROFILING = "profiling"
    QOS = "qos"
    QOS_CONNECTIONS = "qos-connections"
    PROGRAMS = "programs"
    """The fixed programs of the tc chain; before v3.31.3 one map for both hooks."""
    PROGRAMS_INGRESS = "programs-ingress"
    PROGRAMS_EGRESS = "programs-egress"
    JUMPS = "jumps"
    """Policy programs of the tc hooks; before v3.31.3 one map for both hooks."""
    JUMPS_INGRESS = "jumps-ingress"
    JUMPS_EGRESS = "jumps-egress"
    NETKIT_PROGRAMS_INGRESS = "netkit-programs-ingress"
    NETKIT_PROGRAMS_EGRESS = "netkit-programs-egress"
    NETKIT_JUMPS_INGRESS = "netkit-jumps-ingress"
    NETKIT_JUMPS_EGRESS = "netkit-jumps-egress"
    XDP_PROGRAMS = "xdp-programs"
    XDP_JUMPS = "xdp-jumps"
    CONNECT_PROGRAMS = "connect-programs"
    SENDMSG_PROGRAMS = "sendmsg-programs"
    RECVMSG_PROGRAMS = "recvmsg-programs"
    EVENTS = "events"
    EVENT_DROPS = "event-drops"


@dataclass(frozen=True, slots=True)
class MapLayout:
    """One version of one of Calico's maps.

    ``name`` is ``base`` with ``version`` glued on; versions 0 and 1 have no suffix. ``family`` is 4 or 6, 0 for maps
    of both. ``types`` are the kernel types it was ever created with, ``flags`` BPF_F_… bits, ``size`` the default
    number of entries. ``releases`` says which have it.
    """

    role: Role
    family: int
    base: str
    version: int
    types: tuple[str, ...]
    key: Layout
    value: Layout
    releases: str
    flags: int = 0
    size: int = 0

    @property
    def name(self) -> str:
        """The kernel's name of the map, which is also its pin's."""
        return self.base if self.version <= 1 else f"{self.base}{self.version}"


NO_PREALLOC = 1
"""BPF_F_NO_PREALLOC (include/uapi/linux/bpf.h)."""

INDEX = Layout(4, (uint("index", 0),), "__u32")
PROGRAM = Layout(4, (uint("program_id", 0),), "id of the program, as user space reads a prog_array")
DUMMY = Layout(4, (uint("value", 0),), "__u32 without a meaning")

EVER = "v3.28 to master"


def family_base(base: str, family: int) -> str:
    """``cali_v4_ct`` from ``ct`` and 4."""
    return f"cali_v{family}_{base}"


def width(family: int) -> int:
    """Bytes of an address."""
    return 4 if family == 4 else 16
