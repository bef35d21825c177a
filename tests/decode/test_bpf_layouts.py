"""The tables of Calico's maps: complete, consistent, and the same as what the kernel's type information says."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calico_debug.decode.bpf_layout_types import MapLayout, Role
from calico_debug.decode.bpf_layouts import BY_NAME, LAYOUTS, find_layout, identify, is_calico, versions
from calico_debug.decode.bpf_maps import BUILDERS
from calico_debug.model.bpf_objects import MapInfo
from calico_debug.model.bpf_words import LEG_BITS
from tests.decode.bpf_samples import draw
from tests.evidence.memory import recorded_bundles

# Sizes of keys and values, felix/bpf-gpl and felix/bpf of the tags v3.28.0 to v3.32.1 and master.
SIZES = {
    "cali_v4_ct4": (16, 88),
    "cali_v6_ct4": (40, 128),
    "cali_v4_ct3": (16, 88),
    "cali_v6_ct3": (40, 128),
    "cali_v4_ccq": (16, 16),
    "cali_v4_ccq2": (16, 32),
    "cali_v6_ccq2": (40, 56),
    "cali_v4_nat_fe3": (16, 20),
    "cali_v6_nat_fe3": (40, 20),
    "cali_v4_nat_be": (8, 8),
    "cali_v6_nat_be": (8, 20),
    "cali_v4_nat_aff": (16, 16),
    "cali_v6_nat_aff": (40, 32),
    "cali_v4_mglv2": (8, 8),
    "cali_v6_mglv2": (8, 20),
    "cali_v4_routes": (8, 8),
    "cali_v6_routes": (20, 20),
    "cali_v4_ip_sets": (20, 4),
    "cali_v6_ip_sets": (32, 4),
    "cali_v4_sprefix": (12, 4),
    "cali_v6_sprefix": (24, 4),
    "cali_v4_arp2": (8, 12),
    "cali_v6_arp2": (20, 12),
    "cali_v4_fsafes2": (12, 4),
    "cali_v6_fsafes2": (24, 4),
    "cali_v4_srmsg": (16, 8),
    "cali_v6_srmsg": (32, 20),
    "cali_v4_ct_nats": (24, 8),
    "cali_v6_ct_nats": (32, 20),
    "cali_v4_frags2": (12, 1512),
    "cali_v4_frgtmp2": (4, 1512),
    "cali_v4_frgfwd2": (16, 4),
    "cali_v4_frgfwd3": (16, 8),
    "cali_v4_frgfwd4": (16, 32),
    "cali_state6": (4, 512),
    "cali_iface4": (4, 52),
    "cali_counters2": (8, 112),
    "cali_counters3": (8, 136),
    "cali_counters5": (8, 200),
    "cali_rule_ctrs2": (8, 8),
    "cali_profiling2": (8, 16),
    "cali_qos": (8, 24),
    "cali_qos2": (8, 24),
    "cali_qos_conn": (8, 12),
    "cali_jump_ing2": (4, 4),
    "cali_rb_drops": (4, 16),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    (layout,) = BY_NAME[name]
    assert (layout.key.size, layout.value.size) == SIZES[name]


def test_counters_and_state_grew_under_one_name() -> None:
    assert [layout.value.size for layout in BY_NAME["cali_counters6"]] == [26 * 8, 27 * 8]
    assert [layout.value.size for layout in BY_NAME["cali_state4"]] == [480, 488]


def test_every_role_has_layouts_and_a_type() -> None:
    assert {layout.role for layout in LAYOUTS} == set(Role) == set(BUILDERS)
    assert all(len(layout.name) <= 15 for layout in LAYOUTS)  # the kernel keeps no more
    assert all(layout.releases and layout.key.source and layout.value.source for layout in LAYOUTS)


def test_names_and_versions() -> None:
    assert identify("cali_v4_ct4") == (Role.CONNTRACK, 4, 4)
    assert identify("cali_v6_ct9") == (Role.CONNTRACK, 6, 9)
    assert identify("cali_v4_ct_nats") == (Role.CONNECT_NAT, 4, 0)
    assert identify("cali_qos_conn") == (Role.QOS_CONNECTIONS, 0, 1)
    assert identify("cali_jump_ing") == (Role.JUMPS_INGRESS, 0, 0)
    assert identify("cali_v4_novelty2") is None
    assert identify("") is None
    assert [layout.name for layout in versions(Role.CONNTRACK, 4)] == ["cali_v4_ct3", "cali_v4_ct4"]
    assert is_calico("cali_v4_novelty2")
    assert is_calico("xdp_cali_jump3")
    assert not is_calico("tc_pream.rodata")
    assert not is_calico("cali_tc_.rodata")


@pytest.mark.parametrize(
    ("name", "sizes", "why"),
    [
        ("cali_v4_ct5", (16, 96), "is version 5 of a map of which cali_v4_ct3, cali_v4_ct4 are known"),
        ("cali_v4_ct4", (16, 96), r"has keys of 16 and values of 96 bytes instead of 16 and 88 \(v3.31 to master\)"),
        ("cali_counters6", (8, 224), "instead of 8 and 208 .v3.32.0. or 8 and 216"),
        ("cali_v4_novelty", (4, 4), "is not known"),
    ],
)
def test_unknown_maps_say_why(name: str, sizes: tuple[int, int], why: str) -> None:
    found = find_layout(MapInfo(1, name, "hash", *sizes))
    assert isinstance(found, str)
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(found)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda x: f"{x.name}-{x.value.size}")
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_round_trip(layout: MapLayout, seed: int) -> None:
    rng = random.Random(seed)
    for struct_layout in (layout.key, layout.value):
        values = draw(struct_layout, rng)
        assert struct_layout.unpack(struct_layout.pack(values)) == values


# ---------------------------------------------------------------------- the kernel's type information as the oracle

BTF_NAMES: Mapping[str, str] = {
    "prefixlen": "prefix_length",
    "mask": "prefix_length",
    "addr": "address",
    "saddr": "source",
    "ip": "address",
    "id": "service_id",
    "local": "local_count",
    "affinity_timeo": "affinity_timeout",
    "ip_proto": "protocol",
    "mac_src": "source_mac",
    "mac_dst": "destination_mac",
    "addr_a": "address_a",
    "addr_b": "address_b",
    "tun_ip": "tunnel_ip",
    "orig_ip": "original_ip",
    "orig_port": "original_port",
    "orig_sport": "original_source_port",
    "orig_sip": "original_source_ip",
    "nat_sport": "nat_source_port",
    "flags2": "flags_8",
    "flags3": "flags_16",
    "flags4": "flags_24",
    "tc_filter_ingress": "ingress_filter",
    "tc_filter_egress": "egress_filter",
    "next_hop": "next_hop_or_ifindex",
    "seqno": "sequence",
}
BTF_ROLE: Mapping[tuple[Role, str], str] = {(Role.CONNTRACK, "flags"): "flags_0"}
PADDING = frozenset({"pad", "pad0", "pad1", "pad2", "__pad", "unused"})


def keep_all(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Both halves of a union, which bpftool prints under the same empty name."""
    merged: dict[str, Any] = {}
    for key, value in pairs:
        if key in merged and isinstance(value, dict):
            merged[key] = {**merged[key], **value}
        else:
            merged[key] = value
    return merged


