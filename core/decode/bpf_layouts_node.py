"""Layouts of the maps that are not of one IP version: interfaces, counters, program arrays, state, QoS.

Sources: felix/bpf-gpl/ifstate.h, counters.h, rule_counters.h, jump.h, types.h, profiling.h, qos.h, perf_types.h,
ringbuf.h and felix/bpf/ifstate, counters, jump, hook, state, profiling, qos of v3.28.0 to v3.32.1 and master of August
2026.
"""

from __future__ import annotations

from calico_debug.decode.bpf_layout_types import EVER, INDEX, NO_PREALLOC, PROGRAM, MapLayout, Role
from calico_debug.decode.bpf_structs import Field, Kind, Layout, uint

POLICY_INDEXES = (
    "xdp_policy_v4",
    "ingress_policy_v4",
    "egress_policy_v4",
    "xdp_policy_v6",
    "ingress_policy_v6",
    "egress_policy_v6",
    "ingress_filter",
    "egress_filter",
)
"""In the order of struct ifstate_val; "ingress" and "egress" are tc hooks."""

_INTERFACE = Layout(
    52,
    (
        uint("flags", 0),
        Field("name", 4, 16, Kind.TEXT),
        *(Field(name, 20 + 4 * place, 4, Kind.INT) for place, name in enumerate(POLICY_INDEXES)),
    ),
    "struct ifstate_val, ifstate.h",
)

_COUNTERS_KEY = Layout(8, (uint("ifindex", 0), uint("hook", 4)), "struct counters_key, counters.h")

COUNTER_CELLS: tuple[tuple[int, int, str], ...] = (
    (2, 14, "v3.28 and v3.29"),
    (3, 17, "v3.30"),
    (5, 25, "v3.31"),
    (6, 26, "v3.32.0"),
    (6, 27, "v3.32.1 to master"),
)
"""Version of cali_counters, MAX_COUNTERS_SIZE, releases. Version 6 grew without a new number."""

COUNTERS_NEEDED = 5
"""Version of cali_counters since which a program drops what it has no entry for, which Felix makes (v3.31). Up to
v3.30 the program makes its entry at its first packet (counters_get in counters.h).
"""

STATE_SIZES: tuple[tuple[int, int, str], ...] = (
    (4, 480, "v3.28 and v3.29"),
    (4, 488, "v3.30 and v3.31"),
    (6, 512, "v3.32 to master"),
)
"""Version of cali_state, bytes, releases. v3.30 put a header of 8 bytes in front."""


def _state(size: int) -> Layout:
    shift = 0 if size == 480 else 8
    return Layout(
        size,
        (
            *(
                Field(name, shift + 16 * place, 16, Kind.BYTES)
                for place, name in enumerate(("source", "destination", "pre_nat_destination", "post_nat_destination"))
            ),
            Field("policy_result", shift + 84, 4, Kind.INT),
            uint("source_port", shift + 88, 2),
            uint("destination_port", shift + 90, 2),
            uint("pre_nat_port", shift + 92, 2),
            uint("post_nat_port", shift + 94, 2),
            uint("protocol", shift + 96, 1),
            Field("ip_size", shift + 98, 2, Kind.UINT_BE),
            uint("rules_hit", shift + 100),
            Field("rule_ids", shift + 104, 256, Kind.UINTS, 8),
            uint("flags", shift + 360, 8),
        ),
        "struct cali_tc_state, types.h",
    )


_QOS_VALUE = Layout(
    24,
    (
        Field("packet_rate", 4, 2, Kind.INT),
        Field("packet_burst", 6, 2, Kind.INT),
        Field("tokens", 8, 2, Kind.INT),
        uint("last_update", 16, 8),
    ),
    "struct calico_qos_val (behind a bpf_spin_lock), qos.h",
)
_QOS_FAMILY_KEY = Layout(
    8, (uint("ifindex", 0), uint("ingress", 4, 2), uint("family", 6, 2)), "struct calico_qos_key, qos.h"
)


def _programs(role: Role, base: str, version: int, size: int, releases: str) -> MapLayout:
    return MapLayout(role, 0, base, version, ("prog_array",), INDEX, PROGRAM, releases, size=size)


PROGRAM_SLOTS = 400
JUMP_SLOTS = 240_000
"""10,000 entry points, each with up to 23 sub-programs 10,000 apart (felix/bpf/jump/map.go)."""
XDP_JUMP_SLOTS = 2_400
TC_STRIDE, XDP_STRIDE = 10_000, 100
"""Distance between the sub-programs of a policy in its jump map (felix/bpf/jump/map.go, TCMaxEntryPoints)."""
SUBPROGRAMS = 24
"""Programs a policy can be split into."""

_JOINT, _SPLIT = "v3.28 to v3.31.2", "v3.31.3 to master"

