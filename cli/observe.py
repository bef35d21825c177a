"""The command ``calico-debug observe``."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from calico_debug.cli.environment import Environment, Place, WatchQuestion
from calico_debug.cli.errors import one_line, warn
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.options import COLOURS, agents_option, cluster_options, node_option
from calico_debug.cli.render.terminal import Style
from calico_debug.model.subject import Subject, checked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from calico_debug.cli.environment import PacketWatch
    from calico_debug.model.packet_event import PacketEvent

FORMATS = ("text", "json")
MOST_SECONDS, MOST_PACKETS, MOST_BYTES, MOST_RATE = 3600.0, 100_000, 1 << 30, 100_000
SHOWN = 50
"""Events of each kind a second and CPU, when nothing is said: more than anybody reads, and to tell them takes time."""

HELP = """Watch where packets of a flow, a pod or a policy are seen on this node, and where they end.

    One line for each place: received by an interface, sent by one, or dropped with the kernel's reason and the
    function that dropped. The flow is followed through address translation, into the pods of this node, and in
    tunnels; its answers and ICMP errors about it are shown as well. Packets are neither changed nor delayed, no
    interface is touched, and nothing stays behind, even after kill -9.

    \b
    Examples:
      calico-debug observe --from client/client --to svc/stars/frontend
      calico-debug observe --from 10.244.1.30 --to 10.244.2.31:6379 --seconds 30 -o json
      calico-debug observe --pod client/client --drops
      calico-debug observe --policy networkpolicy/client/platform.client-egress
      calico-debug observe --drops
    """


_SUBJECT = ("source", "destination", "protocol", "via", "pod", "policy")


def subject_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what is watched; the command gets them as its ``subject``. It raises `UsageError`."""

    @wraps(command)
    def told(*arguments: Any, drops: bool, **given: Any) -> Any:
        said = {name: value for name in _SUBJECT if (value := given.pop(name)) is not None}
        return command(*arguments, subject=checked(Subject(**said, drops=drops)), **given)

    made: Callable[..., Any] = told
    for option in (
        click.option(
            "--drops",
            is_flag=True,
            help="Only packets that are dropped; without --pod and --policy all that this node or its pods drop.",
        ),
        click.option(
            "--policy",
            metavar="[KIND/]POLICY",
            help="Instead of a flow, all packets of the endpoints on this node that a policy selects, as ns/name, or "
            "name of a global one.",
        ),
        click.option("--pod", metavar="POD", help="Instead of a flow, all packets of a pod, as ns/name or address."),
        click.option("--via", metavar="NODE", help="The node through which a source outside the cluster arrives."),
        click.option(
            "-p",
            "--protocol",
            metavar="PROTOCOL",
            help="tcp, udp, sctp, icmp, icmpv6 or a number; when left out the service port's, else tcp.",
        ),
        click.option("--to", "destination", metavar="Y", help="Where the flow goes to."),
        click.option("--from", "source", metavar="X", help="Where the flow comes from."),
    ):
        made = option(made)
    return made


def rate_option(default: int, more: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """How many of very many events are told; ``more`` is to be known of it."""
    return click.option(
        "--rate",
        type=click.IntRange(10, MOST_RATE),
        default=default,
        metavar="N",
        help=f"Tell so many events of each kind a second and CPU, and count the others; {default} when left out.{more}",
    )


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where packets are watched."""
    for option in (
        click.option("-n", "--namespace", metavar="NS", help="The namespace of names that come without one."),
        agents_option,
        cluster_options,
        node_option,
    ):
        command = option(command)
    return command


@click.command("observe", short_help="Watch where packets of a flow go, and where they end.", help=HELP)
@subject_options
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, MOST_SECONDS),
    default=10.0,
    metavar="N",
    help="Watch for so long at most; 10 when left out.",
)
@click.option(
    "--packets",
    type=click.IntRange(1, MOST_PACKETS),
    default=1000,
    metavar="N",
    help="End after so many packets; 1000 when left out.",
)
@click.option(
    "--bytes",
    "size",
    type=click.IntRange(1, MOST_BYTES),
    default=100 << 20,
    metavar="N",
    help="End after so many bytes of packets, counted wherever they are seen; 100 MiB when left out.",
)
@rate_option(SHOWN)
@place_options
@click.option("-o", "--output", type=click.Choice(FORMATS), default="text", help="The form of the answer.")
@click.option(
    "--color",
    "colour",
    type=click.Choice(COLOURS),
    default="auto",
    help="Colour text; auto: on a terminal, unless NO_COLOR is set.",
)
@click.pass_obj
def observe(
    environment: Environment,
    /,
    subject: Subject,
    seconds: float,
    packets: int,
    size: int,
    rate: int,
    output: str,
    colour: str,
    **place: str | None,
) -> int:
    """Watch a flow, a pod, a policy, or all drops."""
    question = WatchQuestion(subject, seconds, packets, size, rate)
    style = Style(colour=environment.colour(colour), columns=environment.columns)
    watch = environment.open_watch(Place(None, **place), environment.platform, question)
    with watch:
        warn(environment.stderr, watch.notes)
        told = len(watch.notes)
        environment.stderr.write(f"{one_line(f'watching {watch.places.node}: {watch.subject}')}\n")
        environment.stderr.flush()
        writer = _Writer(environment, watch, output, style)
        interrupted = writer.run()
        writer.finish(subject)
        warn(environment.stderr, watch.notes[told:])
    return ExitCode.INTERRUPTED if interrupted else ExitCode.ANSWERED


@contextmanager
def interruptible(stop: Callable[[], None]) -> Iterator[list[int]]:
    """The first Ctrl-C calls ``stop``, and is noted in what is given; the second one interrupts.

    An interrupt that came anywhere would lose events that were taken from the kernel and not told yet.
    """
    noted: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        signal.signal(number, before)
        noted.append(number)
        stop()

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, handle)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


class _Writer:
    """Writes events as they come."""

    def __init__(self, environment: Environment, watch: PacketWatch, output: str, style: Style) -> None:
        from calico_debug.explain.packet_story import Story

        self._out = environment.stdout
        self._watch = watch
        self._json = output == "json"
        self._style = style
        self._story = Story(watch.places)

    def run(self) -> bool:
        """Write until a limit is reached; whether the user ended it."""
        with interruptible(self._watch.stop) as interrupted:
            for event in self._watch.events():
                self._write(event)
                self._out.flush()
        return bool(interrupted)

    def finish(self, subject: Subject) -> None:
        """Write what was queued, and the summary."""
        from calico_debug.cli.render.packets import summary_lines
        from calico_debug.explain.packet_document import json_line, summary_document

        watch, story = self._watch, self._story
        for event in watch.finish():
            self._write(event)
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        witness = story.witness(at, watch.losses.lost) if subject.is_flow else None
        numbers = (story.events, story.packets)
        if self._json:
            self._out.write(
                json_line(
                    summary_document(
                        witness, watch.explanation, numbers, watch.losses, watch.limited_by, watch.places.node
                    )
                )
            )
        else:
            self._out.write(
                summary_lines(witness, watch.explanation, numbers, watch.losses, watch.limited_by, self._style)
            )

    def _write(self, event: PacketEvent) -> None:
        from calico_debug.cli.render.packets import event_line
        from calico_debug.explain.packet_document import event_document, json_line

        number = self._story.add(event)
        marks = self._watch.mark_words(event.mark)
        if self._json:
            self._out.write(json_line(event_document(event, number, self._watch.places, marks)))
        else:
            self._out.write(event_line(event, number, self._watch.places, marks))
