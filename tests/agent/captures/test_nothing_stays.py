"""An agent that is killed while it captures leaves nothing in the kernel, and no closed file is lost."""

from __future__ import annotations

import os
import random
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from calico_debug.agent.captures.ring import OPEN
from calico_debug.capture.pcapng import whole_blocks
from calico_debug.cli.agent_client import AgentClient
from calico_debug.errors import CalicoDebugError
from tests.agent.captures.here import rows
from tests.agent.captures.live import SECONDS, agent
from tests.agent.packets.test_nothing_stays import Surroundings, wait_for_session, wait_until_gone
from tests.agent.test_nothing_stays import state

if TYPE_CHECKING:
    from tests.agent.captures.live import Running
    from tests.lab.lab import Lab

pytestmark = pytest.mark.kernel

KILLS = int(os.environ.get("CALICO_DEBUG_KILLS", "40"))
"""As many by default; each takes some seconds. Those of watching and of tracing are hundreds."""
LONGEST = 3.0
"""Seconds until the kill: both captures are begun after one or two."""
SMALL = {"bytes": 131_072, "files": 2, "snap": 64}
ASKED = ({"drops": True, **SMALL}, {"pod": "10.244.1.10", **SMALL})


def begin(running: Running) -> None:
    """Have two captures, as far as the agent lives to begin them."""
    source = AgentClient(running.socket)
    with suppress(CalicoDebugError):
        for asked in ASKED:
            source.json("/v1/captures", asked)


def left_by(lab: Lab, folder: Path) -> tuple[Surroundings, dict[str, object]]:
    """What is on the node, without the captures themselves."""
    return Surroundings(folder / "elsewhere"), {**state(lab, folder / "elsewhere"), "shared memory": None}


def captured(running: Running) -> bool:
    """Whether both captures have packets."""
    captures = AgentClient(running.socket).json("/v1/captures")["captures"]
    return [one["events"] > 0 for one in captures] == [True, True]


def kill_at(lab: Lab, folder: Path, delay: float | None) -> dict[str, bytes]:
    """Kill an agent so long after it was told to capture, with None when both captures have packets.

    The closed files that it leaves, with what is in them.
    """
    (folder / "elsewhere").mkdir(exist_ok=True)
    before = left_by(lab, folder)
    flows = [lab.flow("blue/db1", "red/web1", "udp", 53), lab.flow("red/cli1", "red/web1", "tcp", 80)]
    with agent(lab, folder, TMPDIR=str(folder / "elsewhere")) as running:
        teller = threading.Thread(target=begin, args=(running,))
        teller.start()
        begun = time.monotonic()
        while time.monotonic() < begun + delay if delay is not None else not captured(running):
            assert time.monotonic() < begun + SECONDS
            lab.send_all(flows * 5, silence=0.01)
        running.process.kill()
        running.process.wait()
        teller.join()
    wait_for_session(running.process.pid)
    for kind in ("prog", "map", "link"):
        wait_until_gone(kind)
    assert left_by(lab, folder) == before
    (folder / "agent.sock").unlink()
    return {str(path): path.read_bytes() for path in (folder / "captures").glob("*/*.pcapng")}


def test_killed_while_two_captures_run(lab: Lab, tmp_path: Path) -> None:
    """Everything that was written is there for the next agent, which says what became of them."""
    kill_at(lab, tmp_path, None)
    left = [path.name for path in (tmp_path / "captures").glob("*/*")]
    assert sum(name.endswith(OPEN) for name in left) == 2
    with agent(lab, tmp_path) as running:
        captures = AgentClient(running.socket).json("/v1/captures")["captures"]
        assert [one["state"] for one in captures] == ["interrupted", "interrupted"]
        assert [one["endedBy"] for one in captures] == ["the end of the agent"] * 2
        for one in captures:
            running.text("get", one["id"], "--write", str(tmp_path / one["id"]))
            assert len(rows(tmp_path / one["id"])) == sum(file["packets"] for file in one["files"]) > 0
            running.text("delete", one["id"])
    assert list((tmp_path / "captures").iterdir()) == []


@pytest.mark.parametrize("delay", [0.0, 0.6, 1.2, 1.8])
def test_killed_on_the_way(lab: Lab, tmp_path: Path, delay: float) -> None:
    closed = kill_at(lab, tmp_path, delay)
    check(lab, tmp_path, closed)


def check(lab: Lab, folder: Path, closed: dict[str, bytes]) -> None:
    """Closed files are whole and stay as they are; of those that were open the next agent keeps what is whole."""
    for content in closed.values():
        assert whole_blocks(content)[0] == len(content)
    with agent(lab, folder) as running:
        captures = AgentClient(running.socket).json("/v1/captures")["captures"]
    assert all(one["state"] != "running" for one in captures)
    files = {str(path): path.read_bytes() for path in (folder / "captures").glob("*/*.pcapng*")}
    assert closed.items() <= files.items()
    assert {str(folder / "captures" / one["id"] / file["name"]) for one in captures for file in one["files"]} == set(
        files
    )
    for content in files.values():
        assert whole_blocks(content)[0] == len(content)


@pytest.mark.slow
def test_killed_many_times(lab: Lab, tmp_path: Path) -> None:
    """At random points of starting and of capturing; the captures of all of them gather until the room is used up."""
    dice = random.Random(20261122)
    kept = 0
    for number in range(KILLS):
        folder = tmp_path / str(number)
        folder.mkdir()
        closed = kill_at(lab, folder, dice.uniform(0.0, LONGEST))
        kept += len(closed)
        check(lab, folder, closed)
    assert kept > 0
