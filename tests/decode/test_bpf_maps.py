"""Entries from bytes to types."""

from __future__ import annotations

import random
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode.bpf_layout_types import MapLayout
from calico_debug.decode.bpf_layouts import BY_NAME, LAYOUTS
from calico_debug.decode.bpf_maps import decode_entries, decode_value, sum_per_cpu
from calico_debug.model import bpf, bpf_conntrack, bpf_nat
from calico_debug.model.bpf_objects import MapInfo, RawEntries
from tests.decode.bpf_samples import FILLABLE, IDS, draw_pairs, map_info

A, N = ip_address, ip_network


def decoded(name: str, key: dict[str, Any], value: dict[str, Any]) -> Any:
    layout = BY_NAME[name][-1]
    info = map_info(layout)
    return decode_value(layout, info, layout.key.pack(key), layout.value.pack(value))


KEY = {"protocol": 6, "address_a": A("10.0.0.1"), "address_b": A("10.0.0.2"), "port_a": 40000, "port_b": 80}
LEG_A = {"a_to_b_bytes": 900, "a_to_b_packets": 9, "a_to_b_sequence": 5, "a_to_b_bits": 0x33, "a_to_b_ifindex": 7}
LEG_B = {"b_to_a_bytes": 50, "b_to_a_packets": 2, "b_to_a_sequence": 6, "b_to_a_bits": 0x13}


def test_a_connection_behind_service_nat() -> None:
    entry = decoded(
        "cali_v4_ct4",
        KEY,
        {
            "type": 2,
            "flags_0": 0x1,
            "flags_8": 0x10,
            "flags_16": 0x1,
            "last_seen": 10**12,
            "original_ip": A("10.96.0.9"),
            "original_port": 443,
            "tunnel_ip": A("172.30.0.12"),
            **LEG_A,
            **LEG_B,
        },
    )
    assert entry.key == bpf_conntrack.ConntrackKey(**KEY)
    assert (entry.client, entry.server) == ((A("10.0.0.1"), 40000), (A("10.0.0.2"), 80))
    assert entry.client_leg == bpf_conntrack.Leg(900, 9, 5, 0x33, 7)
    assert entry.client_leg.words == ("syn-seen", "ack-seen", "approved", "opener")
    assert entry.server_leg == bpf_conntrack.Leg(50, 2, 6, 0x13, 0)
    assert entry.flags == 0x11001
    assert entry.flag_words == ("nat-out", "np-remote", "maglev")
    assert (entry.type_word, entry.tcp_state) == ("nat-reverse", "established")
    assert (entry.original_ip, entry.original_port, entry.tunnel_ip) == (A("10.96.0.9"), 443, A("172.30.0.12"))
    assert (entry.rst_seen, entry.created_or_rst_seen, entry.reverse_key) == (0, None, None)


def test_a_connection_that_end_b_opened() -> None:
    entry = decoded("cali_v4_ct4", KEY, {"type": 0, "flags_8": 0x1, **LEG_A, **LEG_B})
    assert entry.client == (A("10.0.0.2"), 80)
    assert entry.client_leg == entry.b_to_a
    assert entry.flag_words == ("B-A",)


def test_an_entry_that_names_another() -> None:
    reverse = {f"reverse_{name}": value for name, value in KEY.items()}
    entry = decoded("cali_v4_ct4", KEY, {"type": 1, "nat_source_port": 9, **reverse})
    assert entry.reverse_key == bpf_conntrack.ConntrackKey(**KEY)
    assert (entry.a_to_b, entry.b_to_a, entry.nat_source_port, entry.tcp_state) == (None, None, 9, "")


def test_version_3_has_a_time_of_two_meanings_and_two_bytes_of_flags() -> None:
    layout = BY_NAME["cali_v6_ct3"][0]
    key = {**KEY, "address_a": A("fd00::1"), "address_b": A("fd00::2")}
    value = bytearray(layout.value.pack({"type": 0, "created_or_rst_seen": 5, "flags_0": 8}))
    value[18] = 0xFF
    entry = decode_value(layout, map_info(layout), layout.key.pack(key), bytes(value))
    assert (entry.flags, entry.rst_seen, entry.created_or_rst_seen) == (8, None, 5)


def test_an_unknown_type_of_entry_has_no_legs() -> None:
    entry = decoded("cali_v4_ct4", KEY, {"type": 7, **LEG_A})
    assert (entry.type_word, entry.client_leg) == ("type 7", None)