MAPS = (
    MapLayout(
        Role.INTERFACES,
        0,
        "cali_iface",
        4,
        ("hash",),
        Layout(4, (uint("ifindex", 0),), "__u32, ifstate.h"),
        _INTERFACE,
        EVER,
        NO_PREALLOC,
        1000,
    ),
    *(
        MapLayout(
            Role.COUNTERS,
            0,
            "cali_counters",
            version,
            ("percpu_hash",),
            _COUNTERS_KEY,
            Layout(8 * cells, (Field("cells", 0, 8 * cells, Kind.UINTS, 8),), "counters_t, counters.h"),
            releases,
            size=20000,
        )
        for version, cells, releases in COUNTER_CELLS
    ),
    MapLayout(
        Role.RULE_COUNTERS,
        0,
        "cali_rule_ctrs",
        2,
        ("percpu_hash",),
        Layout(8, (uint("rule_id", 0, 8),), "__u64, rule_counters.h"),
        Layout(8, (uint("packets", 0, 8),), "__u64, rule_counters.h"),
        EVER,
        size=10000,
    ),
    *(
        MapLayout(Role.STATE, 0, "cali_state", version, ("percpu_array",), INDEX, _state(size), releases, size=2)
        for version, size, releases in STATE_SIZES
    ),
    MapLayout(
        Role.PROFILING,
        0,
        "cali_profiling",
        2,
        ("percpu_hash",),
        Layout(8, (uint("ifindex", 0), uint("kind", 4)), "struct prof_key, profiling.h"),
        Layout(16, (uint("nanoseconds", 0, 8), uint("samples", 8, 8)), "struct prof_val, profiling.h"),
        "v3.30 to master",
        size=20000,
    ),
    MapLayout(
        Role.QOS,
        0,
        "cali_qos",
        0,
        ("hash",),
        Layout(8, (uint("ifindex", 0), uint("ingress", 4)), "struct calico_qos_key, qos.h"),
        _QOS_VALUE,
        "v3.31 and v3.32",
        NO_PREALLOC,
        2000,
    ),
    MapLayout(Role.QOS, 0, "cali_qos", 2, ("hash",), _QOS_FAMILY_KEY, _QOS_VALUE, "master", NO_PREALLOC, 4000),
    MapLayout(
        Role.QOS_CONNECTIONS,
        0,
        "cali_qos_conn",
        1,
        ("hash",),
        _QOS_FAMILY_KEY,
        Layout(12, (uint("limit", 4), uint("count", 8)), "struct calico_qos_conn_val (behind a bpf_spin_lock), qos.h"),
        "master",
        NO_PREALLOC,
        4000,
    ),
    _programs(Role.PROGRAMS, "cali_progs", 3, PROGRAM_SLOTS, _JOINT),
    _programs(Role.PROGRAMS_INGRESS, "cali_progs_ing", 2, PROGRAM_SLOTS, _SPLIT),
    _programs(Role.PROGRAMS_EGRESS, "cali_progs_egr", 2, PROGRAM_SLOTS, _SPLIT),
    _programs(Role.NETKIT_PROGRAMS_INGRESS, "cali_p_nk_ing", 2, PROGRAM_SLOTS, "master"),
    _programs(Role.NETKIT_PROGRAMS_EGRESS, "cali_p_nk_egr", 2, PROGRAM_SLOTS, "master"),
    _programs(Role.JUMPS, "cali_jump", 3, JUMP_SLOTS, _JOINT),
    _programs(Role.JUMPS_INGRESS, "cali_jump_ing", 2, JUMP_SLOTS, _SPLIT),
    _programs(Role.JUMPS_EGRESS, "cali_jump_egr", 2, JUMP_SLOTS, _SPLIT),
    _programs(Role.NETKIT_JUMPS_INGRESS, "cali_j_nk_ing", 2, JUMP_SLOTS, "master"),
    _programs(Role.NETKIT_JUMPS_EGRESS, "cali_j_nk_egr", 2, JUMP_SLOTS, "master"),
    _programs(Role.XDP_PROGRAMS, "xdp_cali_progs", 3, PROGRAM_SLOTS, EVER),
    _programs(Role.XDP_JUMPS, "xdp_cali_jump", 3, XDP_JUMP_SLOTS, EVER),
    _programs(Role.CONNECT_PROGRAMS, "cali_ctlb_conn", 0, 1, EVER),
    _programs(Role.SENDMSG_PROGRAMS, "cali_ctlb_send", 0, 1, EVER),
    _programs(Role.RECVMSG_PROGRAMS, "cali_ctlb_recv", 0, 1, EVER),
    MapLayout(
        Role.EVENTS,
        0,
        "cali_perf_evnt",
        0,
        ("perf_event_array",),
        INDEX,
        Layout(4, (uint("descriptor", 0),), "__u32, perf_types.h"),
        "v3.30 to v3.32",
        size=512,
    ),
    MapLayout(
        Role.EVENT_DROPS,
        0,
        "cali_rb_drops",
        0,
        ("array",),
        INDEX,
        Layout(16, (uint("count", 0, 8), uint("last_flush", 8, 8)), "struct rb_drops_val, ringbuf.h"),
        "master",
        size=1,
    ),
)
