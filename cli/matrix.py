"""The command ``calico-debug matrix``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from calico_debug.cli.environment import Environment
from calico_debug.cli.errors import warn
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.options import bundle_option, checked_place, cluster_options, node_option
from calico_debug.errors import EvidenceError, UsageError

if TYPE_CHECKING:
    from calico_debug.matrix.model import FlowMatrix

FORMATS: Final = ("text", "json", "yaml", "html")

HELP = """Show who may connect to whom, pods or namespaces, at every port that somebody names, and why.

    Equals are one row or column. New connections are walked through the rules of the nodes where there is evidence of
    all of them, else the API's objects decide; the answer says which.

    \b
    Examples:
      calico-debug matrix --bundle recording.tar.gz
      calico-debug matrix --bundle recording.tar.gz --by namespaces --port 80 --port udp/53
      calico-debug matrix --bundle recording.tar.gz --to stars --html stars.html
    """


@click.command(short_help="Show who may connect to whom, and why.", help=HELP)
@click.option("--by", type=click.Choice(("pods", "namespaces")), default="pods", help="What rows and columns are.")
@click.option(
    "--from", "sources", metavar="NS_OR_POD", multiple=True, help="Only from this namespace or ns/pod (repeatable)."
)
@click.option(
    "--to", "destinations", metavar="NS_OR_POD", multiple=True, help="Only to this namespace or ns/pod (repeatable)."
)
@click.option(
    "--port",
    "ports",
    metavar="PORT",
    multiple=True,
    help="Ask about 80, tcp/80, udp/53 or icmp (repeatable); when left out, ports that somebody names.",
)
@click.option("--predicted", "basis", flag_value="predicted", help="Walk the rules of the nodes.")
@click.option("--intent", "basis", flag_value="intent", help="Let the API's objects decide alone.")
@click.option("--ip", "version", type=click.Choice(("4", "6")), help="The IP version; 4 where pods have it.")
@bundle_option
@node_option
@cluster_options
@click.option("-o", "--output", type=click.Choice(FORMATS), default="text", help="The form of the answer.")
@click.option("--html", "page", metavar="FILE", help="Also write the page that draws it to FILE.")
@click.pass_obj
def matrix(
    environment: Environment,
    /,
    by: Literal["pods", "namespaces"],
    sources: tuple[str, ...],
    destinations: tuple[str, ...],
    ports: tuple[str, ...],
    basis: Literal["predicted", "intent"] | None,
    version: str | None,
    output: str,
    page: str | None,
    **place: str | None,
) -> int:
    """Make the matrix and print it."""
    from calico_debug.cli.patience import patience
    from calico_debug.cli.tracer import open_source
    from calico_debug.explain.engine import Engine
    from calico_debug.matrix.make import Wanted, make_matrix
    from calico_debug.matrix.ports import parse_port

    asked = tuple(dict.fromkeys(parse_port(port) for port in ports))
    wanted = Wanted(by, basis, sources, destinations, asked, int(version) if version else None)
    with environment.progress():
        engine = Engine(open_source(checked_place(**place), environment.platform))
        made = make_matrix(engine, wanted, patience())
    if page is not None:
        _write(page, renderer("html")(made))
    environment.stdout.write(renderer(output)(made))
    warn(environment.stderr, engine.cluster.problems)
    return ExitCode.ANSWERED


def renderer(output: str) -> Callable[[FlowMatrix], str]:
    """The renderer of one of `FORMATS`."""
    from calico_debug.cli.render import matrix as shown
    from calico_debug.cli.render import matrix_page

    renderers = {
        "text": shown.text,
        "json": shown.render_json,
        "yaml": shown.render_yaml,
        "html": matrix_page.render,
    }
    return renderers[output]


def _write(file: str, content: str) -> None:
    try:
        Path(file).write_text(content, encoding="utf-8")
    except ValueError as error:
        raise UsageError(f"--html {file!r}: {error}") from error
    except OSError as error:
        raise EvidenceError(f"cannot write {file}: {error.strerror}; name another file with --html") from error
