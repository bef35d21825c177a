"""However an observer ends, the node is as before: no program, map, link, pin, mount, interface or file."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent.packets.conftest import need_observer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

CHILD = """
import sys
from ipaddress import ip_address
from calico_debug.agent.packets.observer import Limits, PacketObserver
from calico_debug.model.packet_event import Ends
there = ip_address("127.0.0.1")
print("begun", flush=True)
with PacketObserver([Ends(17, there, there, 0, 9)], Limits(seconds=60)) as observer:
    print("watching", flush=True)
    for _ in observer.events():
        pass
"""
MOST_LISTINGS = 20
LONGEST = 30.0
"""Seconds until what ended must be gone; programs are freed after a grace period of the kernel's."""
SESSION_FIELD = 3
"""Of /proc/PID/stat behind the name: state, parent, group, session."""
PAUSE = 0.02


def listed(kind: str) -> list[dict[str, Any]]:
    """What bpftool lists; it fails where something goes away while it lists, and is asked again then."""
    for _ in range(MOST_LISTINGS):
        done = subprocess.run(["bpftool", "-j", kind, "show"], capture_output=True)
        if done.returncode == 0:
            found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
            return found
    raise AssertionError(f"bpftool does not list: {done.stderr!r} {done.stdout!r}")


def ours(kind: str) -> set[int]:
    """Ids of programs, maps or links of the tracing program, whoever runs it."""
    if kind == "link":
        programs = ours("prog")
        return {one["id"] for one in listed(kind) if one.get("prog_id") in programs}
    return {one["id"] for one in listed(kind) if str(one.get("name", "")).startswith("cdebug_")}


def held(kind: str) -> set[int]:
    """Ids of those that a living process has open: others may observe at the same time."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/fdinfo/*"):
        try:
            text = path.read_text()
        except OSError:
            continue
        found |= {int(number) for number in re.findall(rf"^{kind}_id:\t(\d+)$", text, re.MULTILINE)}
    if kind == "map":
        # Some are open in their programs alone.
        programs = held("prog")
        found |= {number for one in listed("prog") if one["id"] in programs for number in one.get("map_ids", ())}
    return found


def wait_until_gone(kind: str) -> None:
    """Nothing may be there that no process has open."""
    end = time.monotonic() + LONGEST
    left = ours(kind) - held(kind)
    while left:
        assert time.monotonic() < end, f"{kind}s {left} are still there"
        time.sleep(PAUSE)
        left &= ours(kind) - held(kind)


def session_members(session: int) -> set[int]:
    found = set()
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                fields = (path / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[SESSION_FIELD]) == session and fields[0] not in "ZX":
                found.add(int(path.name))
    return found


def wait_for_session(session: int) -> None:
    """Until the programs that the killed one had started have ended, too."""
    end = time.monotonic() + LONGEST
    while left := session_members(session):
        assert time.monotonic() < end, f"processes {left} are still there"
        time.sleep(PAUSE)


class Surroundings:
    """What an observer might leave: mounts, pins, interfaces, files."""

    def __init__(self, folder: Path) -> None:
        self.mounts = Path("/proc/self/mounts").read_text().count("bpf")
        self.interfaces = sorted(
            path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith("cdebug")
        )
        pins = Path("/sys/fs/bpf")
        self.pins = sorted(path.name for path in pins.iterdir() if "cdebug" in path.name) if pins.is_dir() else []
        self.files = sorted(path.name for path in folder.iterdir())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Surroundings) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


@contextmanager
def started(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """An observer in a session of its own, which has begun; after the test nothing of it may be there."""
    before = Surroundings(folder)
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield process
    finally:
        process.kill()
        process.communicate()
    wait_for_session(process.pid)
    wait_until_gone("prog")
    wait_until_gone("map")
    wait_until_gone("link")
    assert Surroundings(folder) == before


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    need_observer()
    return tmp_path


def kill_at(delay: float, folder: Path) -> bool:
    """Kill an observer so long after it has begun; whether it was watching already."""
    with started(folder) as process:
        with suppress(subprocess.TimeoutExpired):
            process.wait(delay)
        process.kill()
        return line_of(process) == "watching\n"


def test_an_observer_that_ends_by_itself(folder: Path) -> None:
    with started(folder) as process:
        assert line_of(process) == "watching\n"
        assert {one for kind in ("prog", "map", "link") for one in ours(kind) & held(kind)}
        process.send_signal(signal.SIGINT)
        process.wait(LONGEST)


def test_killed_while_watching(folder: Path) -> None:
    with started(folder) as process:
        assert line_of(process) == "watching\n"
        process.kill()


@pytest.mark.parametrize("delay", [0.05, 0.2, 0.35, 0.5, 0.65, 0.8])
def test_killed_on_the_way(folder: Path, delay: float) -> None:
    kill_at(delay, folder)


@pytest.mark.slow
def test_killed_hundreds_of_times(folder: Path) -> None:
    """At random points of starting and of watching."""
    dice = random.Random(20261121)
    watching = [kill_at(dice.uniform(0.0, 1.5), folder) for _ in range(200)]
    assert 10 < sum(watching) < 190


def test_a_loader_whose_parent_is_killed_leaves_nothing(folder: Path) -> None:
    """The program that loads is a child of ours: without its parent it goes on, and lets everything go at its end."""
    with started(folder) as process:
        end = time.monotonic() + LONGEST
        while not any(b"bpftool" in _command(pid) for pid in session_members(process.pid)):
            assert process.poll() is None
            assert time.monotonic() < end, "bpftool was never seen"
        process.kill()


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
