"""Sums of what observers lost."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from prometheus_client.parser import text_string_to_metric_families

from calico_debug.agent import collector as collector_module
from calico_debug.agent.collector import Collector
from calico_debug.agent.packets.tally import CAPTURE, DROP_STREAM, OBSERVATION, OBSERVERS, Tally
from calico_debug.errors import EvidenceError
from calico_debug.model.packet_event import Losses
from tests.evidence.memory import MemoryNode, MemorySource


class Observer:
    """Counts as a kernel program does."""

    def __init__(self, losses: Losses) -> None:
        self.losses: Losses | None = losses

    def read(self) -> Losses:
        if self.losses is None:
            raise EvidenceError("the program is gone")
        return self.losses


def test_every_kind_is_there_from_the_start() -> None:
    assert Tally().totals() == dict.fromkeys(OBSERVERS, Losses())


def test_what_has_ended_stays_beside_what_runs() -> None:
    tally = Tally()
    first, second = Observer(Losses(10, 1, 2, 3, 4)), Observer(Losses(5, 0, 1, 0, 0))
    with tally.counting(CAPTURE, first.read):
        assert tally.totals()[CAPTURE] == Losses(10, 1, 2, 3, 4)
        first.losses = Losses(20, 1, 2, 3, 4)
    first.losses = Losses(99, 99, 99, 99, 99)  # nobody asks any more
    with tally.counting(CAPTURE, second.read), tally.counting(OBSERVATION, second.read):
        assert tally.totals() == {
            CAPTURE: Losses(25, 1, 3, 3, 4),
            DROP_STREAM: Losses(),
            OBSERVATION: Losses(5, 0, 1, 0, 0),
        }


def test_sums_never_go_back_whatever_is_read() -> None:
    tally, observer = Tally(), Observer(Losses(10, 1, 2, 3, 4))
    with ExitStack() as stack:
        stack.enter_context(tally.counting(CAPTURE, observer.read))
        before = tally.totals()[CAPTURE]
        observer.losses = None
        assert tally.totals()[CAPTURE] == before
        observer.losses = Losses(12, 1, 2, 3, 0)  # the passes of one program could not be read
        assert tally.totals()[CAPTURE] == Losses(12, 1, 2, 3, 4)
        observer.losses = None
    assert tally.totals()[CAPTURE] == Losses(12, 1, 2, 3, 4)


def test_an_observer_that_fails_is_counted() -> None:
    tally = Tally()
    with pytest.raises(ValueError, match="a defect"), tally.counting(CAPTURE, Observer(Losses(3)).read):
        raise ValueError("a defect")
    assert tally.totals()[CAPTURE] == Losses(3)


def test_the_page_has_them_by_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = Tally()
    monkeypatch.setattr(collector_module, "TALLY", tally)
    with tally.counting(DROP_STREAM, Observer(Losses(10, 1, 2, 3, 4)).read):
        page = Collector(MemorySource({}, {"n1": MemoryNode({})})).page().decode()
    found = {
        (sample.name.removeprefix("calico_debug_observer_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if "observer" in sample.labels
    }
    assert len(found) == len(OBSERVERS) * 4
    assert {key: value for key, value in found.items() if value} == {
        ("events_total", DROP_STREAM): 10,
        ("lost_events_total", DROP_STREAM, "no-room"): 1,
        ("lost_events_total", DROP_STREAM, "rate-limit"): 2,
        ("lost_events_total", DROP_STREAM, "passed-over"): 4,
    }
