from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from calico_debug.errors import EvidenceError
from calico_debug.state.dataplane import EBPF, IPTABLES, IPTABLES_CHAIN, NFTABLES, rules_dataplane
from calico_debug.state.node import NodeState
from calico_debug.state.ruleset import RecordedRuleset
from tests.evidence.bpf_node import POD, BpfNode
from tests.evidence.memory import MemoryNode
from tests.explain.rules import Chains, ruleset
from tests.recordings import DATA, Recording

CALICO: Mapping[str, Chains] = {"ip calico": {"filter-cali-from-wl-dispatch": ["drop"]}}
IPTABLES_TABLE: Mapping[str, Chains] = {"ip filter": {IPTABLES_CHAIN: ["drop"]}}
EBPF_TABLE: Mapping[str, Chains] = {"ip filter": {"cali-FORWARD": ["drop"]}}
OWN: Mapping[str, Chains] = {"ip mine": {IPTABLES_CHAIN: ["drop"]}}


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        (CALICO, NFTABLES),
        ({"ip6 calico": CALICO["ip calico"]}, NFTABLES),
        (IPTABLES_TABLE, IPTABLES),
        (EBPF_TABLE, ""),
        (OWN, ""),
        ({"ip calico": {"filter-FORWARD": ["drop"]}}, ""),
        ({}, ""),
    ],
)
def test_by_the_chains_of_endpoints(tables: Mapping[str, Chains], expected: str) -> None:
    assert rules_dataplane(RecordedRuleset.read(ruleset(tables).encode(), "rules")) == expected


def node(tables: Mapping[str, Chains], **files: bytes | str) -> NodeState:
    return NodeState(MemoryNode({"nft-ruleset.json": ruleset(tables), **files}))


def with_programs(tables: Mapping[str, Chains], made: BpfNode) -> NodeState:
    evidence = made.evidence()
    return node(tables, **{file: evidence.read(file) for file in evidence.files()})


def test_programs_of_calico_tell_ebpf() -> None:
    assert with_programs({}, BpfNode()).dataplane == EBPF
    assert with_programs(EBPF_TABLE, BpfNode()).dataplane == EBPF
    assert with_programs({"ip calico": {"filter-FORWARD": ["drop"]}}, BpfNode()).dataplane == EBPF


def test_programs_at_interfaces_come_before_rules_of_endpoints() -> None:
    """Packets meet them first, whichever of the two is what another mode has left: as Felix v3.32.1 leaves table ip6
    calico, where IPv6 is turned off with nftables mode.
    """
    assert with_programs(CALICO, BpfNode()).dataplane == EBPF
    assert with_programs({"ip6 calico": CALICO["ip calico"]}, BpfNode()).dataplane == EBPF


def test_programs_elsewhere_do_not() -> None:
    at_xdp = BpfNode()
    at_xdp.tcx = []
    program = {"devname": POD, "ifindex": 3, "mode": "driver", "id": 10}
    at_xdp.files["bpf/net-show.json"] = json.dumps([{"xdp": [program], "tc": []}])
    state = with_programs(CALICO, at_xdp)
    assert {one.mechanism for one in state.bpf.reach.attachments} == {"xdp"}
    assert state.dataplane == NFTABLES
    unpinned = BpfNode()
    unpinned.files["bpf/pins.txt"] = ""
    assert with_programs(CALICO, unpinned).dataplane == NFTABLES, "Felix pins the maps of programs that it keeps"


def test_programs_of_others_tell_nothing() -> None:
    foreign = BpfNode()
    foreign.programs = [foreign.program(10, "cil_from_netdev", []), foreign.program(11, "cil_to_netdev", [])]
    assert with_programs({}, foreign).dataplane == ""


def test_programs_that_cannot_be_read_are_noted() -> None:
    broken = BpfNode()
    broken.files["bpf/prog-show.json"] = "["
    state = with_programs({}, broken)
    assert state.dataplane == ""
    assert any("whether eBPF programs of Calico run is not known" in note for note in state.notes)


def test_a_table_without_endpoints_is_nftables_not_yet_programmed() -> None:
    assert node({"ip calico": {"filter-FORWARD": ["drop"]}}).dataplane == NFTABLES
    assert node({}).dataplane == ""


def test_without_rules_nothing_is_said() -> None:
    with pytest.raises(EvidenceError):
        _ = NodeState(MemoryNode({})).dataplane


@pytest.mark.parametrize(("name", "expected"), [("nft", NFTABLES), ("iptables", IPTABLES), ("bpf", EBPF)])
def test_recorded_nodes(name: str, expected: str) -> None:
    source = Recording(DATA / f"v3.32.1-{name}.tar.xz").source
    for each in source.nodes():
        state = NodeState(source.node(each))
        assert state.dataplane == expected
        assert bool(state.policy_debug_files) is (expected == EBPF)
