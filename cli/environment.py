"""What a command touches of the world: its streams, the variables, the terminal, the way to evidence.

Commands take one of these instead of reaching for ``sys``, so a test hands in its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import FileIO, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self, TextIO

from calico_debug.cli.errors import PROGRAM
from calico_debug.model.explanation import FlowExplanation
from calico_debug.model.observation import Wanted
from calico_debug.model.subject import Subject

if TYPE_CHECKING:
    from calico_debug.capture.teller import Teller
    from calico_debug.explain.packet_story import Places
    from calico_debug.model.packet_event import Losses, PacketEvent


@dataclass(frozen=True, slots=True)
class Question:
    """One flow as typed. ``protocol`` None means the service port's, else TCP; ``via`` is a node's name.

    ``wanted`` is the verdict, allowed or denied, for which advice is asked; None for none.
    """

    source: str
    destination: str
    protocol: str | None = None
    via: str | None = None
    wanted: str | None = None


PLUGIN, PLUGIN_WORDS = "kubectl-calico_debug", "kubectl calico-debug"
"""The name of the program that kubectl takes for a plugin, and how that is called then."""
COMPLETION = "_CALICO_DEBUG_COMPLETE"
"""The variable by which a shell asks what a word may be (`calico_debug.cli.completion`)."""
OFF = "off"
"""The value of ``--agents`` with which no other node is asked."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where evidence is looked for. ``bundle`` None means live, on this node; ``namespace`` completes bare names.

    ``kubeconfig`` and ``context`` name the cluster of a live node; None means what kubectl would take.
    ``agent`` is the socket or URL of an agent to read through; ``agent_ca`` and ``agent_token_file`` are files for it.
    ``agents`` is the namespace of the agents that other nodes are asked through; None means the usual one, "off" none.
    """

    bundle: str | None = None
    namespace: str | None = None
    node: str | None = None
    kubeconfig: str | None = None
    context: str | None = None
    agent: str | None = None
    agent_ca: str | None = None
    agent_token_file: str | None = None
    agents: str | None = None


class Tracer(Protocol):
    """Answers questions from the evidence of one place."""

    def trace(self, question: Question) -> FlowExplanation:
        """The explanation. Raises `calico_debug.errors.CalicoDebugError`."""

    def witness(self, explanation: FlowExplanation, wanted: Wanted) -> FlowExplanation:
        """The explanation with what counters and packets say, of a live node. Raises the same."""


def open_tracer(place: Place, platform: str) -> Tracer:
    """The real one. Imported on first use: ``--help`` needs nothing of it."""
    from calico_debug.cli.tracer import open_tracer as open_real

    return open_real(place, platform)


@dataclass(frozen=True, slots=True)
class WatchQuestion:
    """What packets to watch, and when enough was seen."""

    subject: Subject
    seconds: float
    packets: int
    bytes: int
    rate: int
    data: int = 0
    """Bytes wanted of each packet."""


class PacketWatch(Protocol):
    """Watches packets on this node. Entering it starts watching."""

    explanation: FlowExplanation | None
    """The prediction; None for drops, and where there is none."""
    subject: str
    """What is watched, in words."""
    notes: list[str]
    """What the user should know of the watching itself."""
    places: Places
    losses: Losses
    limited_by: str
    """The limit that ended it, known at the end."""

    def __enter__(self) -> Self:
        """Start. Raises `calico_debug.errors.CalicoDebugError`."""

    def __exit__(self, *_: object) -> None:
        """End, whatever happened."""

    def events(self) -> Iterator[PacketEvent]:
        """Events as they come, until a limit is reached."""

    def stop(self) -> None:
        """Let `events` end soon."""

    def finish(self) -> list[PacketEvent]:
        """Stop watching, and give what was queued."""

    def mark_words(self, mark: int) -> tuple[str, ...]:
        """What a mark means on this node."""

    def teller(self) -> Teller:
        """What says what captured packets are."""


def open_watch(place: Place, platform: str, question: WatchQuestion) -> PacketWatch:
    """The real one. Imported on first use: ``--help`` needs nothing of it."""
    from calico_debug.cli.watcher import open_watch as open_real

    return open_real(place, platform, question)


@dataclass(frozen=True, slots=True)
class Environment:
    """``stdin`` gives bytes, since a line of ``--flows`` may be anything; ``platform`` is like ``sys.platform``.

    ``columns`` is the terminal's width when ``stdout`` is one, else None; ``attended`` tells that ``stderr`` is one.
    """

    stdin: BinaryIO
    stdout: TextIO
    stderr: TextIO
    variables: Mapping[str, str] = field(default_factory=dict)
    terminal: bool = False
    columns: int | None = None
    attended: bool = False
    platform: str = "linux"
    program: str = PROGRAM
    open_tracer: Callable[[Place, str], Tracer] = open_tracer
    open_watch: Callable[[Place, str, WatchQuestion], PacketWatch] = open_watch

    def colour(self, choice: str) -> bool:
        """Whether to colour, from ``--color`` and, for "auto", the terminal, NO_COLOR (no-color.org) and TERM."""
        if choice != "auto":
            return choice == "always"
        return self.terminal and not self.variables.get("NO_COLOR") and self.variables.get("TERM") != "dumb"

    @contextmanager
    def progress(self) -> Iterator[Callable[[], None]]:
        """Show what is being done, when it takes long and somebody looks. What it gives takes the line away: to be
        called before something else is written.
        """
        if not self.attended or self.variables.get("TERM") == "dumb":
            yield lambda: None
            return
        from calico_debug.cli.progress import shown_on

        with shown_on(self.stderr, partial(_columns, self.stderr)) as progress:
            yield progress.remove


def process_environment() -> Environment:
    """The environment of this process. A standard stream that is closed acts like the null device."""
    stdin, stdout, stderr = (stream or _null_device() for stream in (sys.stdin, sys.stdout, sys.stderr))
    for stream in (stdout, stderr):
        # A name that the terminal's encoding lacks must not end the command.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    terminal = stdout.isatty()
    return Environment(
        stdin=stdin.buffer,
        stdout=stdout,
        stderr=stderr,
        variables=os.environ,
        terminal=terminal,
        columns=_columns(stdout) if terminal else None,
        attended=stderr.isatty(),
        platform=sys.platform,
        program=PLUGIN_WORDS if Path(sys.argv[0]).name == PLUGIN else PROGRAM,
    )


def _null_device() -> TextIO:
    return TextIOWrapper(FileIO(os.devnull, "r+"), encoding="utf-8", write_through=True)


def _columns(stream: TextIO) -> int | None:
    if (given := os.environ.get("COLUMNS", "")).isascii() and given.isdigit():
        return int(given) or None
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None
