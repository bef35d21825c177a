"""Answers that no program has an entry for, and connections whose answers take another way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from calico_debug.model.explanation import FlowExplanation
from calico_debug.walk.packet import UDP
from calico_debug.walk.wiring import Place
from tests.explain.world import Node, World, decided
from tests.walk.recorded_bpf import RecordedCluster
from tests.walk.test_journey import POD21, opening, travel

ON_NODE1, ON_NODE2 = "10.244.1.31", "10.244.2.32"


@pytest.fixture(scope="module")
def cluster() -> RecordedCluster:
    return RecordedCluster()


def ask(cluster: RecordedCluster, source: str, protocol: str, port: str = ":5555") -> FlowExplanation:
    return cluster.engine.explain(cluster.resolver.resolve(source, f"192.0.2.50{port}", protocol=protocol))


@pytest.mark.parametrize(("protocol", "port"), [("udp", ":5555"), ("sctp", ":5555"), ("47", "")])
def test_they_meet_the_host_endpoint_s_policy_as_new(cluster: RecordedCluster, protocol: str, port: str) -> None:
    answer = ask(cluster, ON_NODE2, protocol, port)
    assert decided(answer) == ("denied", "rule", "node2")
    assert answer.decision is not None
    assert answer.decision.detail.startswith("the answer")
    assert [step.action for step in answer.steps if step.stage == "reply"] == ["passed", "denied"]


def test_a_policy_that_allows_them_is_told_and_does_not_decide(cluster: RecordedCluster) -> None:
    answer = ask(cluster, ON_NODE2, "icmp", "")
    told = [(step.action, step.rule is not None) for step in answer.steps if step.stage == "reply"]
    assert answer.verdict == "allowed"
    assert answer.decision is not None
    assert answer.decision.direction == "egress"
    assert ("allowed", True) in told


def test_tcp_is_left_to_the_host_s_conntrack(cluster: RecordedCluster) -> None:
    assert ask(cluster, ON_NODE2, "tcp").verdict == "allowed"


def test_without_a_host_endpoint_nobody_minds(cluster: RecordedCluster) -> None:
    answer = ask(cluster, ON_NODE1, "udp")
    assert answer.verdict == "allowed"
    assert {step.action for step in answer.steps if step.stage == "reply"} == {"passed"}


@pytest.mark.parametrize(("reached", "denied"), [("172.30.0.77", True), ("198.51.100.7", False)])
def test_a_node_that_the_answer_does_not_pass(reached: str, denied: bool) -> None:
    """Its conntrack saw a SYN and then an ACK. An answer to a gateway may come by there all the same."""
    first = Node(1, chains={"filter-cali-FORWARD": ["ct=invalid drop"]})
    world = World(first, Node(2))
    start = opening(POD21, source=reached, place=Place("n1", "eth0"))
    journey = travel(world, start)
    assert (journey.arrived, journey.replied) == ("workload", not denied)
    assert [leg.made.node for leg in journey.legs if leg.later] == (["n1"] if denied else [])
    assert travel(world, replace(start, protocol=UDP)).replied
    assert travel(World(Node(1), Node(2)), start).replied
    answer = world.ask(f"{reached}:40000", "21:80", via="n1")
    assert (answer.verdict == "denied") == denied
    if denied:
        assert answer.decision is not None
        assert (answer.decision.node, answer.decision.reason) == ("n1", "ct-invalid")
        assert "the answer takes another way" in answer.decision.detail
        assert [step.action for step in answer.steps if step.stage == "conntrack"][-1] == "denied"
