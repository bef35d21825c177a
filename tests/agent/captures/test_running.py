"""A capture from its beginning to each of its ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calico_debug.agent.captures import running as module
from calico_debug.agent.captures.ring import Ring
from calico_debug.agent.captures.running import CaptureLimits
from calico_debug.errors import EvidenceError, UsageError
from calico_debug.model.subject import Subject
from tests.agent.captures.made import EVENTS, Made, MadeWatch

POD = Subject(pod="a/b")


def test_until_it_is_stopped(tmp_path: Path) -> None:
    made = Made(tmp_path)
    document = made.captures.start(POD, CaptureLimits(snap=99, rate=77, seconds=5))
    assert (document["state"], document["subject"], document["asked"]) == ("running", "pod a/b", {"pod": "a/b"})
    ((subject, limits, data),) = made.asked
    assert (subject, limits.seconds, limits.rate, limits.packets, data) == (POD, 5, 77, 0, 99)
    stopped = made.captures.stop(document["id"])
    assert (stopped["state"], stopped["endedBy"], stopped["events"], stopped["packets"]) == ("ended", "stop", 3, 1)
    assert stopped["losses"] == {"noRoom": 0, "rateLimited": 5, "passedOver": 0, "notIp": 0}
    assert stopped["notes"] == ["a note"]
    assert "endedAt" in stopped
    kept = json.loads((tmp_path / document["id"] / "capture.json").read_text())
    assert kept == stopped == made.captures.stop(document["id"])


def test_until_a_limit(tmp_path: Path) -> None:
    made = Made(tmp_path, MadeWatch(limited_by="seconds"), MadeWatch(EVENTS * 3))
    one = made.captures.start(POD, CaptureLimits())["id"]
    assert made.until(one, "ended")["endedBy"] == "seconds"
    two = made.captures.start(POD, CaptureLimits(packets=2))["id"]
    document = made.until(two, "ended")
    assert (document["endedBy"], document["packets"], document["events"]) == ("packets", 3, 6)


@pytest.mark.parametrize(
    ("problem", "by", "said"),
    [
        (EvidenceError("no more memory"), "a problem", "no more memory"),
        (RuntimeError("what"), "a defect", "unexpected RuntimeError: this is a defect, see the agent's log"),
    ],
)
def test_until_a_problem(tmp_path: Path, problem: Exception, by: str, said: str) -> None:
    """What was captured stays."""
    watch = MadeWatch([*EVENTS, problem])
    made = Made(tmp_path, watch)
    document = made.until(made.captures.start(POD, CaptureLimits())["id"], "failed")
    assert (document["endedBy"], document["problem"], document["events"]) == (by, said, 3)
    assert [(file["name"], file["packets"]) for file in document["files"]] == [("00001.pcapng", 3)]  # type: ignore[attr-defined]
    assert not watch.open


def test_a_disk_that_is_full_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bool:
        raise EvidenceError("captured packets cannot be written: no space; make room there")

    monkeypatch.setattr(Ring, "put", full)
    made = Made(tmp_path)
    document = made.until(made.captures.start(POD, CaptureLimits())["id"], "failed")
    assert "no space" in str(document["problem"])


def test_what_cannot_begin_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = MadeWatch()
    made = Made(tmp_path / "captures", watch)

    def fail(*_: object, **__: object) -> None:
        raise EvidenceError("no room")

    monkeypatch.setattr(module, "Ring", fail)
    with pytest.raises(EvidenceError, match="no room"):
        made.captures.start(POD, CaptureLimits())
    assert not watch.open
    assert made.captures.listed() == []
    with pytest.raises(UsageError, match="no pod is named"):
        made.captures.start(Subject(pod="nobody"), CaptureLimits())


def test_files_too_small(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give more bytes, or fewer files"):
        Made(tmp_path).captures.start(POD, CaptureLimits(bytes=65_536 * 2, files=3))


def test_the_end_of_the_agent_ends_all(tmp_path: Path) -> None:
    made = Made(tmp_path)
    names = [made.captures.start(POD, CaptureLimits())["id"] for _ in range(3)]
    made.captures.close()
    assert {made.captures.one(name)["state"] for name in names} == {"ended"}
    again = Made(tmp_path)
    again.captures.claim()
    assert {document["id"] for document in again.captures.listed()} == set(names)
