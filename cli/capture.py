"""The commands ``calico-debug capture run``, which captures by itself, and ``capture``, the group of it and others."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

import click

from calico_debug import __version__
from calico_debug.cli.captures import COMMANDS
from calico_debug.cli.environment import Environment, Place, WatchQuestion
from calico_debug.cli.errors import PROGRAM, one_line, warn
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.files import new_file
from calico_debug.cli.observe import (
    MOST_PACKETS,
    MOST_SECONDS,
    interruptible,
    place_options,
    rate_option,
    subject_options,
)
from calico_debug.cli.render.terminal import PLAIN, safe

if TYPE_CHECKING:
    from calico_debug.cli.environment import PacketWatch
    from calico_debug.model.packet_event import PacketEvent
    from calico_debug.model.subject import Subject

MOST_SNAP = 2048
MOST_FILE = 1 << 30
MOST_SEEN = 1 << 40
"""Bytes of packets: of a capture, the file's size is what is limited."""
RATE = 1000
"""Events of each kind a second and CPU that a file gets, when nothing is said."""

GROUP_HELP = """Write packets with what decides about them to pcapng files.

    run captures until it is told to stop, and needs no agent. start hands the work to an agent, which captures by
    itself into a ring of files; list, get, stop and delete are about what it has. Without a word for what to do, run
    is meant.

    \b
    Examples:
      calico-debug capture run --from client/client --to svc/stars/frontend --write flow.pcapng
      calico-debug capture start --pod client/client --seconds 3600
      calico-debug capture list
    """

HELP = """Write packets of a flow, a pod or a policy, or all drops, to a pcapng file.

    A packet stands in the file once for each interface that saw it, those inside of pods and tunnels among them, with
    a comment: which way it went, where it was, why the kernel dropped it, and what decides about its flow. Packets
    begin with their IP header.

    \b
    Examples:
      calico-debug capture run --from client/client --to svc/stars/frontend --write flow.pcapng
      calico-debug capture run --pod client/client --drops --write drops.pcapng
      calico-debug capture run --drops --seconds 60 --write drops.pcapng
    """


class _Group(click.Group):
    """Takes options without a command for those of run, which once was all there is."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group("capture", cls=_Group, short_help="Write packets to pcapng files.", help=GROUP_HELP)
def capture() -> None:
    """The group."""


@click.command("run", short_help="Write packets to a pcapng file, now and here.", help=HELP)
@subject_options
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
@rate_option(RATE, " A capture of one flow is whole.")
@place_options
@click.pass_obj
def run(
    environment: Environment,
    /,
    subject: Subject,
    path: str,
    seconds: float,
    packets: int,
    size: int,
    snap: int,
    rate: int,
    **place: str | None,
) -> int:
    """Capture in this process."""
    question = WatchQuestion(subject, seconds, packets, MOST_SEEN, rate, snap)
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
        writer.finish(environment, path, subject)
        warn(environment.stderr, watch.notes[told:])
    return ExitCode.INTERRUPTED if interrupted else ExitCode.ANSWERED


for _command in (run, *COMMANDS):
    capture.add_command(_command)


class _Writer:
    """Writes events as they come."""

    def __init__(self, file: BinaryIO, watch: PacketWatch, snap: int) -> None:
        from calico_debug.capture.comments import names
        from calico_debug.capture.section import Section
        from calico_debug.explain.packet_story import Story

        self._file, self._watch = file, watch
        self._teller = watch.teller()
        self._story: Story = Story(watch.places)
        self._section = Section(f"{PROGRAM} {__version__}", watch.subject, snap)
        self._size = 0
        self._full = False
        self._put(self._section.begin())
        if watch.explanation is not None:
            self._put(self._section.names(names(watch.explanation)))

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

    def finish(self, environment: Environment, path: str, subject: Subject) -> None:
        """Write what was queued, and tell the summary."""
        from calico_debug.cli.render.packets import summary_lines

        watch, story = self._watch, self._story
        for event in watch.finish():
            if not self._full:
                self._write(event)
        self._put(self._section.end(watch.losses))
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        witness = story.witness(at, watch.losses.lost) if subject.is_flow else None
        numbers = (story.events, story.packets)
        ended = "bytes" if self._full else watch.limited_by
        environment.stdout.write(
            f"{safe(path)}: {self._size} bytes, {self._section.interfaces} interfaces\n"
            + summary_lines(witness, watch.explanation, numbers, watch.losses, ended, PLAIN)
        )

    def _write(self, event: PacketEvent) -> None:
        self._story.add(event)
        told = self._teller.tell(event, self._watch.places, self._watch.mark_words(event.mark))
        self._put(self._section.names(told.names))
        self._put(self._section.packet(event, told.number, self._watch.places, told.comment))
        self._file.flush()

    def _put(self, block: bytes) -> None:
        self._file.write(block)
        self._size += len(block)
