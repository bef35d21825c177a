"""Names of bits, counters and jumps of Calico's eBPF dataplane. Sources are named at each table; releases v3.28 to
master of August 2026. Names of conntrack and route flags are those that calico-bpf prints (felix/cmd/calico-bpf).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


def names_of_bits(value: int, names: Mapping[int, str]) -> tuple[str, ...]:
    """Names of the bits of ``value`` from the lowest; bits without a name together in hexadecimal, at the end."""
    found = [name for bit, name in sorted(names.items()) if value & bit]
    rest = value & ~sum(names)
    if rest:
        found.append(f"{rest:#x}")
    return tuple(found)


CONNTRACK_TYPES: Mapping[int, str] = {0: "normal", 1: "nat-forward", 2: "nat-reverse"}
"""enum cali_ct_type, felix/bpf-gpl/conntrack_types.h."""

CONNTRACK_FLAGS: Mapping[int, str] = {
    0x1: "nat-out",
    0x2: "fwd-dsr",
    0x4: "np-fwd",
    0x8: "skip-fib",
    0x40: "ext-local",
    0x80: "via-nat-iface",
    0x100: "B-A",
    0x200: "host-psnat",
    0x400: "svc-self",
    0x800: "np-loop",
    0x1000: "np-remote",
    0x2000: "no-dsr",
    0x4000: "no-redir-peer",  # v3.30
    0x8000: "dscp",  # v3.32; v3.31 has "source or destination outside of the cluster" there
    0x10000: "maglev",  # v3.32
    0x20000: "send-rst",  # v3.32
    0x40000: "connlimit-ingress",  # master, as the three below
    0x80000: "connlimit-ingress-rejected",
    0x100000: "connlimit-egress",
    0x200000: "connlimit-dec",
}
"""CALI_CT_FLAG_…, felix/bpf-gpl/conntrack_types.h."""

LEG_BITS: Mapping[str, int] = {
    "syn-seen": 0x1,
    "ack-seen": 0x2,
    "fin-seen": 0x4,
    "rst-seen": 0x8,
    "approved": 0x10,
    "opener": 0x20,
    "workload": 0x40,  # v3.30
}
"""Bit fields of struct calico_ct_leg, felix/bpf-gpl/conntrack_types.h."""

FRONTEND_FLAGS: Mapping[int, str] = {
    0x1: "external-local",
    0x2: "internal-local",
    0x4: "nat-exclude",
    0x8: "maglev",  # v3.32
}
"""NAT_FLG_…, felix/bpf-gpl/nat_types.h."""

ROUTE_FLAGS: Mapping[int, str] = {
    0x1: "in-pool",
    0x2: "nat-out",
    0x4: "workload",
    0x8: "local",
    0x10: "host",
    0x20: "same-subnet",
    0x40: "tunneled",
    0x80: "no-dsr",
    0x100: "blackhole-drop",
    0x200: "blackhole-reject",
    0x400: "vxlan",  # v3.31
    0x800: "skip-ingress-redir",  # v3.31; v3.30 has "workload is a virtual machine" there
}
"""CALI_RT_…, felix/bpf-gpl/routes.h."""

INTERFACE_FLAGS: Mapping[int, str] = {
    0x1: "workload",
    0x2: "ipv4-ready",
    0x4: "ipv6-ready",
    0x8: "host",
    0x10: "bond",
    0x20: "bond-slave",
    0x40: "vxlan",
    0x80: "ipip",
    0x100: "wireguard",
    0x200: "l3",
    0x400: "not-managed",  # v3.29
}
"""Flg…, felix/bpf/ifstate/map.go."""

GLOBAL_FLAGS: Mapping[int, str] = {
    0x10: "rpf-enabled",
    0x20: "rpf-strict",
    0x80: "no-dsr-cidrs",
    0x100: "lo-udp-only",
    0x200: "redirect-peer",  # v3.29 alone
    0x400: "redirect-peer",  # v3.30
    0x800: "flow-logs",  # v3.30
    0x1000: "nat-outgoing-exclude-hosts",  # v3.31
    0x2000: "skip-egress-redirect",  # v3.31
    0x4000: "ingress-packet-rate",  # v3.31
    0x8000: "egress-packet-rate",  # v3.31
    0x10000: "udp-gso-linearize",  # v3.32
    0x20000: "workload-source-spoofing",  # v3.32
    0x40000: "ingress-connection-limit",  # master
    0x80000: "egress-connection-limit",  # master
}
"""enum cali_globals_flags, felix/bpf-gpl/globals.h."""

COUNTER_HOOKS: Mapping[int, str] = {0: "ingress", 1: "egress", 2: "xdp"}
"""tc hooks, felix/bpf/hook/hook.go."""


@dataclass(frozen=True, slots=True)
class CounterName:
    """``category`` is Total, Accepted, Dropped, Other or Redirect; ``caption`` as calico-bpf prints it."""

    category: str
    caption: str
    since: str = "v3.28"


COUNTERS: tuple[CounterName, ...] = (
    CounterName("Total", "packets"),
    CounterName("Accepted", "by failsafe"),
    CounterName("Accepted", "by policy"),
    CounterName("Accepted", "by another program"),
    CounterName("Dropped", "by policy"),
    CounterName("Dropped", "too short packets"),
    CounterName("Dropped", "incorrect checksum"),
    CounterName("Dropped", "packets with unsupported IP options"),
    CounterName("Dropped", "malformed IP packets"),
    CounterName("Dropped", "failed encapsulation"),
    CounterName("Dropped", "failed decapsulation"),
    CounterName("Dropped", "packets with unknown source"),
    CounterName("Dropped", "packets with unknown route"),
    CounterName("Dropped", "packets hitting blackhole route"),
    CounterName("Other", "packets hitting NAT source collision", "v3.30"),
    CounterName("Dropped", "NAT source collision resolution failed", "v3.30"),
    CounterName("Dropped", "failed to create conntrack", "v3.30"),
    CounterName("Redirect", "plain", "v3.31"),
    CounterName("Redirect", "neigh", "v3.31"),
    CounterName("Redirect", "peer", "v3.31"),
    CounterName("Dropped", "fragment of yet incomplete packet", "v3.31"),
    CounterName("Dropped", "fragment out of order within host", "v3.31"),
    CounterName("Dropped", "fragments not supported", "v3.31"),
    CounterName("Dropped", "QoS control limit", "v3.31"),
    CounterName("", "", "v3.31"),  # reserved, counted by nothing
    CounterName("Dropped", "Maglev lookup found no backends for service IP", "v3.32.0"),
    CounterName("Dropped", "VXLAN encap when host IP unknown", "v3.32.1"),
)
"""By index of a cell: enum calico_reason in felix/bpf-gpl/reasons.h, captions in felix/bpf/counters/counters.go."""


def counter_name(index: int) -> CounterName:
    """The name of a cell; of one that is not known here, its number."""
    return COUNTERS[index] if index < len(COUNTERS) else CounterName("Unknown", f"counter {index}", "")


JUMPS: tuple[str, ...] = (
    "main",
    "policy",
    "allowed",
    "icmp",
    "drop",
    "host-ct-conflict",
    "icmp-inner-nat",
    "new-flow",
    "ip-frag",  # v3.31
    "maglev",  # v3.32
    "tcp-rst",  # v3.32
)
"""Numbers of the jumps, enum cali_jump_index in felix/bpf-gpl/jump.h. Copies that log follow behind the last one that a
release has.
"""
POLICY_JUMP = 1
"""The jump whose index is one of the jump map and not of the map of programs."""
