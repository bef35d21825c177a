"""The command ``calico-debug top``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Lock, Thread
from typing import TYPE_CHECKING

import click

from calico_debug.cli.environment import Environment, Place, WatchQuestion
from calico_debug.cli.errors import one_line
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.options import cluster_options, contradictions, node_option
from calico_debug.errors import CalicoDebugError, EvidenceError, UsageError
from calico_debug.model.subject import Subject

if TYPE_CHECKING:
    from calico_debug.cli.environment import PacketWatch
    from calico_debug.cli.render.top import DroppedFlow, View
    from calico_debug.hits.rates import Reading

FORMATS = ("text", "json")
FINDINGS_SECONDS = 60.0
"""How old findings may be: looking a node over takes longer than reading its counters."""
AGENT_SECONDS = 2.1
"""An agent's counters are up to 2 s old."""
MOST_SECONDS, MOST_PACKETS, MOST_BYTES, DROP_RATE = 3600.0, 1_000_000, 10 << 30, 1000
FLOWS = 10_000
"""Most dropped flows that are told apart."""

Samples = Callable[[], list[tuple[str, Mapping[str, str], float]]]

HELP = """Watch a node live: denied traffic, how often rules are met, and what is wrong.

    Counters are read again and again, nothing on the node is changed. With --drops the packets that the kernel drops
    are watched, too, with programs that end with the command. Keys: q quits, p pauses, s sorts by rate, total or name,
    v goes on to drops, findings and dropped flows, the arrows scroll.

    \b
    Examples:
      calico-debug top
      calico-debug top --drops
      calico-debug top --once -o json
    """


@click.command(short_help="Watch denied traffic, hit rates and findings of a node.", help=HELP)
@click.option("--once", is_flag=True, help="Print one view and end, for scripts.")
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 60.0),
    default=1.0,
    metavar="SECONDS",
    help="Read counters so often; 1 when left out.",
)
@click.option("--drops", is_flag=True, help="Watch dropped packets, too: attaches programs while the command runs.")
@click.option("--agent", metavar="SOCKET_OR_URL", help="Read a node through its agent (calico-debug agent).")
@click.option("--agent-ca", metavar="FILE", help="The certificate of an agent over TLS, or who signed it; PEM.")
@click.option(
    "--agent-token-file",
    metavar="FILE",
    help="The token for an agent over TLS; when left out CALICO_DEBUG_AGENT_TOKEN, then an agent's own.",
)
@node_option
@cluster_options
@click.option("-o", "--output", type=click.Choice(FORMATS), default="text", help="The form of --once.")
@click.pass_obj
def top(environment: Environment, /, once: bool, interval: float, drops: bool, output: str, **given: str | None) -> int:
    """Watch and show."""
    place = Place(**given)
    contradictions({"--agent": place.agent, "--node": place.node})
    if drops and place.agent is not None:
        raise UsageError("--drops watches packets of this node: leave out --agent, or run on the node")
    if output != "text" and not once:
        raise UsageError("-o json is the form of --once: give both")
    if not once and not (environment.terminal and environment.stdin.isatty()):
        raise UsageError("this is no terminal to draw on: use --once")
    node, samples = _counters(place, environment.platform)
    with _dropped(environment, place, drops) as flows:
        watched = _Watched(node, samples, lambda: _findings(place, environment.platform), flows)
        if once:
            watched.read()
            watched.wait_for_findings()
            time.sleep(max(interval, AGENT_SECONDS) if place.agent else interval)
            _print(environment, watched.read(), output)
            return ExitCode.ANSWERED
        from calico_debug.cli.screen import watch

        watch(watched.read, max(interval, AGENT_SECONDS) if place.agent else interval)
    return ExitCode.ANSWERED


def _print(environment: Environment, view: View, output: str) -> None:
    from calico_debug.cli.render import json
    from calico_debug.cli.render.top import text
    from calico_debug.hits.rates import document
    from calico_debug.model.explanation import API_VERSION

    if output == "text":
        environment.stdout.write(text(view))
        return
    environment.stdout.write(
        json.dump(
            {
                "apiVersion": API_VERSION,
                "kind": "NodeView",
                "node": view.node,
                "at": view.at,
                "rules": [document(one) for one in view.rules],
                "drops": [document(one) for one in view.drops],
                "findings": [{"severity": one[0], "code": one[1], "evidence": one[2]} for one in view.findings],
                **(
                    {"flows": [{"flow": one.name, "reason": one.why, "packets": one.packets} for one in view.flows]}
                    if view.flows is not None
                    else {}
                ),
                "notes": list(view.notes),
            }
        )
    )


# ------------------------------------------------------------------------------------------------------------- sources


def _counters(place: Place, platform: str) -> tuple[str, Samples]:
    """The node's name, and what reads its counters. Raises `CalicoDebugError`."""
    from calico_debug.cli.agent_source import AgentSource
    from calico_debug.cli.tracer import open_source

    source = open_source(place, platform)
    if isinstance(source, AgentSource):
        return (source.nodes() or ("?",))[0], lambda: _told(source.json("/v1/counters"))
    if not source.nodes():
        raise EvidenceError(
            f"{source.origin} has no node that could be watched: run on a Linux node, or name an --agent"
        )
    from calico_debug.agent.collector import Collector

    collector = Collector(source, cached=0.0)
    return source.nodes()[0], collector.listed


