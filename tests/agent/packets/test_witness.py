"""Tracepoints as the third witness."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from calico_debug.agent.evidence import LiveSource
from calico_debug.agent.packets.tally import OBSERVATION, TALLY
from calico_debug.agent.packets.witness import PacketWitness
from calico_debug.cli.environment import Question
from calico_debug.cli.tracer import EvidenceTracer
from calico_debug.explain.packet_story import flow_ends
from calico_debug.state.node import NodeState
from tests.agent.packets.conftest import end_unread
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


def test_what_a_closed_socket_did_not_read_is_no_drop_on_the_way(lab: Lab) -> None:
    """The end of the connection comes to a client that closed its socket before, and nobody reads it."""
    source, target = lab.topology.address("red/web1"), lab.topology.address("blue/db1")
    with namespaces.entered(lab.namespace("blue/db1")):
        server = socket.create_server((target, 8079))
    with namespaces.entered(lab.namespace("node1")):
        live = LiveSource("node1")
        explanation = EvidenceTracer(live).trace(Question(source, f"{target}:8079", "tcp"))
        witness = PacketWitness(NodeState(live.node("node1")), flow_ends(explanation), 1).__enter__()
    try:
        end_unread(lab, "red/web1", server)
        told = witness.finish()
    finally:
        witness.__exit__()
        server.close()
    assert told.verdict == explanation.verdict == "allowed"
    assert "dropped" not in told.detail


def test_a_source_that_is_not_the_pods(lab: Lab) -> None:
    target, sender = lab.topology.address("red/web1"), lab.namespace("blue/db1")
    with namespaces.entered(lab.namespace("node1")):
        live = LiveSource("node1")
        explanation = EvidenceTracer(live).trace(Question("10.9.9.9", f"{target}:80", "tcp"))
        witness = PacketWitness(NodeState(live.node("node1")), flow_ends(explanation), 0.5).__enter__()
    namespaces.ip(sender, ["addr add 10.9.9.9/32 dev eth0"])
    try:
        lab.send(replace(lab.flow("blue/db1", "red/web1", "tcp", 80), source_address="10.9.9.9"))
        told = witness.finish()
    finally:
        witness.__exit__()
        namespaces.ip(sender, ["addr del 10.9.9.9/32 dev eth0"])
    assert told.verdict == "denied"
    assert "its source is no address of the pod behind cali" in told.detail