def test_services() -> None:
    target = {"service_id": 3, "count": 2, "local_count": 1, "affinity_timeout": 10, "flags": 0x11}
    key = {"prefix_length": 56 + 24, "address": A("10.96.0.1"), "port": 443, "protocol": 6, "source": A("192.0.2.0")}
    frontend = decoded("cali_v4_nat_fe3", key, target)
    assert frontend == bpf_nat.Frontend(A("10.96.0.1"), 443, 6, N("192.0.2.0/24"), 3, 2, 1, 10, 0x11)
    assert frontend.flag_words == ("external-local", "0x10")
    blocked = decoded("cali_v4_nat_fe3", {**key, "prefix_length": 56}, {**target, "count": 0xFFFFFFFF})
    assert blocked.blackhole
    assert blocked.sources == N("192.0.2.0/0", strict=False)
    backend = decoded("cali_v6_nat_be", {"service_id": 3, "ordinal": 1}, {"address": A("fd00::9"), "port": 8080})
    assert backend == bpf_nat.NatBackend(3, 1, A("fd00::9"), 8080)
    key = {"address": A("fd00::a"), "port": 80, "protocol": 17, "client": A("fd00::b")}
    value = {"address": A("fd00::c"), "port": 8080, "last_used": 77}
    affinity = decoded("cali_v6_nat_aff", key, value)
    assert affinity == bpf_nat.Affinity(A("fd00::a"), 80, 17, A("fd00::b"), A("fd00::c"), 8080, 77)


def test_connect_time_ports_are_in_network_order() -> None:
    layout = BY_NAME["cali_v4_ct_nats"][0]
    key = bytes.fromhex("08000000000000000a0000011f9000001100000000000000")
    entry = decode_value(layout, map_info(layout), key, bytes.fromhex("0a60000100500000"))
    assert entry == bpf_nat.SocketService(8, A("10.0.0.1"), 8080, A("10.96.0.1"), 80, 17)


@pytest.mark.parametrize(
    ("flags", "hop", "target"),
    [
        (0xF, "05000000", bpf.RouteTarget(0xF, ifindex=5)),
        (0x7, "ac1e000c", bpf.RouteTarget(0x7, next_hop=A("172.30.0.12"))),
        (0x18, "00000000", bpf.RouteTarget(0x18)),
    ],
)
def test_routes(flags: int, hop: str, target: bpf.RouteTarget) -> None:
    value = {"flags": flags, "next_hop_or_ifindex": bytes.fromhex(hop)}
    route = decoded("cali_v4_routes", {"prefix_length": 16, "address": A("10.244.0.0")}, value)
    assert route == bpf.BpfRoute(N("10.244.0.0/16"), target)
    assert target.has("workload") == bool(flags & 4)


def test_ip_sets_failsafes_and_sources() -> None:
    port = {"prefix_length": 120, "set_id": 2**63, "address": A("10.0.0.9"), "port": 53, "protocol": 17}
    assert decoded("cali_v4_ip_sets", port, {}) == bpf.IpSetMember(2**63, N("10.0.0.9/32"), 53, 17)
    prefix = {"prefix_length": 64 + 24, "set_id": 1, "address": A("10.0.0.0")}
    assert decoded("cali_v4_ip_sets", prefix, {}) == bpf.IpSetMember(1, N("10.0.0.0/24"))
    key = {"prefix_length": 32 + 8, "port": 22, "protocol": 6, "flags": 1, "address": A("10.0.0.0")}
    assert decoded("cali_v4_fsafes2", key, {}) == bpf.Failsafe(6, 22, True, N("10.0.0.0/8"))
    key = {"prefix_length": 32 + 64, "ifindex": 4, "address": A("fd00::")}
    assert decoded("cali_v6_sprefix", key, {}) == bpf.AllowedSource(4, N("fd00::/64"))


def test_interfaces() -> None:
    value = {"flags": 0x403, "name": "cali1", "ingress_policy_v4": 3, "egress_policy_v4": -1, "xdp_policy_v6": 9}
    state = decoded("cali_iface4", {"ifindex": 5}, value)
    assert (state.ifindex, state.name, state.workload) == (5, "cali1", True)
    assert state.flag_words == ("workload", "ipv4-ready", "not-managed")
    assert (state.ready(4), state.ready(6)) == (True, False)
    assert [state.policy_index(hook, 4) for hook in ("ingress", "egress")] == [3, -1]
    assert state.policy_index("xdp", 6) == 9


