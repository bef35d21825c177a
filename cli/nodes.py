"""Which nodes a command looks at that may look at all of a bundle's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from calico_debug.cli.environment import Environment, Place
from calico_debug.cli.options import bundle_option, cluster_options, contradictions
from calico_debug.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from calico_debug.evidence.source import EvidenceSource

FORMATS = ("text", "json", "yaml")


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where evidence is, and the form of the answer."""
    for option in (
        click.option("-o", "--output", type=click.Choice(FORMATS), default="text", help="The form of the answer."),
        cluster_options,
        click.option("--node", metavar="NAME", help="Only this node of the bundle; live, the name of this node."),
        bundle_option,
    ):
        command = option(command)
    return command


def open_nodes(environment: Environment, given: Mapping[str, str | None]) -> tuple[EvidenceSource, Sequence[str]]:
    """The evidence and the nodes to look at. ``given`` are the options that say where, by the names of `Place`.

    Raises `CalicoDebugError`.
    """
    from calico_debug.cli.tracer import open_source

    place = Place(**given)
    contradictions({"--bundle": place.bundle, "--kubeconfig": place.kubeconfig, "--context": place.context})
    source = open_source(replace(place, node=None) if place.bundle else place, environment.platform)
    names = source.nodes()
    if place.node is None or place.bundle is None:
        return source, names
    if place.node not in names:
        raise UsageError(f"{source.origin} has no node {place.node}: it has {', '.join(names) or 'none'}")
    return source, [place.node]
