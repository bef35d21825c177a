"""Killed at any moment, the witnesses leave nothing on the node; and observers do not disturb each other."""

from __future__ import annotations

import os
import random
import select
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from calico_debug.agent.evidence import LiveSource
from calico_debug.agent.observe import Observer
from calico_debug.cli.environment import Question
from calico_debug.cli.tracer import EvidenceTracer
from calico_debug.decode.nft_trace_table import PREFIX
from calico_debug.explain.observed import flow_tuples
from calico_debug.model.observation import Wanted
from tests.lab import namespaces
from tests.lab.demo import MODEL
from tests.lab.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

LONGEST = 1.5
"""Seconds until the kill: by then a witness that is left alone has long sent its probes."""
GONE = 10.0
"""Seconds within which the kernel has taken away what it has to."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if reason := namespaces.supported():
        pytest.skip(reason)
    with Lab() as built:
        built.program(MODEL)
        yield built


def question(lab: Lab) -> Question:
    return Question(lab.topology.address("blue/db1"), f"{lab.topology.address('red/web1')}:53", "udp")


def state(lab: Lab, folder: Path) -> dict[str, object]:
    """Everything that could be left of us: rules without counters, links, pins, files, other namespaces."""
    node = lab.namespace("node1")
    pins = Path("/sys/fs/bpf")
    return {
        "rules": namespaces.run(node, ["nft", "-s", "list", "ruleset"]),
        "links": namespaces.run(node, ["ip", "-d", "link"]),
        "addresses": namespaces.run(node, ["ip", "addr"]),
        "pins": sorted(str(path) for path in pins.glob(f"{PREFIX}*")) if pins.is_dir() else [],
        "files": sorted(str(path) for path in folder.rglob("*")),
        "shared memory": sorted(str(path) for path in Path("/dev/shm").glob(f"{PREFIX}*")),  # noqa: S108
    }


def started(lab: Lab, folder: Path) -> int:
    """A process that asks all three witnesses, with a session of its own that whatever it starts belongs to."""
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            # What libraries write by the way goes where it is looked for.
            for variable in ("HOME", "TMPDIR"):
                os.environ[variable] = str(folder)
            os.chdir(folder)
            with namespaces.entered(lab.namespace("node1")):
                tracer = EvidenceTracer(LiveSource("node1"))
                tracer.witness(tracer.trace(question(lab)), Wanted(watch=2, observe=2, probe=True))
        finally:
            os._exit(0)
    return child


def members(session: int) -> list[int]:
    """The processes of a session."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session:  # proc(5): state, parent, group, session
                    found.append(int(process.name))
    return found


def kill_many(lab: Lab, folder: Path, times: int, seed: int) -> int:
    """Kill ``times`` times, and give how often the kill met a table of ours."""
    chance = random.Random(seed)
    before = state(lab, folder)
    met = 0
    for number in range(times):
        child = started(lab, folder)
        delay = chance.uniform(0, LONGEST)
        end_of_child = os.pidfd_open(child)
        try:
            assert not select.select([end_of_child], [], [], delay)[0], "it ended by itself"
        finally:
            os.close(end_of_child)
        met += PREFIX in namespaces.run(lab.namespace("node1"), ["nft", "list", "tables"])
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        end = time.monotonic() + GONE
        # The kernel releases what a process held a moment after its end, and ends what hangs on it.
        while (left := members(child)) or (after := state(lab, folder)) != before:
            if time.monotonic() > end:
                break
        assert not left, f"kill {number} after {delay:.3f} s: a process that it had started goes on"
        assert after == before, f"kill {number} after {delay:.3f} s"
    return met


def test_killed_at_random_points(lab: Lab, tmp_path: Path) -> None:
    assert kill_many(lab, tmp_path, 3, seed=1) > 0


@pytest.mark.slow
def test_killed_at_hundreds_of_random_points(lab: Lab, tmp_path: Path) -> None:
    assert kill_many(lab, tmp_path, 200, seed=2) > 30


def test_an_end_by_itself_leaves_nothing(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HOME", "TMPDIR"):
        monkeypatch.setenv(variable, str(tmp_path))
    for variable in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False)
    before = state(lab, tmp_path)
    with namespaces.entered(lab.namespace("node1")):
        tracer = EvidenceTracer(LiveSource("node1"))
        found = tracer.witness(tracer.trace(question(lab)), Wanted(observe=0.1, probe=True))
    assert found.witnesses["observed"].verdict == "denied"
    assert state(lab, tmp_path) == before


def test_two_observers_at_once(lab: Lab) -> None:
    """Each sees its own flow alone, wherever the other's table stands, and one's end leaves the other's alone."""
    with namespaces.entered(lab.namespace("node1")):
        tracer = EvidenceTracer(LiveSource("node1"))
        denied = tracer.trace(question(lab))
        web = lab.topology.address("red/web1")
        allowed = tracer.trace(Question(lab.topology.address("red/cli1"), f"{web}:80", "tcp"))
        one, two, same = (
            Observer(flow_tuples(denied, "node1")),
            Observer(flow_tuples(allowed, "node1")),
            Observer(flow_tuples(denied, "node1")),
        )
        with one, two:
            while_observed = EvidenceTracer(LiveSource("node1")).trace(question(lab))
            with same:
                assert lab.send(lab.flow("blue/db1", "red/web1", "udp", 53)).verdict == "denied"
                assert lab.send(lab.flow("red/cli1", "red/web1", "tcp", 80)).verdict == "allowed"
                third = same.finish()
            assert lab.send(lab.flow("blue/db1", "red/web1", "udp", 53)).verdict == "denied"
            first, second = one.finish(), two.finish()
    assert [packet.ending for packet in first.packets] == ["dropped", "dropped"]
    assert [packet.ending for packet in third.packets] == ["dropped"]
    assert {packet.ending for packet in second.packets} == {"sent"}
    for packet in (*first.packets, *second.packets, *third.packets):
        assert not any(event.table.startswith(PREFIX) for event in packet.events)
    # The walk of a trace meets observers' tables like any other, and they change nothing of its answer.
    assert while_observed.decision == denied.decision
    assert while_observed.findings == denied.findings


def test_nobody_else_may_change_the_table(lab: Lab) -> None:
    node = lab.namespace("node1")
    with namespaces.entered(node):
        tracer = EvidenceTracer(LiveSource("node1"))
        with Observer(flow_tuples(tracer.trace(question(lab)), "node1")) as observer:
            with pytest.raises(namespaces.LabError, match="not permitted"):
                namespaces.nft(node, f"delete table ip {observer.table}")
            with pytest.raises(namespaces.LabError, match="not permitted"):
                namespaces.nft(node, f"add rule ip {observer.table} last-input drop")
        assert observer.table not in namespaces.run(node, ["nft", "list", "tables"])
