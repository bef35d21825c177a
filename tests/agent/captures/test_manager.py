"""Captures on a node of a cluster in network namespaces: limits, and what is left."""

from __future__ import annotations

import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from calico_debug.agent.captures.manager import MOST_RUNNING
from calico_debug.errors import EvidenceError, MissingEvidence, UsageError
from calico_debug.model.subject import Subject
from tests.agent.captures.here import SECONDS, Here, rows

if TYPE_CHECKING:
    from tests.lab.lab import Lab

pytestmark = pytest.mark.kernel


def test_the_ring_keeps_the_newest(here: Here, lab: Lab) -> None:
    name = here.start(Subject(pod="red/web1"), bytes=131_072, files=2)
    flow = lab.flow("blue/db1", "red/web1", "udp", 53)
    events = 0
    while here.captures.one(name)["filesRemoved"] < 1:
        lab.send_all([flow] * 50, silence=0.1)
        events += 50 * 3
        here.until(name, events)
    document = here.captures.stop(name)
    files = [file["name"] for file in document["files"]]
    assert files == ["00002.pcapng", "00003.pcapng"]
    assert sorted(path.name for path in (here.folder / name).iterdir()) == [*files, "capture.json"]
    assert sum(file["bytes"] for file in document["files"]) < 131_072 + 2 * 1500
    assert sum(len(rows(here.folder / name / file)) for file in files) == sum(f["packets"] for f in document["files"])


def test_the_limit_of_packets(here: Here, lab: Lab) -> None:
    name = here.start(Subject(pod="red/web1"), packets=2)
    lab.send_all([lab.flow("blue/db1", "red/web1", "udp", 53)] * 4)
    end = time.monotonic() + SECONDS
    while (document := here.captures.one(name))["state"] == "running":
        assert time.monotonic() < end
    assert (document["endedBy"], document["events"]) == ("packets", 6)


def test_the_limit_of_time(here: Here) -> None:
    name = here.start(Subject(drops=True), seconds=1)
    end = time.monotonic() + SECONDS
    while (document := here.captures.one(name))["state"] == "running":
        assert time.monotonic() < end
        time.sleep(0.05)
    assert document["endedBy"] == "seconds"


def test_what_is_over_the_rate_is_counted(here: Here, lab: Lab) -> None:
    name = here.start(Subject(pod="red/web1", drops=True), rate=1)
    lab.send_all([lab.flow("blue/db1", "red/web1", "udp", 53)] * 30)
    end = time.monotonic() + SECONDS
    while (document := here.captures.one(name))["events"] + document["losses"]["rateLimited"] < 30:
        assert time.monotonic() < end, document
        time.sleep(0.02)
    assert document["losses"]["rateLimited"] > 0
    document = here.captures.stop(name)
    content = (here.folder / name / document["files"][0]["name"]).read_bytes()
    assert f"{document['losses']['rateLimited']} over the limit of the rate".encode() in content


def test_files_are_their_owners_alone(here: Here) -> None:
    name = here.start(Subject(drops=True))
    for path in (here.folder, here.folder / name):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in (here.folder / name).iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_more_than_a_few_at_once(here: Here) -> None:
    names = [here.start(Subject(drops=True)) for _ in range(MOST_RUNNING)]
    with pytest.raises(UsageError, match="run already"):
        here.start(Subject(drops=True))
    here.captures.stop(names[0])
    here.start(Subject(drops=True))


def test_no_more_bytes_than_may_be_kept(lab: Lab, tmp_path: Path) -> None:
    few = Here(lab, tmp_path / "captures", most=100 << 20)
    try:
        name = few.start(Subject(drops=True))
        with pytest.raises(UsageError, match="captures may keep 100 MiB"):
            few.start(Subject(drops=True))
        few.captures.delete(name)
        few.start(Subject(drops=True))
    finally:
        few.captures.close()


@pytest.mark.parametrize(
    "subject",
    [
        Subject(),
        Subject(pod="red/nobody"),
        Subject(policy="nothing"),
        Subject(pod="svc/blue/shop"),
        Subject(source="1.2.3.4"),
    ],
)
def test_what_cannot_be_captured_leaves_nothing(here: Here, subject: Subject) -> None:
    with pytest.raises(UsageError):
        here.start(subject)
    assert here.captures.listed() == []


def test_deleted(here: Here) -> None:
    name = here.start(Subject(drops=True))
    here.captures.delete(name)
    assert list(here.folder.iterdir()) == []
    for ask in (here.captures.one, here.captures.stop, here.captures.delete):
        with pytest.raises(MissingEvidence, match="there is no capture"):
            ask(name)


def test_one_agent_a_directory(here: Here, lab: Lab) -> None:
    here.start(Subject(drops=True))
    other = Here(lab, here.folder)
    with pytest.raises(EvidenceError, match="another agent keeps its captures"):
        other.start(Subject(drops=True))
