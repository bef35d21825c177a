"""Answers to what the host's own rules masqueraded: no program has an entry for them."""

from __future__ import annotations

import pytest

from calico_debug.model.explanation import FlowExplanation
from tests.explain.world import decided
from tests.walk.recorded_bpf import RecordedCluster

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
