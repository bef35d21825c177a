"""An eBPF node's state: maps by what programs use, and everything that can be odd about it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from calico_debug.decode.bpf_layout_types import Role
from calico_debug.errors import EvidenceError, MissingEvidence
from calico_debug.model.bpf import BpfRoute, RouteTarget
from calico_debug.model.bpf_nat import NatBackend
from calico_debug.model.bpf_objects import MapInfo
from calico_debug.state.bpf import BpfState
from tests.evidence.bpf_node import POD, BpfNode

A = ip_address
ROUTE = ({"prefix_length": 32, "address": A("10.0.0.9")}, {"flags": 0xF, "next_hop_or_ifindex": b"\x03\0\0\0"})


def codes(state: BpfState) -> list[str]:
    state.check_maps()
    return [finding.code for finding in state.findings]


def test_a_healthy_node() -> None:
    node = BpfNode({"cali_v4_routes": [ROUTE]})
    evidence = node.evidence()
    state = BpfState(evidence)
    assert evidence.reads == []
    assert [(one.interface, one.hook, one.name) for one in state.attachments] == [
        (POD, "ingress", "cali_tc_preambl"),
        (POD, "egress", "cali_tc_preambl"),
    ]
    chosen = state.map(Role.ROUTES, 4)
    assert chosen is not None
    assert (chosen.info.name, chosen.layout.name, chosen.used) == ("cali_v4_routes", "cali_v4_routes", True)
    assert list(state.entries(Role.ROUTES, 4)) == [BpfRoute(ip_network("10.0.0.9/32"), RouteTarget(0xF, ifindex=3))]
    assert state.map(Role.ROUTES, 6) is None
    assert list(state.entries(Role.ROUTES, 6)) == []
    assert state.entry(Role.NAT_BACKENDS, 4, bytes(8)) is None
    assert codes(state) == []


def test_policies_are_found_along_the_jump_maps() -> None:
    node = BpfNode()
    node.slots["cali_jump_egr2"] = {5: 31, 10_005: 32, 30_005: 33}
    node.programs += [node.program(32, "p4I_cali1_1", []), node.program(33, "stray", [])]
    state = BpfState(node.evidence())
    ingress, egress = (state.reach.policy(one, 4) for one in state.calico_attachments(POD))
    assert (ingress.index, ingress.programs) == (5, (30,))
    assert egress.programs == (31, 32)
    assert state.reach.families(ingress.attachment) == (4,)
    assert state.reach.policy(ingress.attachment, 6).index is None


@pytest.mark.parametrize(("name", "word"), [("calico_tc_deny", "deny"), ("calico_tc_allow", "allow")])
def test_a_placeholder_instead_of_a_policy(name: str, word: str) -> None:
    node = BpfNode()
    node.programs[4] = node.program(30, name, [])
    state = BpfState(node.evidence())
    assert state.reach.policy(state.attachments[0], 4).placeholder == word


def test_an_empty_slot() -> None:
    node = BpfNode()
    node.slots["cali_jump_ing2"] = {}
    state = BpfState(node.evidence())
    policy = state.reach.policy(state.attachments[0], 4)
    assert (policy.index, policy.programs, policy.placeholder) == (5, (), "")


@pytest.mark.parametrize("file", ["bpf/rodata-201.json", "bpf/map-cali_jump_ing2.json"])
def test_a_slot_that_cannot_be_read_is_not_an_empty_one(file: str) -> None:
    node = BpfNode()
    node.files[file] = "absent"
    state = BpfState(node.evidence())
    policy = state.reach.policy(state.attachments[0], 4)
    assert policy.programs == ()
    assert file.partition("-")[2] in policy.problem or "rodata" in policy.problem
    assert state.reach.families(policy.attachment) == (4,)


def test_a_part_that_cannot_be_read_is_not_the_end_of_a_policy() -> None:
    node = BpfNode()
    state = BpfState(node.evidence())
    lookup = state.kernel.lookup

    def one_fails(info: MapInfo, key: bytes) -> bytes | None:
        if info.name == "cali_jump_ing2" and int.from_bytes(key, "little") == 10_005:
            raise EvidenceError("the kernel refused")
        return lookup(info, key)

    state.kernel.lookup = one_fails  # type: ignore[method-assign]
    policy = state.reach.policy(state.attachments[0], 4)
    assert (policy.programs, policy.problem) == ((), "the kernel refused")


def test_the_map_in_use_counts_not_the_newest_and_not_the_pin() -> None:
    node = BpfNode()
    backend = ({"service_id": 1, "ordinal": 0}, {"address": A("10.0.0.9"), "port": 80})
    node.entries["cali_v4_nat_be"] = [backend]
    used = node.ids["cali_v4_nat_be"]
    node.maps.append(MapInfo(900, "cali_v4_nat_be", "hash", 8, 8))
    node.maps.append(MapInfo(901, "cali_v4_ct5", "lru_hash", 16, 96))
    state = BpfState(node.evidence())
    chosen = state.map(Role.NAT_BACKENDS, 4)
    assert chosen is not None
    assert chosen.info.id == used
    assert list(state.entries(Role.NAT_BACKENDS, 4)) == [NatBackend(1, 0, A("10.0.0.9"), 80)]
    conntrack = state.map(Role.CONNTRACK, 4)
    assert conntrack is not None
    assert conntrack.info.name == "cali_v4_ct4"
    assert codes(state) == []


def test_a_map_that_nothing_uses_is_taken_from_its_pin() -> None:
    node = BpfNode()
    node.add_map("cali_v4_nat_aff")
    state = BpfState(node.evidence())
    assert state.map(Role.NAT_AFFINITY, 4) is None  # listed, but another node's: this one has no pin
    node.files["bpf/pins.txt"] = "/sys/fs/bpf/tc/globals/cali_v4_nat_aff\n"
    chosen = BpfState(node.evidence()).map(Role.NAT_AFFINITY, 4)
    assert chosen is not None
    assert not chosen.used


def test_an_unknown_version_is_a_finding_and_the_rest_works() -> None:
    node = BpfNode({"cali_v4_routes": [ROUTE]})
    place = next(i for i, info in enumerate(node.maps) if info.name == "cali_v4_ct4")
    node.maps[place] = MapInfo(node.maps[place].id, "cali_v4_ct5", "lru_hash", 16, 96)
    state = BpfState(node.evidence())
    assert state.map(Role.CONNTRACK, 4) is None
    assert len(list(state.entries(Role.ROUTES, 4))) == 1
    (finding,) = state.findings
    assert finding.code == "bpf-unknown-map"
    assert "map cali_v4_ct5 of n1 is version 5 of a map of which cali_v4_ct3, cali_v4_ct4 are known" in finding.message


def test_entries_that_cannot_be_decoded_are_one_finding() -> None:
    bad = ({"prefix_length": 99, "address": A("10.0.0.9")}, {})
    node = BpfNode({"cali_v4_routes": [ROUTE, bad]})
    state = BpfState(node.evidence())
    assert len(list(state.entries(Role.ROUTES, 4))) == 1
    assert [finding.code for finding in state.findings] == ["bpf-unknown-entries"]
    assert "1 entries of map cali_v4_routes on n1" in state.findings[0].message


@pytest.mark.parametrize(
    ("pin", "code"),
    [
        ("/sys/fs/bpf/tc/globals/cali_v4_ct3", "bpf-leftover-map"),
        ("/sys/fs/bpf/tc/globals/cali_v4_ct4_old", "bpf-map-migration"),
        ("/sys/fs/bpf/tc/globals/old_jumps/17/cali_jump_ing2", "bpf-old-programs"),
    ],
)
def test_odd_pins(pin: str, code: str) -> None:
    node = BpfNode()
    node.files["bpf/pins.txt"] = f"{node.files['bpf/pins.txt']!s}{pin}\n"
    assert codes(BpfState(node.evidence())) == [code]


def test_interfaces_on_old_and_new_maps_at_once() -> None:
    node = BpfNode()
    old = node.ids["cali_v4_routes"]
    new = node.add_map("cali_v4_routes", 950)
    node.programs[3]["map_ids"] = [new if number == old else number for number in node.programs[3]["map_ids"]]
    state = BpfState(node.evidence())
    chosen = state.map(Role.ROUTES, 4)
    assert chosen is not None
    assert chosen.info.id == 950
    assert codes(state) == ["bpf-several-maps"]


def test_attachments_of_clsact_cgroups_and_foreign_programs() -> None:
    node = BpfNode()
    node.tcx = [node.hook("tcx/ingress", 77, 10)]
    node.programs.append(node.program(77, "cilium_x", []))
    node.files["bpf/net-show.json"] = (
        '[{"xdp":[],"tc":[{"devname":"cali1","ifindex":3,"kind":"clsact/egress","name":"cali_tc_preambl","id":11}]}]'
    )
    node.files["bpf/link-show.json"] = '[{"id":5,"type":11,"prog_id":10}]'
    state = BpfState(node.evidence())
    assert [(one.mechanism, one.hook, one.program_id, one.link_id, one.position) for one in state.attachments] == [
        ("tcx", "ingress", 77, None, 0),
        ("tcx", "ingress", 10, 5, 1),
        ("clsact", "egress", 11, None, 0),
    ]
    assert [one.program_id for one in state.calico_attachments(POD)] == [10, 11]


def test_missing_listings() -> None:
    node = BpfNode()
    node.files["bpf/tcx-query.json"] = "absent"
    node.files["bpf/net-show.json"] = (
        '[{"tc":[{"devname":"cali1","ifindex":3,"kind":"clsact/egress","name":"cali_tc_preambl","id":11}]}]'
    )
    state = BpfState(node.evidence())
    assert len(state.attachments) == 1
    assert [finding.code for finding in state.findings] == ["bpf-attachments-incomplete"]
    for file in ("bpf/net-show.json", "bpf/cgroup-tree.json"):
        node.files[file] = "absent"
    with pytest.raises(MissingEvidence, match=r"bpf/tcx-query\.json"):
        _ = BpfState(node.evidence()).attachments
    node.files["bpf/map-show.json"] = "absent"
    with pytest.raises(MissingEvidence, match=r"bpf/map-show\.json"):
        BpfState(node.evidence()).map(Role.ROUTES, 4)


def test_truncated_listings_are_an_error() -> None:
    node = BpfNode()
    node.files["bpf/prog-show.json"] = '[{"id": 1'
    with pytest.raises(EvidenceError, match="not complete JSON"):
        _ = BpfState(node.evidence()).programs


def test_settings_that_cannot_be_read_are_findings() -> None:
    node = BpfNode()
    node.maps = [info for info in node.maps if info.id != 202]
    node.maps.append(MapInfo(202, "eg.rodata", "array", 4, 300, 1))
    node.settings[202] = bytes(300)
    state = BpfState(node.evidence())
    assert state.map(Role.ROUTES, 4) is not None
    assert [finding.code for finding in state.findings] == ["bpf-unreadable"]
    assert "settings of program 11 cannot be read: a preamble's settings have 300 bytes" in state.findings[0].message


def test_a_map_by_the_id_an_instruction_names() -> None:
    node = BpfNode({"cali_v4_routes": [ROUTE]})
    state = BpfState(node.evidence())
    key = (32).to_bytes(4, "little") + A("10.0.0.9").packed
    assert state.lookup(node.ids["cali_v4_routes"], key) == bytes.fromhex("0f00000003000000")
    with pytest.raises(MissingEvidence, match="map 4711"):
        state.lookup(4711, key)
    with pytest.raises(EvidenceError, match="a key of 3 bytes"):
        state.lookup(node.ids["cali_v4_routes"], b"abc")