def test_directions_of_limits_are_the_pods() -> None:
    assert decoded("cali_qos", {"ifindex": 3, "ingress": 1}, {"tokens": -1}).to_pod
    limit = decoded("cali_qos_conn", {"ifindex": 3, "ingress": 0, "family": 6}, {"limit": 5, "count": 2})
    assert limit == bpf.ConnectionLimit(3, False, 6, 5, 2)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("cali_v4_nat_fe3", {"prefix_length": 55}),
        ("cali_v4_nat_fe3", {"prefix_length": 96}),
        ("cali_v4_routes", {"prefix_length": 33}),
        ("cali_v4_ip_sets", {"prefix_length": 63}),
        ("cali_v6_fsafes2", {"prefix_length": 31}),
    ],
)
def test_impossible_prefixes_are_unknown_entries(name: str, key: dict[str, Any]) -> None:
    layout = BY_NAME[name][0]
    raw = RawEntries(layout.key.pack(key), bytes(layout.value.size), 1)
    (entry,) = decode_entries(layout, map_info(layout), [raw])
    assert isinstance(entry, bpf.UnknownEntry)
    with pytest.raises(ValueError, match=r"prefix|netmask|length"):
        decoded(name, key, {})


def test_sums_keep_64_bits_and_wrap_like_the_counters() -> None:
    assert sum_per_cpu((2**40).to_bytes(8, "little") * 3, 8) == (3 * 2**40).to_bytes(8, "little")
    assert sum_per_cpu((2**64 - 1).to_bytes(8, "little") + (2).to_bytes(8, "little"), 8) == (1).to_bytes(8, "little")
    with pytest.raises(ValueError, match="no multiple of 8"):
        sum_per_cpu(bytes(12), 8)


@pytest.mark.parametrize("cpus", [1, 2, 130])
def test_counters_are_summed_over_cpus(cpus: int) -> None:
    layout = BY_NAME["cali_rule_ctrs2"][0]
    pieces = b"".join((2**33 + cpu).to_bytes(8, "little") for cpu in range(cpus))
    raw = RawEntries((99).to_bytes(8, "little"), pieces, 1, cpus)
    assert list(decode_entries(layout, map_info(layout), [raw])) == [(99, cpus * 2**33 + sum(range(cpus)))]


def test_state_is_one_snapshot_for_each_cpu() -> None:
    layout = BY_NAME["cali_state6"][0]
    values = [layout.value.pack({"rules_hit": hits, "policy_result": 1}) for hits in (1, 2)]
    raw = RawEntries(bytes(4), b"".join(values), 1, 2)
    snapshots = list(decode_entries(layout, map_info(layout), [raw]))
    assert [(one.cpu, one.fields["rules_hit"]) for one in snapshots] == [(0, 1), (1, 2)]


@pytest.mark.parametrize("layout", FILLABLE, ids=IDS)
def test_every_layout_gives_typed_entries(layout: MapLayout) -> None:
    info = map_info(layout)
    pairs = draw_pairs(layout, random.Random(3), 30, 2)
    raw = RawEntries(b"".join(pairs), b"".join(pairs.values()), len(pairs), 2 if info.per_cpu else 1)
    entries = list(decode_entries(layout, info, [raw]))
    assert len(entries) >= len(pairs)
    assert not [entry for entry in entries if isinstance(entry, bpf.UnknownEntry)]


@given(st.sampled_from(LAYOUTS), st.data())
def test_any_bytes_decode_or_are_unknown(layout: MapLayout, data: st.DataObject) -> None:
    info = map_info(layout)
    key = data.draw(st.binary(min_size=layout.key.size, max_size=layout.key.size))
    value = data.draw(st.binary(min_size=0, max_size=2 * info.value_stride))
    list(decode_entries(layout, info, [RawEntries(key, value, 1)]))


def test_a_value_of_another_size_is_an_unknown_entry() -> None:
    layout = BY_NAME["cali_v4_nat_be"][0]
    info = MapInfo(1, "cali_v4_nat_be", "hash", 8, 12)
    (entry,) = decode_entries(layout, info, [RawEntries(bytes(8), bytes(12), 1)])
    assert isinstance(entry, bpf.UnknownEntry)
    assert entry.why == "it has 12 bytes instead of 8"
