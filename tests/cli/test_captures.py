"""The commands that speak to an agent about its captures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from calico_debug.agent import settings
from calico_debug.agent.captures.running import BOUNDS, CaptureLimits
from calico_debug.cli.captures import COMMANDS
from calico_debug.cli.environment import OFF
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.place_of_agent import SOCKET, VARIABLE
from calico_debug.model.subject import Subject
from tests.agent.captures.made import Made, serving_captures
from tests.cli.worlds import Ran, run

if TYPE_CHECKING:
    from pathlib import Path


class Node:
    """A node with an agent."""

    def __init__(self, made: Made, socket: str) -> None:
        self.made, self.socket = made, socket

    def capture(self, *arguments: str) -> Ran:
        return run("capture", *arguments, variables={"CALICO_DEBUG_SOCKET": self.socket})


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Made(tmp_path / "captures")
    with serving_captures(tmp_path, made) as agent:
        yield Node(made, agent.path)


def test_the_life_of_a_capture(node: Node, tmp_path: Path) -> None:
    started = node.capture("start", "--pod", "a", "-n", "b", "--seconds", "9", "--rate", "50", "-o", "json")
    assert (started.code, started.err) == (ExitCode.ANSWERED, "warning: a note\n")
    name = json.loads(started.out)["id"]
    ((subject, limits, _),) = node.made.asked
    assert (subject, limits.seconds, limits.rate) == (Subject(pod="a", namespace="b"), 9, 50)
    assert node.capture("list").out.splitlines()[1].startswith(f"{name}  running  ")
    assert node.capture("stop", name).out.splitlines()[0] == f"{name}  ended  pod a/b  (ended by stop)"
    path = tmp_path / "out.pcapng"
    got = node.capture("get", name, "-w", str(path))
    assert got.out.splitlines()[0] == f"{path}: {path.stat().st_size} bytes, 1 of the capture's files"
    assert got.out.splitlines()[-1] == "lost      5 events (0 for want of room, 5 over the limit of the rate)"
    assert node.capture("get", name, "-w", str(path)).code == ExitCode.USAGE
    assert node.capture("delete", name).code == ExitCode.ANSWERED
    assert node.capture("list").out == "no captures\n"
    assert node.capture("list", "-o", "json").out == '{"captures":[]}\n'


def test_stopped_and_removed_at_once(node: Node) -> None:
    name = json.loads(node.capture("start", "--drops", "-o", "json").out)["id"]
    assert node.capture("stop", name, "--delete").code == ExitCode.ANSWERED
    assert node.capture("list").out == "no captures\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("start",), ExitCode.USAGE, "--from and --to missing"),
        (("start", "--pod", "a", "--policy", "b"), ExitCode.USAGE, "contradict each other"),
        (("start", "--pod", "nobody"), ExitCode.USAGE, "no pod is named 'nobody'"),
        (("start", "--drops", "--seconds", "0"), ExitCode.USAGE, "--seconds"),
        (("start", "--drops", "--bytes", "65536"), ExitCode.USAGE, "give more bytes, or fewer files"),
        (("get", "20261121-174704-8db1", "-w", "/nonexistent/x"), ExitCode.FAILED, "there is no capture"),
        (("stop", "../x"), ExitCode.FAILED, "there is no"),
        (("get", "x"), ExitCode.USAGE, "--write"),
        (("what",), ExitCode.USAGE, "No such command"),
    ],
)
def test_what_is_refused(node: Node, arguments: tuple[str, ...], code: int, said: str) -> None:
    ran = node.capture(*arguments)
    assert (ran.code, ran.out) == (code, "")
    (line,) = ran.err.splitlines()
    assert said in line


def test_the_agent_that_is_named_goes_first(node: Node) -> None:
    assert run("capture", "list", "--agent", node.socket).code == ExitCode.ANSWERED
    ran = run("capture", "list", "--agent", "/nonexistent", variables={"CALICO_DEBUG_SOCKET": node.socket})
    assert "agent /nonexistent" in ran.err
    assert run("capture", "list", variables={"CALICO_DEBUG_SOCKET": "off"}).code == ExitCode.USAGE


def test_the_usual_agent_is_the_agents_usual_socket() -> None:
    assert (settings.DEFAULT_SOCKET, settings.VARIABLES["socket"], settings.OFF) == (SOCKET, VARIABLE, OFF)


def test_limits_are_the_agents() -> None:
    """What the help says is usual, and what the command takes."""
    options = {one.name: one for one in COMMANDS[0].params}
    usual = CaptureLimits()
    for name, (least, most) in BOUNDS.items():
        bounds = options[name].type
        assert (bounds.min, bounds.max) == (least, most)  # type: ignore[attr-defined]
        value = getattr(usual, name)
        shown = f"{value >> 20} MiB" if name == "bytes" else f"{value:g}" if name == "seconds" else str(value)
        assert f"{shown} when left out" in str(options[name].help)  # type: ignore[attr-defined]
