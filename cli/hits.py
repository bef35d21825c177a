"""The command ``calico-debug hits``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from calico_debug.cli.environment import Environment
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.nodes import open_nodes, place_options
from calico_debug.errors import EvidenceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calico_debug.hits.model import NodeHits

HELP = """Say how often each rule was met, and which rules nothing can get to.

    Counts are those of the nodes that are looked at; the whole cluster and its past come from Prometheus, where it
    scrapes the agents. That a rule is unreachable is proven on the programmed rules, with those that shadow it.

    \b
    Examples:
      calico-debug hits --bundle recording.tar.gz
      calico-debug hits --bundle recording.tar.gz --unused
      calico-debug hits --unused --prometheus http://prometheus.monitoring:9090 --since 4w
    """

DEFAULT_WINDOW = "7d"


@click.command(short_help="Say how often rules were met, and which cannot be.", help=HELP)
@click.option("--unused", is_flag=True, help="Only rules of policies that were not met, or cannot be.")
@click.option("--prometheus", metavar="URL", help="Ask this Prometheus for the whole cluster and its past.")
@click.option("--since", metavar="WINDOW", help="How far Prometheus is to look back: 12h, 7d, 4w; 7d when left out.")
@place_options
@click.pass_obj
def hits(
    environment: Environment,
    /,
    unused: bool,
    prometheus: str | None,
    since: str | None,
    output: str,
    **place: str | None,
) -> int:
    """Count and print."""
    from calico_debug.cli.prometheus import Prometheus
    from calico_debug.cli.render.hits import RENDERERS
    from calico_debug.hits.history import read_history, window_seconds
    from calico_debug.hits.report import hit_report
    from calico_debug.hits.report import unused as only_unused

    if since is not None and prometheus is None:
        raise UsageError("--since is how far Prometheus looks back: name one with --prometheus")
    seconds = window_seconds(since or DEFAULT_WINDOW)
    server = Prometheus(prometheus) if prometheus is not None else None
    with environment.progress():
        history = read_history(server.ask, seconds) if server is not None else None
        counted, problems = _counted(environment, place)
    if not counted and history is None:
        raise EvidenceError(problems[0])
    report = hit_report(counted, history)
    report = replace(report, notes=(*report.notes, *problems))
    if unused:
        report = replace(report, rules=tuple(only_unused(report.rules)))
    environment.stdout.write(RENDERERS[output](report))
    return ExitCode.ANSWERED


def _counted(environment: Environment, place: Mapping[str, str | None]) -> tuple[list[NodeHits], list[str]]:
    """What each node counted, and why some could not be read: at least one reason, if none could."""
    from calico_debug.explain.listing.node import NodeListings
    from calico_debug.hits.nodes import node_hits

    found: list[NodeHits] = []
    problems: list[str] = []
    try:
        source, nodes = open_nodes(environment, place)
    except EvidenceError as error:
        return found, [str(error)]
    if not nodes:
        problems.append(f"{source.origin} has no node to look at: run on a Linux node, or name a bundle")
    for name in nodes:
        try:
            found.append(node_hits(NodeListings(source, name)))
        except EvidenceError as error:
            problems.append(f"{name}: {error}")
    return found, problems
