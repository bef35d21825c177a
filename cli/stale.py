"""The command ``calico-debug stale``."""

from __future__ import annotations

import time

import click

from calico_debug.cli.environment import Environment
from calico_debug.cli.errors import warn
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.nodes import open_nodes, place_options
from calico_debug.errors import EvidenceError

HELP = """Find open connections that the current policy would refuse.

    Policy is asked about first packets only: what was open when a policy changed goes on. Every open connection of the
    node's pods is explained as if it were new.

    \b
    Examples:
      calico-debug stale
      calico-debug stale --bundle recording.tar.gz
      calico-debug stale --bundle recording.tar.gz --node node2 -o json
    """


@click.command(short_help="Find open connections that policy would refuse now.", help=HELP)
@place_options
@click.pass_obj
def stale(environment: Environment, /, output: str, **place: str | None) -> int:
    """Look for them and print."""
    from calico_debug.cli.render.stale import RENDERERS
    from calico_debug.explain.engine import Engine
    from calico_debug.explain.outlived import find_outlived

    source, nodes = open_nodes(environment, place)
    if not nodes:
        raise EvidenceError(f"{source.origin} has no node to look at: run on a Linux node, or name a bundle")
    engine = Engine(source)
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) if place["bundle"] is None else None
    report = find_outlived(engine, nodes, now)
    environment.stdout.write(RENDERERS[output](report, engine.cluster))
    notes = [f"{name}: {note}" for name in nodes for note in engine.states[name].notes]
    warn(environment.stderr, (*notes, *engine.cluster.problems))
    return ExitCode.ANSWERED
