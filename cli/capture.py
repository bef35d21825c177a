"""The command ``calico-debug capture``."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

import click

from calico_debug import __version__
from calico_debug.cli.environment import Environment, Place, WatchQuestion
from calico_debug.cli.errors import PROGRAM, one_line, warn
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.files import new_file
from calico_debug.cli.observe import MOST_PACKETS, MOST_SECONDS, asked_flow, flow_options, interruptible, place_options
from calico_debug.cli.render import pcapng
from calico_debug.cli.render.terminal import PLAIN, safe
from calico_debug.model.packet_event import DROPPED, SENT

if TYPE_CHECKING:
    from calico_debug.cli.environment import PacketWatch
    from calico_debug.explain.packet_story import Story
    from calico_debug.model.explanation import BackendOutcome, FlowEnd, FlowExplanation
    from calico_debug.model.packet_event import PacketEvent

MOST_SNAP = 2048
MOST_FILE = 1 << 30
MOST_SEEN = 1 << 40
"""Bytes of packets: of a capture, the file's size is what is limited."""

HELP = """Write packets of a flow, or all drops, to a pcapng file.

    A packet stands in the file once for each interface that saw it, those inside of pods and tunnels among them, with
    a comment: which way it went, where it was, why the kernel dropped it, and what decided about the flow. Packets
    begin with their IP header.

    \b
    Examples:
      calico-debug capture --from client/client --to svc/stars/frontend --write flow.pcapng
      calico-debug capture --drops --seconds 60 --write drops.pcapng
    """


@click.command("capture", short_help="Write packets of a flow to a pcapng file.", help=HELP)
@flow_options
@click.option("-w", "--write", "path", metavar="FILE", required=True, help="The file to make; there must be none yet.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, MOST_SECONDS),
    default=60.0,
    metavar="N",
    help="Capture for so long at most; 60 when left out.",
)
@click.option(
    "--packets",
    type=click.IntRange(1, MOST_PACKETS),
    default=10_000,
    metavar="N",
    help="End after so many packets; 10000 when left out.",
)
@click.option(
    "--bytes",
    "size",
    type=click.IntRange(1, MOST_FILE),
    default=64 << 20,
    metavar="N",
    help="End when the file has so many bytes; 64 MiB when left out.",
)
@click.option(
    "--snap",
    type=click.IntRange(64, MOST_SNAP),
    default=256,
    metavar="N",
    help="Keep so many bytes of each packet; 256 when left out, 2048 at most.",
)
@place_options
@click.pass_obj
def capture(
    environment: Environment,
    /,
    source: str | None,
    destination: str | None,
    protocol: str | None,
    via: str | None,
    drops: bool,
    path: str,
    seconds: float,
    packets: int,
    size: int,
    snap: int,
    rate: int,
    **place: str | None,
) -> int:
    """Capture one flow, or all drops."""
    flow = asked_flow(source, destination, protocol, via, drops)
    question = WatchQuestion(flow, seconds, packets, MOST_SEEN, rate, snap)
    watch = environment.open_watch(Place(None, **place), environment.platform, question)
    with ExitStack() as stack:
        stack.enter_context(watch)
        file = stack.enter_context(new_file(path, "--write"))
        warn(environment.stderr, watch.notes)
        told = len(watch.notes)
        environment.stderr.write(f"{one_line(f'capturing on {watch.places.node}: {watch.subject}')}\n")
        environment.stderr.flush()
        writer = _Writer(file, watch, snap)
        interrupted = writer.run(size)
        writer.finish(environment, path, drops)
        warn(environment.stderr, watch.notes[told:])
    return ExitCode.INTERRUPTED if interrupted else ExitCode.ANSWERED


