"""The way back over the recorded eBPF nodes, in steps."""

from __future__ import annotations

from tests.walk.recorded_bpf import CUSTOMER, DATABASE, SUMMARY, RecordedCluster


def test_the_answer_through_the_programs_own_tunnel() -> None:
    """A node port of node2 whose backend is on node1: node2 wraps the packets, and the answers go back through it."""
    cluster = RecordedCluster()
    answer = cluster.engine.explain(cluster.resolver.resolve("192.0.2.1", "172.30.0.12:30180", via="node2"))
    assert answer.verdict == "allowed"
    [tunnelled] = [step for step in answer.steps if step.action == "tunnelled"]
    assert (tunnelled.node, tunnelled.stage) == ("node2", "wire")
    assert "node node1, which has the backend" in tunnelled.detail
    replies = [(step.node, step.detail) for step in answer.steps if step.stage == "reply"]
    assert [node for node, _ in replies] == ["node1", "node2"]
    assert "back into the tunnel" in replies[0][1]
    assert "out of the tunnel, as from the service" in replies[1][1]


def test_the_answer_between_pods() -> None:
    cluster = RecordedCluster()
    answer = cluster.engine.explain(cluster.resolver.resolve(CUSTOMER, f"{SUMMARY}:80"))
    replies = [(step.node, step.detail) for step in answer.steps if step.stage == "reply"]
    assert replies == [("node1", "the programs' own connection tracking lets the answer through")]


def test_a_denied_request_has_no_answer() -> None:
    cluster = RecordedCluster()
    answer = cluster.engine.explain(cluster.resolver.resolve(CUSTOMER, f"{DATABASE}:5432"))
    assert answer.verdict == "denied"
    assert not [step for step in answer.steps if step.stage == "reply"]
