"""Each flow is walked once in a while, for a part of the time."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from calico_debug.capture.flows import FlowOf
from calico_debug.capture.predictions import BURST, FRESH_SECONDS, MOST, SHARE, TOO_MANY, Prediction, Predictions
from calico_debug.errors import EvidenceError
from calico_debug.model.conntrack import Tuple
from calico_debug.model.packet_event import Ends
from calico_debug.state.cluster import load_cluster
from tests.evidence.memory import MemoryNode, MemorySource
from tests.recordings import recordings

if TYPE_CHECKING:
    from calico_debug.evidence.source import EvidenceSource

CLIENT, BACKEND = ip_address("10.244.1.30"), ip_address("10.244.2.31")
FLOW = FlowOf(Ends(6, CLIENT, BACKEND, 40000, 6379))


class Clock:
    """Stands still but for what a walk takes."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Counted(Predictions):
    """Counts walks, each of which takes ``cost`` seconds."""

    cost = 0.0

    def __init__(self, source: EvidenceSource, clock: Clock) -> None:
        self.walked: list[Ends] = []
        self.opened_sources = 0
        self.time = clock

        def opened() -> EvidenceSource:
            self.opened_sources += 1
            return source

        super().__init__(opened, clock=clock)

    def _walk(self, ends: Ends, icmp: tuple[int, int] | None) -> object:  # type: ignore[override]
        self.walked.append(ends)
        self.time.now += self.cost
        return super()._walk(ends, icmp)


@pytest.fixture
def counted() -> Counted:
    return Counted(recordings("3.32.1-nft")[0].source, Clock())


def test_as_the_engine_says_whatever_the_port(counted: Counted) -> None:
    found = counted.of(FLOW)
    assert found.explanation is not None
    assert (found.explanation.verdict, found.problem) == ("allowed", "")
    assert counted.of(replace(FLOW, ends=replace(FLOW.ends, source_port=1))) is found
    assert counted.of(replace(FLOW, reply=True)) is found
    assert counted.walked == [replace(FLOW.ends, source_port=0)]


def test_a_ping_and_six(counted: Counted) -> None:
    ping = counted.of(FlowOf(Ends(1, CLIENT, BACKEND), icmp=(8, 0)))
    assert ping.explanation is not None
    assert ping.explanation.protocol == "icmp"
    six = counted.of(FlowOf(Ends(6, ip_address("fd00::1"), ip_address("fd00::2"), 1, 80)))
    assert (six.explanation is not None) or six.problem


def test_walked_again_when_old(counted: Counted) -> None:
    counted.of(FLOW)
    counted.time.now += FRESH_SECONDS + 1
    counted.of(FLOW)
    assert (len(counted.walked), counted.opened_sources) == (2, 2)


def test_objects_are_those_that_are_given() -> None:
    """No list is read of the source, whose server may be gone."""
    source = recordings("3.32.1-nft")[0].source
    known = load_cluster(source)
    found = Predictions(lambda: MemorySource({}, {"n1": Tracking({})}), lambda: known)
    assert found._ready().cluster is known
    found.close()


def test_no_more_than_a_share_of_the_time(counted: Counted) -> None:
    counted.cost = 1.0
    found = [counted.of(replace(FLOW, ends=replace(FLOW.ends, destination_port=port))) for port in range(1, 20)]
    assert len(counted.walked) <= BURST + 2
    assert found[-1].problem == TOO_MANY
    assert counted.opened(FLOW.ends) is None
    counted.time.now += 10
    before = len(counted.walked)
    for port in range(100, 200):
        counted.of(replace(FLOW, ends=replace(FLOW.ends, destination_port=port)))
    assert 1 <= len(counted.walked) - before <= 10 * SHARE + BURST


def test_what_was_true_before_is_told_when_there_is_no_time(counted: Counted) -> None:
    first = counted.of(FLOW)
    counted.time.now += FRESH_SECONDS + 1
    counted.cost = 100.0
    counted.of(replace(FLOW, ends=replace(FLOW.ends, destination_port=1)))
    assert counted.of(FLOW) is first


def test_a_problem_is_told_and_kept(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Counted, ends: Ends, _: object) -> None:
        self.walked.append(ends)
        raise EvidenceError("nothing is known")

    monkeypatch.setattr(Counted, "_walk", fail)
    assert counted.of(FLOW) == counted.of(FLOW) == Prediction(problem="nothing is known")
    assert len(counted.walked) == 1


def test_what_is_kept_is_bounded(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counted, "_walk", lambda self, ends, _: self.walked.append(ends))
    for port in range(1, MOST + 2):
        counted.of(replace(FLOW, ends=replace(FLOW.ends, destination_port=port)))
    counted.of(replace(FLOW, ends=replace(FLOW.ends, destination_port=1)))
    assert len(counted.walked) == MOST + 2


class Tracking(MemoryNode):
    """A node with one connection, translated."""

    lines = (
        b"tcp      6 431999 ESTABLISHED src=10.244.1.30 dst=10.96.20.3 sport=40000 dport=80 "
        b"src=10.244.2.32 dst=10.244.1.30 sport=9001 dport=40000 [ASSURED] mark=0 use=1\n"
    )

    def find_connection(self, wanted: Tuple) -> bytes:
        return self.lines if 40000 in (wanted.source_port, wanted.destination_port) else b""

    def read_sysctl(self, key: str) -> str | None:
        raise AssertionError(key)


def test_conntrack_tells_who_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calico_debug.state.node.NodeState.dataplane", "nftables")
    found = Predictions(lambda: MemorySource({}, {"n1": Tracking({})}), clock=Clock())
    service, backend = ip_address("10.96.20.3"), ip_address("10.244.2.32")
    asked, answer = Ends(6, CLIENT, service, 40000, 80), Ends(6, backend, CLIENT, 9001, 40000)
    assert found.opened(asked) == (asked, False)
    assert found.opened(answer) == (asked, True)
    other = replace(asked, source_port=1)
    assert found.opened(other) == (other, False)
    assert found.opened(Ends(1, CLIENT, service)) is None


def test_programs_tell_who_opened_what_policy_approved() -> None:
    source = recordings("3.32.1-bpf")[0].source
    found = Predictions(lambda: source)
    client, server = ip_address("10.244.1.31"), ip_address("10.244.2.53")
    asked = Ends(17, client, server, 54769, 5353)
    assert found.opened(asked) == (asked, False)
    assert found.opened(asked.reversed()) == (asked, True)
    assert found.opened(replace(asked, source_port=1)) is None
