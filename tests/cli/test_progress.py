"""The line that says what a command is doing: unit by unit, and in a real terminal."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

from calico_debug.activity import say
from calico_debug.cli import progress
from calico_debug.cli.environment import Environment, Question
from calico_debug.cli.main import main
from calico_debug.cli.progress import CLEARED, COLUMNS, SILENCE, Progress
from calico_debug.evidence.bundle import Bundle
from calico_debug.model.explanation import FlowExplanation
from calico_debug.model.observation import Wanted
from tests.agent.serving import serving
from tests.cli.samples import SAMPLES
from tests.recordings import recordings

PROGRAM = Path(sys.executable).with_name("calico-debug")
SECONDS = 60.0
COLUMN_COUNT = 60


class Terminal:
    """A stream and a clock."""

    def __init__(self, columns: int | None = None) -> None:
        self.stream = io.StringIO()
        self.now = 0.0
        self.progress = Progress(self.stream, lambda: columns, lambda: self.now)

    def after(self, seconds: float, what: str = "") -> str:
        """What is written when somebody looks so much later, and something was said meanwhile."""
        self.now += seconds
        if what:
            self.progress.hear(what)
        before = self.stream.tell()
        self.progress.show()
        return self.stream.getvalue()[before:]


def test_silence_first_then_the_last_thing_said() -> None:
    terminal = Terminal()
    assert terminal.after(SILENCE / 2, "reading a") == ""
    assert terminal.after(SILENCE / 2) == f"{CLEARED}reading a ..."
    assert terminal.after(1.0) == ""
    assert terminal.after(0.1, "reading b") == f"{CLEARED}reading b ..."


def test_nothing_was_said() -> None:
    assert Terminal().after(10 * SILENCE) == ""


def test_it_goes_for_what_is_written_and_stays_away_while_that_is_new() -> None:
    terminal = Terminal()
    terminal.after(SILENCE, "reading a")
    before = terminal.stream.tell()
    terminal.progress.remove()
    terminal.progress.remove()
    assert terminal.stream.getvalue()[before:] == CLEARED
    assert terminal.after(SILENCE) == ""
    assert terminal.after(0.1, "reading b") == f"{CLEARED}reading b ..."


@pytest.mark.parametrize("columns", [1, 10, 40, None])
@pytest.mark.parametrize("what", ["x" * 200, "\x1b[2J\x1b]0;title\x07" * 20, "節点" * 60, "a\nb\r\tc\u202e" * 30])
def test_one_line_that_steers_nothing_and_does_not_wrap(columns: int | None, what: str) -> None:
    shown = Terminal(columns).after(SILENCE, what).removeprefix(CLEARED)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) < max(columns or COLUMNS, len(" ...") + 1)


def test_a_terminal_that_is_gone_ends_nothing() -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError("input/output error")

    line = Progress(Gone(), lambda: None, lambda: 0.0)
    line.hear("reading a")
    line.show()
    line.remove()


@pytest.mark.parametrize(("attended", "kind"), [(False, "xterm"), (True, "dumb")])
def test_where_no_line_can_be_nothing_is_said(*, attended: bool, kind: str) -> None:
    stderr = io.StringIO()
    before = threading.active_count()
    environment = Environment(io.BytesIO(), io.StringIO(), stderr, {"TERM": kind}, attended=attended)
    with environment.progress() as make_room:
        say("reading a")
        make_room()
        assert threading.active_count() == before
    assert stderr.getvalue() == ""


def until(terminal: int, wanted: bytes, most: int = 1 << 16) -> bytes:
    """What a terminal shows up to some words."""
    shown = b""
    while wanted not in shown:
        piece = os.read(terminal, 1024)
        assert piece, shown
        shown += piece
        assert len(shown) < most
    return shown


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Evidence that comes when this is set."""
    gate, read = threading.Event(), Bundle.read

    def wait(bundle: Bundle, path: str, what_to_do: str) -> bytes:
        assert gate.wait(SECONDS)
        return read(bundle, path, what_to_do)

    monkeypatch.setattr(Bundle, "read", wait)
    return gate


class Screen(io.StringIO):
    """A terminal that both streams go to; ``drawn`` is set when something is written."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = threading.Event()

    def write(self, text: str) -> int:
        self.drawn.set()
        return super().write(text)


class Patient:
    """Answers when a line is shown."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen

    def trace(self, question: Question) -> FlowExplanation:
        self.screen.drawn.clear()
        say(f"reading about {question.source}")
        assert self.screen.drawn.wait(SECONDS)
        return SAMPLES["denied_end_of_tier"]

    def witness(self, explanation: FlowExplanation, wanted: Wanted) -> FlowExplanation:  # noqa: ARG002
        return explanation


def test_answers_and_the_line_share_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    monkeypatch.setattr(progress, "TURN", 0.01)
    screen = Screen()
    flows = b'{"from": "a\\u001b[31m", "to": "b"}\n{"from": "c", "to": "d"}\n'
    environment = Environment(
        io.BytesIO(flows), screen, screen, {"TERM": "xterm"}, attended=True, open_tracer=lambda *_: Patient(screen)
    )
    assert main(["trace", "--flows", "-"], environment) == 0
    parts = screen.getvalue().split(CLEARED)
    assert "reading about a\\x1b[31m ..." in parts
    assert "reading about c ..." in parts
    answers = [part for part in parts if part.startswith("{")]
    assert [json.loads(answer)["verdict"] for answer in answers] == ["denied", "denied"]
    assert all(part.endswith(" ...") for part in parts if part and part not in answers)


QUESTION = ("--from", "client/client-5f8b", "--to", "svc/stars/backend", "-o", "json")


def test_in_a_terminal_while_an_agent_is_slow(slow: threading.Event, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMN_COUNT, 0, 0))
    with serving(tmp_path, recordings("3.32.1-nft")[0].source) as agent:
        running = subprocess.Popen(
            [PROGRAM, "trace", "--agent", agent.path, *QUESTION],
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={"TERM": "xterm", "PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        )
        os.close(theirs)
        shown = until(ours, b" ...")
        assert shown.decode().startswith(f"{CLEARED}asking ")
        assert len(shown.decode().removeprefix(CLEARED)) < COLUMN_COUNT
        slow.set()
        out, _ = running.communicate(timeout=SECONDS)
        shown += until(ours, CLEARED.encode()) if not shown.endswith(CLEARED.encode()) else b""
    os.close(ours)
    assert shown.decode().endswith(CLEARED)
    assert b"\n" not in shown
    assert running.returncode == 0
    assert json.loads(out)["kind"] == "FlowExplanation"


def test_never_in_a_pipe(slow: threading.Event, tmp_path: Path) -> None:
    with serving(tmp_path, recordings("3.32.1-nft")[0].source) as agent:
        threading.Timer(SILENCE + 0.5, slow.set).start()
        done = subprocess.run(
            [PROGRAM, "trace", "--agent", agent.path, *QUESTION], capture_output=True, timeout=SECONDS, check=True
        )
    assert done.stderr == b""
    assert json.loads(done.stdout)["kind"] == "FlowExplanation"
