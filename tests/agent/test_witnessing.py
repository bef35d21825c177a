"""Observing and probing for somebody else, on a real node."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from calico_debug.cli.agent_client import AgentClient
from calico_debug.cli.agent_source import AgentSource
from calico_debug.cli.remote_instruments import RemoteInstruments
from calico_debug.decode.nft_trace_table import PREFIX as TABLE
from calico_debug.errors import EvidenceError, MissingEvidence, UsageError
from calico_debug.evidence.plain import to_plain
from calico_debug.model.explanation import Witness
from calico_debug.model.observation import FlowTuple, Observation
from calico_debug.model.packet_event import Ends
from calico_debug.state.node import NodeState
from tests.agent.packets.conftest import need_observer
from tests.agent.serving import serving
from tests.explain.world import Node
from tests.kernel.small_node import NAME, SmallNode, small_node
from tests.lab import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.agent.serving import Agent

pytestmark = pytest.mark.kernel

FROM, TO = ip_address("10.244.1.1"), ip_address("10.244.1.2")
FLOW = FlowTuple(6, FROM, TO, None, 80)
SECONDS = 30.0


@pytest.fixture(scope="module")
def node() -> Iterator[SmallNode]:
    with small_node() as made:
        made.program(Node())
        yield made


@pytest.fixture
def agent(node: SmallNode, tmp_path: Path) -> Iterator[Agent]:
    with namespaces.entered(node.host), serving(tmp_path, node.source()) as made:
        yield made


@contextmanager
def instruments(agent: Agent) -> Iterator[RemoteInstruments]:
    yield RemoteInstruments(NAME, lambda: AgentSource(AgentClient(agent.path)))


def tables(node: SmallNode) -> str:
    return namespaces.run(node.host, ["nft", "list", "tables"])


def until_gone(node: SmallNode) -> None:
    ends = time.monotonic() + SECONDS
    while TABLE in tables(node):
        assert time.monotonic() < ends
        time.sleep(0.05)  # the kernel signals nobody


def body(**changes: Any) -> dict[str, Any]:
    return {"node": NAME, "kind": "rules", "flows": [to_plain(FLOW)], "milliseconds": 20_000, **changes}


def test_a_probe_is_seen(agent: Agent, node: SmallNode) -> None:
    with instruments(agent) as tools:
        observing = tools.trace_rules([FLOW], SECONDS)
        assert TABLE in tables(node)
        report = tools.probe(FLOW, "cali1", "cali1 of n1")
        seen = observing.finish(0.0)
        observing.close()
    assert (report.sent > 0, report.error) == (True, "")
    assert isinstance(seen, Observation)
    assert [packet.headers.destination for packet in seen.packets if packet.headers and not packet.reply] == [
        TO
    ] * report.sent
    until_gone(node)


def test_packets_at_the_interfaces_are_seen(agent: Agent, node: SmallNode) -> None:
    """What an agent watches where rules cannot be traced; it ends as soon as it is told to."""
    need_observer()
    state = NodeState(node.source().node(NAME))
    begun = time.monotonic()
    with instruments(agent) as tools:
        observing = tools.watch_packets(state, [Ends(6, FROM, TO, 0, 80)], SECONDS)
        report = tools.probe(FLOW, "cali1", "cali1 of n1")
        seen = observing.finish(0.0)
        observing.close()
    assert report.sent > 0
    assert isinstance(seen, Witness)
    assert (seen.node, "packet" in seen.detail) == (NAME, True)
    assert time.monotonic() - begun < SECONDS


def test_it_ends_when_its_client_goes(agent: Agent, node: SmallNode) -> None:
    with instruments(agent) as tools:
        observing = tools.trace_rules([FLOW], SECONDS)
        assert TABLE in tables(node)
        observing.close()
    until_gone(node)


def test_it_ends_by_itself(agent: Agent, node: SmallNode) -> None:
    *_, last = agent.ask("/v1/observations", body(milliseconds=100))[2].splitlines()
    assert "observation" in json.loads(last)
    until_gone(node)


def test_there_are_never_many(agent: Agent, node: SmallNode) -> None:
    with instruments(agent) as tools:
        begun = [tools.trace_rules([FLOW], SECONDS) for _ in range(2)]
        with pytest.raises(EvidenceError, match="2 observations are under way on n1: try again later"):
            tools.trace_rules([FLOW], SECONDS)
        for one in begun:
            one.finish(0.0)
            one.close()
        until_gone(node)
        again = tools.trace_rules([FLOW], SECONDS)
        again.finish(0.0)
        again.close()


@pytest.mark.parametrize(
    ("flow", "interface"),
    [
        (FlowTuple(6, ip_address("10.244.1.9"), TO, None, 80), "cali1"),
        (FLOW, "cali2"),
        (FLOW, ""),
        (FLOW, "eth0"),
        (FlowTuple(6, ip_address("8.8.8.8"), TO, None, 80), "eth0"),
    ],
)
def test_nobody_probes_with_an_address_of_others(agent: Agent, flow: FlowTuple, interface: str) -> None:
    status, _, content = agent.ask("/v1/probes", {"node": NAME, "flow": to_plain(flow), "interface": interface})
    assert (status, json.loads(content)["reason"]) == (400, "usage"), content
    with instruments(agent) as tools:
        assert "probes leave from where their address is" in tools.probe(flow, interface, "here").error


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "else"},
        {"flows": []},
        {"flows": [1]},
        {"flows": [{}]},
        {"flows": [{**to_plain(FLOW), "protocol": 300}]},
        {"flows": [{**to_plain(FLOW), "destination_port": 70000}]},
        {"flows": [{**to_plain(FLOW), "destination_port": -1}]},
        {"flows": [to_plain(FLOW), {**to_plain(FLOW), "source": "fd00::1", "destination": "fd00::2"}]},
        {"flows": [{**to_plain(FLOW), "source": "fd00::1"}]},
        {"flows": [to_plain(FLOW)] * 129},
        {"milliseconds": 0},
        {"milliseconds": 60_001},
        {"seconds": 1},
    ],
)
def test_what_cannot_be_observed(agent: Agent, node: SmallNode, changes: dict[str, Any]) -> None:
    status, _, content = agent.ask("/v1/observations", body(**changes))
    assert (status, json.loads(content)["reason"]) == (400, "usage"), content
    assert TABLE not in tables(node)


def test_other_nodes_and_observations_are_missing(agent: Agent) -> None:
    client = AgentClient(agent.path)
    with pytest.raises(MissingEvidence, match="there is no such observation"):
        client.json("/v1/observations/x/finish", {})
    with pytest.raises(MissingEvidence):
        client.json("/v1/observations", body(node="n2"))
    with pytest.raises(UsageError):
        client.json("/v1/probes", {"node": NAME})