def leaves(formatted: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in formatted.items():
        if name in PADDING or name.startswith("pad"):
            continue
        if name == "":
            yield from leaves(value, prefix)
        elif name in ("a_to_b", "b_to_a"):
            yield from leaves(value, f"{name}_")
        elif name == "nat_rev_key":
            yield from leaves(value, "reverse_")
        else:
            yield f"{prefix}{BTF_NAMES.get(name, name)}", value


def as_printed(name: str, ours: Any) -> Any:
    """Our value as bpftool prints the C type."""
    if name == "set_id":
        return int.from_bytes(ours.to_bytes(8, "big"), "little")
    if name.endswith("sequence"):
        return int.from_bytes(ours.to_bytes(4, "big"), "little")
    if name.endswith("_mac"):
        return [byte - 256 if byte > 127 else byte for byte in bytes.fromhex(ours.replace(":", ""))]
    packed = ours if isinstance(ours, bytes) else getattr(ours, "packed", None)
    if packed is None:
        return ours
    if len(packed) == 4:
        return int.from_bytes(packed, "little")
    return dict(zip("abcd", struct.unpack("<4I", packed), strict=True))


def recorded_dumps() -> Iterator[tuple[Path, MapLayout]]:
    for bundle in recorded_bundles():
        for path in sorted(bundle.glob("nodes/*/bpf/map-*.json")):
            layouts = BY_NAME.get(path.stem.removeprefix("map-"), ())
            if layouts:
                yield path, layouts[-1]


def test_recorded_entries_are_what_the_type_information_says() -> None:
    compared: dict[Role, int] = {}
    for path, layout in recorded_dumps():
        for entry in json.loads(path.read_bytes(), object_pairs_hook=keep_all):
            if "formatted" not in entry or "values" in entry:
                continue
            for part, table in (("key", layout.key), ("value", layout.value)):
                printed = entry["formatted"][part]
                ours = table.unpack(bytes(int(byte, 16) for byte in entry[part]))
                if not isinstance(printed, dict):
                    assert list(ours.values()) == [printed]
                    continue
                for name, value in leaves(printed):
                    if name.rpartition("_")[2] in ("seen", "approved", "opener", "workload") and name[0] in "ab":
                        leg, bit = name[:6], name[7:].replace("_", "-")
                        if f"{leg}_bits" in ours:
                            assert bool(ours[f"{leg}_bits"] & LEG_BITS[bit]) == bool(int(value, 16)), (path, name)
                        continue
                    field = BTF_ROLE.get((layout.role, name), name)
                    if field not in ours:
                        # The other half of conntrack's union.
                        assert layout.role is Role.CONNTRACK, (path, field)
                        continue
                    assert as_printed(field, ours[field]) == value, (path, field)
                    compared[layout.role] = compared.get(layout.role, 0) + 1
    assert compared[Role.CONNTRACK] > 2000
    assert set(compared) >= {Role.CONNTRACK, Role.NAT_FRONTENDS, Role.NAT_BACKENDS, Role.ROUTES, Role.IP_SETS}
    assert set(compared) >= {Role.FAILSAFES, Role.ARP, Role.INTERFACES}
