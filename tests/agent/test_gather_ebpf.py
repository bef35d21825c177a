"""The witnesses on eBPF nodes: what can be counted there, and that packets are not traced."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from calico_debug.agent.gather import _no_trace, _program_interfaces
from calico_debug.agent.watch import Watch, read
from calico_debug.cli.environment import Question
from calico_debug.cli.tracer import EvidenceTracer
from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.counted import counted, places
from calico_debug.model.observation import RulePlace
from calico_debug.state.node import NodeState
from tests.evidence.bpf_node import BpfNode
from tests.evidence.memory import MemoryNode
from tests.explain.observations import DENIED, probes

RECORDING = Path("tests/data/v3.32.1-bpf.tar.xz")
COUNTERS = "cali_rule_ctrs2"


@pytest.fixture
def node() -> MemoryNode:
    made = BpfNode({COUNTERS: [({"rule_id": 255}, {"packets": 7})]})
    number = made.add_map(COUNTERS)
    for program in made.programs:
        if program["name"].startswith("p4"):
            program["map_ids"].append(number)
    made.files["ip-link.json"] = json.dumps([{"ifindex": 3, "ifname": "cali1"}])
    made.files["nft-ruleset.json"] = '{"nftables": []}'
    return made.evidence()


def test_a_rule_that_no_packet_met_has_counted_none(node: MemoryNode) -> None:
    met, other = RulePlace(rule_id=f"{255:016x}"), RulePlace(rule_id=f"{254:016x}")
    assert {place: reading.packets for place, reading in read(node, [met, other]).items()} == {met: 7, other: 0}


def test_programs_are_not_traced_and_their_interfaces_are_watched(node: MemoryNode) -> None:
    state = NodeState(node)
    assert "eBPF programs" in _no_trace(state, DENIED)
    here = replace(DENIED, source=replace(DENIED.source, node=node.name))
    assert _program_interfaces(state, here) == ("cali1",)


def test_counters_of_a_recorded_node_stand_still() -> None:
    """A recording read twice: the rule's counter is found, and it did not move."""
    source = open_bundle(str(RECORDING))
    explanation = EvidenceTracer(source).trace(Question("client/client-5f8b", "svc/management-ui/management-ui"))
    assert explanation.decision is not None
    assert explanation.decision.dataplane == "ebpf"
    where = explanation.decision.node
    assert all(place.rule_id for place in places(explanation, where))
    watched = Watch(source.node(where), places(explanation, where), ["not-there"]).finish()
    assert set(watched.before) == set(places(explanation, where))
    witness, findings = counted(explanation, where, watched, None, probes(2))
    assert "which counts for the whole node, did not move" in witness.detail
    assert [finding.code for finding in findings] == ["witness-dissents"]