def _told(document: Mapping[str, object]) -> list[tuple[str, Mapping[str, str], float]]:
    """An agent's counters, as far as they are such."""
    found: list[tuple[str, Mapping[str, str], float]] = []
    listed = document.get("counters")
    for one in listed if isinstance(listed, list) else ():
        name, labels, value = (
            (one.get(key) for key in ("name", "labels", "value")) if isinstance(one, dict) else [None] * 3
        )
        if (
            isinstance(name, str)
            and isinstance(labels, dict)
            and isinstance(value, int | float)
            and math.isfinite(value)
        ):
            found.append((name, {str(key): str(text) for key, text in labels.items()}, float(value)))
    return found


def _findings(place: Place, platform: str) -> list[tuple[str, str, str]]:
    """What the doctor finds, the worst first. Evidence of its own, since it is read beside the counters."""
    from calico_debug.cli.tracer import open_source
    from calico_debug.doctor.examine import examine

    source = open_source(place, platform)
    report = examine(source, source.nodes())
    return [(one.severity, one.code, one.seen) for one in report.findings]


class _Watched:
    """Everything that is shown, read again each time."""

    def __init__(
        self,
        node: str,
        samples: Samples,
        findings: Callable[[], list[tuple[str, str, str]]],
        flows: _Drops | None,
    ) -> None:
        self._node, self._samples, self._examine, self._flows = node, samples, findings, flows
        self._before: Reading | None = None
        self._lock = Lock()
        self._findings: list[tuple[str, str, str]] = []
        self._problem = ""
        self._examined_at = float("-inf")
        self._examining: Thread | None = None

    def read(self) -> View:
        """The view now. Raises `CalicoDebugError`."""
        from calico_debug.cli.render.top import View
        from calico_debug.hits.rates import rates, reading

        now = reading(time.monotonic(), self._samples())
        rules, drops = rates(self._before, now)
        self._before = now
        self._start_examining()
        with self._lock:
            findings, problem = list(self._findings), self._problem
        flows = self._flows.listed() if self._flows is not None else None
        notes = [problem] if problem else []
        notes += self._flows.notes if self._flows is not None else ()
        return View(
            self._node, datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%SZ"), rules, drops, findings, flows, tuple(notes)
        )

    def wait_for_findings(self) -> None:
        """Until the doctor is through."""
        if self._examining is not None:
            self._examining.join(FINDINGS_SECONDS)

    def _start_examining(self) -> None:
        busy = self._examining is not None and self._examining.is_alive()
        if busy or time.monotonic() - self._examined_at < FINDINGS_SECONDS:
            return
        self._examined_at = time.monotonic()
        self._examining = Thread(target=self._look, daemon=True)
        self._examining.start()

    def _look(self) -> None:
        try:
            found, problem = self._examine(), ""
        except CalicoDebugError as error:
            found, problem = [], f"findings: {one_line(str(error))}"
        with self._lock:
            self._findings, self._problem = found, problem


class _Drops:
    """Packets that are dropped, by flow, counted while they are watched."""

    def __init__(self, watch: PacketWatch) -> None:
        self._watch = watch
        self._lock = Lock()
        self._counts: dict[tuple[str, str], int] = {}
        self._stopping = False
        self.notes: list[str] = list(watch.notes)
        self._thread = Thread(target=self._take, daemon=True)
        self._thread.start()

    def listed(self) -> list[DroppedFlow]:
        """The flows so far."""
        from calico_debug.cli.render.top import DroppedFlow

        with self._lock:
            return [DroppedFlow(name, why, packets) for (name, why), packets in self._counts.items()]

    def stop(self) -> None:
        """Stop watching, and wait until all is taken."""
        self._stopping = True
        self._watch.stop()
        self._thread.join()

    def _take(self) -> None:
        from calico_debug.cli.render.words import address
        from calico_debug.model.flow import protocol_name
        from calico_debug.model.packet_event import DROPPED

        try:
            for event in self._watch.events():
                if event.kind != DROPPED:
                    continue
                ends = event.ends
                source = address(str(ends.source), None)
                target = address(str(ends.destination), ends.destination_port or None)
                key = f"{protocol_name(ends.protocol)} {source} -> {target}", f"{event.reason} {event.place}".strip()
                with self._lock:
                    if key in self._counts or len(self._counts) < FLOWS:
                        self._counts[key] = self._counts.get(key, 0) + 1
            ended = "an hour, a million packets or 10 GiB have passed"
        except CalicoDebugError as error:
            ended = one_line(str(error))
        if not self._stopping:
            with self._lock:
                self.notes.append(f"drops are not watched any more: {ended}")


@contextmanager
def _dropped(environment: Environment, place: Place, wanted: bool) -> Iterator[_Drops | None]:
    """What is dropped, watched as long as this is open; None where it is not wanted."""
    if not wanted:
        yield None
        return
    question = WatchQuestion(Subject(drops=True), MOST_SECONDS, MOST_PACKETS, MOST_BYTES, DROP_RATE)
    with environment.open_watch(place, environment.platform, question) as watch:
        drops = _Drops(watch)
        try:
            yield drops
        finally:
            drops.stop()
