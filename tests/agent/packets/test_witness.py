"""Tracepoints as the third witness."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from calico_debug.agent.evidence import LiveSource
from calico_debug.agent.packets.tally import OBSERVATION, TALLY
from calico_debug.agent.packets.witness import PacketWitness
from calico_debug.cli.environment import Question
from calico_debug.cli.tracer import EvidenceTracer
from calico_debug.explain.packet_story import flow_ends
from calico_debug.state.node import NodeState
from tests.lab import namespaces

if TYPE_CHECKING:
    from tests.lab.lab import Lab

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    ("source", "protocol", "port", "verdict"),
    [("blue/db1", "udp", 53, "denied"), ("red/cli1", "tcp", 80, "allowed")],
)
def test_what_became_of_a_flow(lab: Lab, source: str, protocol: str, port: int, verdict: str) -> None:
    target = lab.topology.address("red/web1")
    before = TALLY.totals()[OBSERVATION].matched
    with namespaces.entered(lab.namespace("node1")):
        live = LiveSource("node1")
        explanation = EvidenceTracer(live).trace(Question(lab.topology.address(source), f"{target}:{port}", protocol))
        witness = PacketWitness(NodeState(live.node("node1")), flow_ends(explanation), 0.5).__enter__()
    try:
        assert lab.send(lab.flow(source, "red/web1", protocol, port)).verdict == verdict
        told = witness.finish()
    finally:
        witness.__exit__()
    assert (told.verdict, told.node) == (verdict, "node1")
    assert TALLY.totals()[OBSERVATION].matched > before
    assert ("the pod behind" in told.detail) == (verdict == "allowed")
