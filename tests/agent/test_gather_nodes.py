"""Witnesses of several nodes: who does what, in which order, and what is left when one of them fails."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from calico_debug.activity import heard_by
from calico_debug.agent.gather import Post, gather
from calico_debug.cli.environment import Question
from calico_debug.cli.tracer import EvidenceTracer
from calico_debug.errors import EvidenceError
from calico_debug.model.observation import Observation, ProbeReport, Wanted
from tests.recordings import DATA, Recording

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.model.explanation import FlowExplanation
    from calico_debug.model.observation import FlowTuple
    from calico_debug.model.packet_event import Ends
    from calico_debug.state.node import NodeState

SOURCE = Recording(DATA / "v3.32.1-nft.tar.xz").source
OBSERVE = Wanted(observe=0.0)
PROBE = Wanted(observe=0.0, probe=True)


class Noted:
    """Instruments that write down what they are asked, and fail where they are told to."""

    def __init__(self, node: str, log: list[str], failing: str = "") -> None:
        self._node, self._log, self._failing = node, log, failing

    def _note(self, what: str) -> None:
        self._log.append(f"{self._node} {what}")
        if what == self._failing:
            raise EvidenceError(f"no {what} here: try there")

    def trace_rules(self, flows: Sequence[FlowTuple], seconds: float) -> Noted:
        assert flows
        assert seconds >= 0
        self._note("begin")
        return self

    def watch_packets(self, state: NodeState, flows: Sequence[Ends], seconds: float) -> Noted:
        raise AssertionError(f"{state.name} has rules that can be traced: {flows}, {seconds}")

    def probe(self, flow: FlowTuple, interface: str, words: str) -> ProbeReport:
        self._note(f"probe behind {interface}")
        return ProbeReport(1, words, flow)

    def finish(self, seconds: float) -> Observation:
        assert seconds >= 0
        self._note("finish")
        return Observation((), "a", "b")

    def close(self) -> None:
        self._note("close")


@pytest.fixture(scope="module")
def explanation() -> FlowExplanation:
    found = EvidenceTracer(SOURCE).trace(Question("client/client-5f8b", "svc/management-ui/management-ui"))
    assert found.source.node == "node1"
    return found


def posts(explanation: FlowExplanation, wanted: Wanted, log: list[str], **failing: str) -> list[Post]:
    return [
        Post(SOURCE.node(name), explanation, wanted, lambda *_: "", Noted(name, log, failing.get(name, "")))
        for name in ("node1", "node2")
    ]


def test_every_node_observes_before_a_probe_leaves(explanation: FlowExplanation) -> None:
    log: list[str] = []
    gathered, failed = gather(posts(explanation, PROBE, log), PROBE)
    begun = ["node1 begin", "node2 begin", f"node1 probe behind {explanation.source.interface}"]
    assert log == [*begun, "node1 finish", "node2 finish", "node2 close", "node1 close"]
    assert [(one.node, one.probed_here) for one in gathered] == [("node1", True), ("node2", False)]
    assert all(one.probe is not None and one.probe.sent == 1 for one in gathered)
    assert all(one.watched is not None for one in gathered)
    assert failed == {}


def test_the_time_that_is_wanted_begins_when_every_node_observes(
    explanation: FlowExplanation, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(
        "calico_debug.agent.gather.time", SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda _: None)
    )
    wanted = Wanted(observe=3)
    given: list[float] = []
    heard: list[str] = []

    class Slow(Noted):
        def trace_rules(self, flows: Sequence[FlowTuple], seconds: float) -> Noted:
            clock[0] += 4
            assert seconds > 3 + 4
            return super().trace_rules(flows, seconds)

        def finish(self, seconds: float) -> Observation:
            given.append(seconds)
            return super().finish(seconds)

    slow = [Post(SOURCE.node(name), explanation, wanted, lambda *_: "", Slow(name, [])) for name in ("node1", "node2")]
    with heard_by(heard.append):
        gather(slow, wanted)
    assert given == [3, 3]
    assert "watching node1, node2 from now on for 3 s" in heard


def test_a_node_that_cannot_observe_is_counted(explanation: FlowExplanation) -> None:
    log: list[str] = []
    gathered, failed = gather(posts(explanation, PROBE, log, node2="begin"), PROBE)
    assert [one.node for one in gathered] == ["node1", "node2"]
    assert gathered[1].not_observed == "node2: no begin here: try there"
    assert gathered[1].watched is not None
    assert failed == {}


def test_a_node_where_nothing_else_is_wanted_has_failed(explanation: FlowExplanation) -> None:
    gathered, failed = gather(posts(explanation, OBSERVE, [], node1="begin"), OBSERVE)
    assert [one.node for one in gathered] == ["node2"]
    assert failed == {"node1": "no begin here: try there"}


def test_a_node_that_fails_at_the_end_takes_nothing_from_the_other(explanation: FlowExplanation) -> None:
    log: list[str] = []
    gathered, failed = gather(posts(explanation, PROBE, log, node1="finish"), PROBE)
    assert [one.node for one in gathered] == ["node2"]
    assert failed == {"node1": "no finish here: try there"}
    assert log[-2:] == ["node2 close", "node1 close"]


def test_when_no_node_can_be_asked_nothing_is_sent(explanation: FlowExplanation) -> None:
    log: list[str] = []
    gathered, failed = gather(posts(explanation, OBSERVE, log, node1="begin", node2="begin"), PROBE)
    assert (gathered, list(failed)) == ([], ["node1", "node2"])
    assert not any("probe" in one for one in log)


def test_a_flow_from_elsewhere_is_not_probed(explanation: FlowExplanation) -> None:
    elsewhere = replace(explanation, source=replace(explanation.source, node="node9"))
    log: list[str] = []
    gathered, _ = gather(posts(elsewhere, PROBE, log), PROBE)
    assert gathered[0].probe is not None
    assert "the flow starts on node9: run there" in gathered[0].probe.error
    assert not any("probe" in one for one in log)
