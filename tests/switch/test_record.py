"""What is written down, and what does not fit."""

from __future__ import annotations

import pytest

from calico_debug.explain.engine import Engine
from calico_debug.switch.model import RecordedNode
from calico_debug.switch.record import describe, make_record
from tests.evidence.memory import MemorySource
from tests.explain.world import Node, objects
from tests.switch.sources import engine, record, source
from tests.switch.test_installation import FELIX, felix


def test_flows_of_connections_come_first_and_each_is_there_once() -> None:
    made = record("bpf")
    origins = [flow.question.origin for flow in made.flows]
    assert origins == sorted(origins, key=("asked", "connection", "matrix").index)
    assert origins.count("connection") == len(made.connections) == 11
    assert made.left_out == ()
    assert all(flow.answer.verdict != "undetermined" or flow.answer.ways for flow in made.flows)


def test_what_does_not_fit_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = len(record("nft").flows)
    monkeypatch.setattr("calico_debug.switch.record.MOST_FLOWS", 10)
    monkeypatch.setattr("calico_debug.switch.record.MOST_CONNECTIONS", 1)
    made = make_record(engine("nft"))
    assert (len(made.flows), len(made.connections)) == (10, 1)
    assert made.left_out[1].startswith("2 connections")
    number = int(made.left_out[0].split()[0])
    assert whole - 10 <= number <= whole


def test_a_node_without_connections_in_evidence_is_told() -> None:
    node = Node(1, pods=[1], files={"conntrack.txt": None})
    made = make_record(Engine(MemorySource(objects([node]), {"n1": node.evidence()})))
    assert made.flows
    assert any(why.startswith("open connections: conntrack.txt of n1 is not there") for why in made.left_out)


def test_nodes() -> None:
    assert [node.dataplane for node in describe(engine("iptables"))] == ["iptables", "iptables"]
    assert [node.kube_proxy for node in describe(engine("bpf"))] == [None, None]
    assert all(node.kube_proxy for node in describe(engine("iptables")))
    node = Node(1, files={"nft-ruleset.json": None})
    (broken,) = describe(Engine(MemorySource({}, {"n1": node.evidence()})))
    assert (broken.dataplane, bool(broken.problem)) == ("", True)
    bare = Node(1, calico=False)
    (none,) = describe(Engine(MemorySource({}, {"n1": bare.evidence()})))
    assert none == RecordedNode("n1", "", none.taken_at, None, "no dataplane of Calico is on it")


@pytest.mark.parametrize(
    ("lists", "environment", "expected"),
    [
        ({}, b"A=b\n", None),
        ({}, b"FELIX_BPFEXTERNALSERVICEMODE=DSR\n", True),
        ({FELIX: felix(bpfExternalServiceMode="DSR")}, b"FELIX_BPFEXTERNALSERVICEMODE=Tunnel\n", False),
        ({FELIX: felix(bpfExternalServiceMode="DSR")}, b"A=b\n", True),
        ({FELIX: felix()}, b"A=b\n", False),
    ],
)
def test_direct_return(lists: dict[str, object], environment: bytes, expected: bool | None) -> None:
    made = Engine(source("bpf", lists, {"felix-env.txt": environment}))  # type: ignore[arg-type]
    assert [node.dsr for node in describe(made)] == [expected, expected]
