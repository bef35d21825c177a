"""The commands ``calico-debug switch check|record|compare``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from calico_debug.cli.environment import Environment
from calico_debug.cli.errors import describe, warn
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.nodes import FORMATS, open_nodes, place_options
from calico_debug.cli.options import bundle_option, checked_place, cluster_options
from calico_debug.cli.render.terminal import safe
from calico_debug.errors import CalicoDebugError, EvidenceError, UsageError

if TYPE_CHECKING:
    from calico_debug.explain.engine import Engine
    from calico_debug.switch.model import Question, Record

HELP = """Change the dataplane, and know what that changes.

    Before: check, and record. After: compare.

    \b
    Examples:
      calico-debug switch check --to ebpf
      calico-debug switch record -f before.json
      calico-debug switch compare before.json
    """

CHECK_KIND = "SwitchCheck"
TARGETS = ("ebpf", "nftables", "iptables")
"""Those of `calico_debug.switch.check`, which help does without; a test compares."""

CHECK_HELP = """Look at cluster and nodes before a switch, and say what is missing or means something else there.

    The form is that of doctor: what was seen, what it means, what to do, and what could not be looked at.

    \b
    Examples:
      calico-debug switch check --to ebpf
      calico-debug switch check --to iptables --bundle recording.tar.gz -o json
    """

RECORD_HELP = """Write down the flows that exist, and what becomes of each.

    Those are the flows of open connections, and a matrix: pods, nodes and the outside to services and node ports,
    nodes to pods, pods to their node and to the outside; pods that nothing can tell apart once a node.

    The file is JSON, for its owner alone; it names addresses, pods and policies of the cluster.

    \b
    Examples:
      calico-debug switch record -f before.json
      calico-debug switch record --bundle before.tar.gz -f before.json
      calico-debug switch record --flows flows.jsonl -f before.json
    """

COMPARE_HELP = """Ask about every flow of a record again, and say what differs.

    RECORD is what switch record wrote, or a bundle of before. Pods that were restarted are found again by their labels.

    Exits with 0 when every flow has the verdict it had, 1 when one does not, 4 when evidence does not settle it.

    \b
    Examples:
      calico-debug switch compare before.json
      calico-debug switch compare before.json --bundle after.tar.gz -o json
      calico-debug switch compare before.tar.gz --bundle after.tar.gz
    """

EXIT_CODES: Mapping[str, ExitCode] = {
    "same": ExitCode.ANSWERED,
    "differs": ExitCode.FAILED,
    "undetermined": ExitCode.UNDETERMINED,
}


@click.group(short_help="Change the dataplane, and know what that changes.", help=HELP)
def switch() -> None:
    """Only a place for commands."""


def _place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        cluster_options,
        click.option("--node", metavar="NAME", help="The name of the node this command runs on, if not the host name."),
        bundle_option,
    ):
        command = option(command)
    return command


@switch.command(short_help="Say what to look after before a switch.", help=CHECK_HELP)
@click.option("--to", "target", type=click.Choice(TARGETS), required=True, help="The dataplane to switch to.")
@place_options
@click.pass_obj
def check(environment: Environment, /, target: str, output: str, **place: str | None) -> int:
    """Look before."""
    from calico_debug.cli.render.doctor import renderers
    from calico_debug.switch.check import check_switch

    source, nodes = open_nodes(environment, place)
    environment.stdout.write(renderers(CHECK_KIND)[output](check_switch(source, nodes, target)))
    return ExitCode.ANSWERED


@switch.command(short_help="Write down the flows that exist.", help=RECORD_HELP)
@click.option("-f", "--file", metavar="FILE", help="The file to make; there must be none yet. Left out: to the output.")
@click.option(
    "--flows", metavar="FLOWS", help="More flows to write down, one JSON object a line, as trace --flows takes them."
)
@_place_options
@click.pass_obj
def record(environment: Environment, /, file: str | None, flows: str | None, **place: str | None) -> int:
    """Record."""
    from calico_debug.cli.files import new_file
    from calico_debug.cli.render import json
    from calico_debug.switch.document import to_document

    with environment.progress():
        engine = _engine(environment, place)
        made = _record(engine, _asked(environment, engine, flows), _now(place["bundle"]))
    written = json.dump(to_document(made))
    if file is None:
        environment.stdout.write(written)
    else:
        with new_file(file, "-f") as stream:
            stream.write(written.encode())
        nodes = ", ".join(f"{node.name} ({node.dataplane or 'no dataplane'})" for node in made.nodes)
        flows_ = f"{len(made.flows)} flows and {len(made.connections)} open connections"
        environment.stdout.write(safe(f"{flows_} of {nodes}: {file}") + "\n")
    warn(environment.stderr, (*(f"not in the record: {one}" for one in made.left_out), *_notes(engine)))
    return ExitCode.ANSWERED


@switch.command(short_help="Say what differs after the switch.", help=COMPARE_HELP)
@click.argument("record", metavar="RECORD")
@_place_options
@click.option("-o", "--output", type=click.Choice(FORMATS), default="text", help="The form of the answer.")
@click.pass_obj
def compare(environment: Environment, /, record: str, output: str, **place: str | None) -> int:
    """Compare."""
    from calico_debug.cli.render.switch import RENDERERS
    from calico_debug.switch.compare import compare as compare_all

    with environment.progress():
        before = _before(record)
        engine = _engine(environment, place)
        report = compare_all(before, engine, _now(place["bundle"]))
    environment.stdout.write(RENDERERS[output](report))
    warn(environment.stderr, _notes(engine))
    return EXIT_CODES[report.result]


def _engine(environment: Environment, place: Mapping[str, str | None]) -> Engine:
    from calico_debug.cli.tracer import open_source
    from calico_debug.explain.engine import Engine

    where = checked_place(
        bundle=place["bundle"], node=place["node"], kubeconfig=place["kubeconfig"], context=place["context"]
    )
    return _of_nodes(Engine(open_source(where, environment.platform)))


def _of_nodes(engine: Engine) -> Engine:
    if not engine.states:
        raise EvidenceError(f"{engine.source.origin} has no node to look at: run on a Linux node, or name a bundle")
    return engine


def _record(engine: Engine, asked: Sequence[Question] = (), now: int | None = None) -> Record:
    from calico_debug.switch.record import make_record

    made = make_record(engine, asked, now)
    if not any(node.dataplane for node in made.nodes):
        problems = dict.fromkeys(f"{node.name}: {node.problem}" for node in made.nodes)
        raise EvidenceError(f"no flow can be explained ({'; '.join(problems)}): name nodes that run Calico")
    return made


def _before(path: str) -> Record:
    """A record's file, or the record of a bundle."""
    from calico_debug.evidence.bundle import open_bundle
    from calico_debug.explain.engine import Engine
    from calico_debug.switch.document import LARGEST, from_json

    try:
        with Path(path).open("rb") as stream:
            if stream.read(1) == b"{":
                stream.seek(0)
                return from_json(stream.read(LARGEST + 1), path)
    except IsADirectoryError:
        pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise EvidenceError(f"cannot read {path}: {reason}; check the path") from error
    return _record(_of_nodes(Engine(open_bundle(path))))


def _asked(environment: Environment, engine: Engine, flows: str | None) -> Sequence[Question]:
    from calico_debug.cli.flows import numbered_lines, opened_flows, parse_flow
    from calico_debug.switch.answers import Asker
    from calico_debug.switch.questions import asked_question

    if flows is None:
        return ()
    found, asker = [], Asker(engine)
    with opened_flows(flows, environment) as stream:
        for number, line in numbered_lines(stream):
            try:
                flow = parse_flow(line)
                found.append(asked_question(asker, flow.source, flow.destination, flow.protocol, flow.via))
            except CalicoDebugError as error:
                raise UsageError(f"line {number} of --flows: {describe(error)}") from error
    return found


def _now(bundle: str | None) -> int | None:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) if bundle is None else None


def _notes(engine: Engine) -> Sequence[str]:
    return [f"{name}: {note}" for name, state in engine.states.items() for note in state.notes]
