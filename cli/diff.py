"""The command ``calico-debug diff``."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import click

from calico_debug.cli.assertions import read_file
from calico_debug.cli.environment import Environment, Place
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.options import checked_place, cluster_options, node_option
from calico_debug.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calico_debug.diff.model import FlowText

FORMATS: Final = ("text", "json", "yaml")

HELP = """Show which flows two states of a cluster treat otherwise, and the objects that did it.

    BEFORE is a bundle, AFTER another one; without AFTER it is the node this command runs on, with its cluster. Flows
    are walked through the rules of both. What changed one is found by making some of the changes of objects and asking
    the objects again.

    \b
    Exits with 0 when nothing changed, 1 when a flow did, 4 when evidence does not settle one.

    \b
    Examples:
      calico-debug diff before.tar.gz after.tar.gz
      calico-debug diff before.tar.gz after.tar.gz --flows flows.yaml -o json
      calico-debug diff before.tar.gz
    """

EXIT_CODES: Final = {
    "same": ExitCode.ANSWERED,
    "changed": ExitCode.FAILED,
    "undetermined": ExitCode.UNDETERMINED,
}


@click.command(short_help="Show which flows changed between two states, and why.", help=HELP)
@click.argument("before")
@click.argument("after", required=False)
@click.option(
    "--flows",
    metavar="FILE",
    help='Compare these flows: a file of assertions, or one JSON object a line; "-" for the standard input.',
)
@node_option
@cluster_options
@click.option("-n", "--namespace", metavar="NS", help="The namespace of names that come without one.")
@click.option("-o", "--output", type=click.Choice(FORMATS), default="text", help="The form of the answer.")
@click.pass_obj
def diff(
    environment: Environment, /, before: str, after: str | None, flows: str | None, output: str, **place: str | None
) -> int:
    """Compare and print."""
    from calico_debug.cli.patience import patience
    from calico_debug.cli.render.diff import RENDERERS
    from calico_debug.cli.tracer import open_place, open_source
    from calico_debug.diff.compare import compare

    where = checked_place(bundle=after, **place)
    asked = None
    if flows is not None:
        name = "the standard input" if flows == "-" else flows
        asked = tuple(_flows(read_file(environment, flows), name))
    with environment.progress():
        old = open_source(Place(before), environment.platform)
        new, namespace = open_place(where, environment.platform)
        report = compare(old, new, asked, namespace, patience())
    environment.stdout.write(RENDERERS[output](report))
    return EXIT_CODES[report.result]


def _flows(data: bytes, what: str) -> Iterator[FlowText]:
    """The flows of a file: lines that are JSON objects, as ``trace --flows`` takes them, else assertions."""
    from calico_debug.cli.flows import numbered_lines, parse_flow
    from calico_debug.decode.assertions import decode_assertions
    from calico_debug.diff.model import FlowText

    if not data.lstrip().startswith(b"{") or b'"flows"' in data.lstrip()[:64]:
        for wanted in decode_assertions(data, what):
            yield FlowText(wanted.source, wanted.destination, wanted.protocol, wanted.via)
        return
    for number, line in numbered_lines(io.BytesIO(data)):
        try:
            question = parse_flow(line)
        except UsageError as error:
            raise UsageError(f"{what}, line {number}: {error}") from error
        yield FlowText(question.source, question.destination, question.protocol, question.via)
