"""The command ``calico-debug doctor``."""

from __future__ import annotations

import click

from calico_debug.cli.environment import Environment
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.nodes import open_nodes, place_options

HELP = """Look a node and its cluster over, and say what is wrong, the worst first.

    Every finding comes with what was seen, what it means and what to do. What could not be looked at is said, too.

    \b
    Examples:
      calico-debug doctor
      calico-debug doctor --bundle recording.tar.gz
      calico-debug doctor --bundle recording.tar.gz --node node1 -o json
    """


@click.command(short_help="Look nodes and cluster over, and say what is wrong.", help=HELP)
@place_options
@click.pass_obj
def doctor(environment: Environment, /, output: str, **place: str | None) -> int:
    """Examine and print."""
    from calico_debug.cli.render.doctor import RENDERERS
    from calico_debug.doctor.examine import examine

    source, nodes = open_nodes(environment, place)
    environment.stdout.write(RENDERERS[output](examine(source, nodes)))
    return ExitCode.ANSWERED
