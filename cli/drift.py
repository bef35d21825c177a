"""The command ``calico-debug drift``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from calico_debug.cli.environment import Environment
from calico_debug.cli.errors import warn
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.nodes import open_nodes, place_options
from calico_debug.cli.render.terminal import safe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calico_debug.drift.model import Drifts

HELP = """Compare what the API intends with what nodes are programmed with.

    Policies of each endpoint and their order, members of IP sets, backends of services. Each difference names the
    object, the node and a likely cause; what cannot be compared is said.

    \b
    Examples:
      calico-debug drift --bundle recording.tar.gz
      calico-debug drift --bundle recording.tar.gz --node node1 -o json
    """


@click.command(short_help="Compare the API's intent with the nodes.", help=HELP)
@place_options
@click.pass_obj
def drift(environment: Environment, /, output: str, **place: str | None) -> int:
    """Find differences."""
    from calico_debug.cli.render.listing import json_list, yaml_list
    from calico_debug.drift.report import find_drift

    source, nodes = open_nodes(environment, place)
    drifts = find_drift(source, nodes)
    warn(environment.stderr, [f"not compared: {one}" for one in drifts.not_compared])
    if output == "text":
        environment.stdout.writelines(f"{line}\n" for line in _lines(drifts))
    else:
        lists = json_list if output == "json" else yaml_list
        environment.stdout.writelines(lists(one.to_dict() for one in drifts.found))
    return ExitCode.ANSWERED


def _lines(drifts: Drifts) -> Iterator[str]:
    for one in drifts.found:
        yield safe(f"{one.severity.ljust(7)}  {one.node}  {one.object}: {one.message} ({one.code})")
        yield safe(f"         likely: {one.cause}")
    compared = ", ".join(f"{count} {what}" for what, count in drifts.compared.items())
    number = len(drifts.found)
    found = "no difference" if not number else "1 difference" if number == 1 else f"{number} differences"
    yield f"{found}; compared: {compared}"