class _Writer:
    """Writes events as they come."""

    def __init__(self, file: BinaryIO, watch: PacketWatch, snap: int) -> None:
        from calico_debug.explain.packet_story import Story

        self._file, self._watch, self._snap = file, watch, snap
        self._story: Story = Story(watch.places)
        self._interfaces: dict[tuple[int, int], int] = {}
        self._size = 0
        self._full = False
        self._decided = _decided(watch.explanation)
        self._put(pcapng.section(f"{PROGRAM} {__version__}"))
        if watch.explanation is not None and (known := _names(watch.explanation)):
            self._put(pcapng.names(known))

    def run(self, size: int) -> bool:
        """Write until a limit is reached; whether the user ended it."""
        with interruptible(self._watch.stop) as interrupted:
            for event in self._watch.events():
                if self._size < size:
                    self._write(event)
                else:
                    self._full = True
                    self._watch.stop()
        return bool(interrupted)

    def finish(self, environment: Environment, path: str, drops: bool) -> None:
        """Write what was queued, and tell the summary."""
        from calico_debug.cli.render.packets import summary_lines

        watch, story = self._watch, self._story
        for event in watch.finish():
            if not self._full:
                self._write(event)
        witness = None if drops else story.witness(datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), watch.losses.lost)
        numbers = (story.events, story.packets)
        ended = "bytes" if self._full else watch.limited_by
        environment.stdout.write(
            f"{safe(path)}: {self._size} bytes, {len(self._interfaces)} interfaces\n"
            + summary_lines(witness, watch.explanation, numbers, watch.losses, ended, PLAIN)
        )

    def _write(self, event: PacketEvent) -> None:
        number = self._story.add(event)
        sent = None if event.kind == DROPPED else event.kind == SENT
        self._put(
            pcapng.packet(
                self._interface(event),
                event.time,
                event.data,
                pcapng.ip_length(event.data, event.length),
                comment=self._comment(event),
                sent=sent,
                number=number,
            )
        )
        self._file.flush()

    def _interface(self, event: PacketEvent) -> int:
        key = (event.namespace, event.interface_index)
        if key not in self._interfaces:
            self._interfaces[key] = len(self._interfaces)
            where = self._watch.places.of(event)
            self._put(pcapng.interface(where, f"{where} of {self._watch.places.node}", self._snap))
        return self._interfaces[key]

    def _comment(self, event: PacketEvent) -> str:
        from calico_debug.cli.render.packets import VERBS, direction
        from calico_debug.explain.packet_story import drop_words

        way = direction(event)
        what = f"{way} " if way else ""
        text = f"{what}{VERBS[event.kind]} {self._watch.places.of(event)}"
        if event.kind == DROPPED:
            text += f": {drop_words(event)}"
        if words := self._watch.mark_words(event.mark):
            text += f"; mark {', '.join(words)}"
        return safe(f"{text}; predicted {self._decided}" if self._decided else text)

    def _put(self, block: bytes) -> None:
        self._file.write(block)
        self._size += len(block)


def _decided(explanation: FlowExplanation | None) -> str:
    """Verdict, tier, policy and rule of the prediction."""
    from calico_debug.cli.render.words import outcome

    if explanation is None:
        return ""
    tier = explanation.decision.tier if explanation.decision is not None else ""
    told = outcome(explanation.verdict, explanation.decision)
    return f"{told} (tier {tier})" if tier and f"tier {tier}" not in told else told


def _names(explanation: FlowExplanation) -> dict[str, list[str]]:
    """Names of the flow's addresses, as DNS would write them."""
    ends: tuple[FlowEnd | BackendOutcome, ...] = (explanation.source, explanation.destination, *explanation.backends)
    found: dict[str, list[str]] = {}
    for end in ends:
        if end.pod:
            found.setdefault(end.ip, []).append(f"{end.pod.get('name', '')}.{end.pod.get('namespace', '')}.pod")
    if service := explanation.destination.service:
        name = f"{service.get('name', '')}.{service.get('namespace', '')}.svc"
        found.setdefault(explanation.destination.ip, []).append(name)
    return found
