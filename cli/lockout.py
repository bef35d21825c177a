"""The command ``calico-debug lockout``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from calico_debug.cli.environment import Environment
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.nodes import open_nodes, place_options
from calico_debug.errors import EvidenceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calico_debug.evidence.source import EvidenceSource
    from calico_debug.lockout.changes import Change
    from calico_debug.model.cluster import Address

HELP = """Say whether a change of policy would cut what nodes live by: kubelet, API server, DNS, Typha, SSH and more.

    FILE has manifests as kubectl apply takes them, "-" is the standard input: policies, host endpoints (which deny
    what nothing allows as soon as they exist), tiers, network sets, FelixConfiguration. They are applied onto the
    objects of the cluster; nothing is changed there. Without FILE: what is cut now. Exits with 1 when something is
    cut, with 4 when something is undetermined.

    \b
    Examples:
      calico-debug lockout host-policy.yaml --bundle recording.tar.gz
      calico-debug lockout --bundle recording.tar.gz -o json
      calico-debug lockout host-policy.yaml --kubeconfig ~/.kube/lab
    """


@click.command(short_help="Say whether a policy would cut what nodes live by.", help=HELP)
@click.argument("file", required=False, metavar="[FILE]")
@place_options
@click.pass_obj
def lockout(environment: Environment, /, file: str | None, output: str, **place: str | None) -> int:
    """Preview and print."""
    from calico_debug.cli.render.lockout import RENDERERS
    from calico_debug.doctor.model import ClusterView
    from calico_debug.lockout.judge import CUT, OPEN
    from calico_debug.lockout.report import preview
    from calico_debug.state.cluster import load_cluster

    change = _read(environment, file) if file is not None else None
    source, nodes = open_nodes(environment, place)
    state = load_cluster(source)
    if not state.nodes:
        why = f" ({state.problems[0]})" if state.problems else ""
        raise EvidenceError(
            f"{source.origin} has no nodes{why}: name a bundle with the objects of a cluster, or one with --kubeconfig"
        )
    interfaces, environments = _known_of(source, nodes)
    found = preview(state, ClusterView(source, state), change, interfaces, environments)
    environment.stdout.write(RENDERERS[output](found))
    return {CUT: ExitCode.FAILED, OPEN: ExitCode.UNDETERMINED}.get(found.worst, ExitCode.ANSWERED)


def _read(environment: Environment, file: str) -> Change:
    from calico_debug.lockout.changes import LARGEST, decode_change

    if file == "-":
        return decode_change(environment.stdin.read(LARGEST + 1), "the standard input")
    try:
        with Path(file).open("rb") as opened:
            return decode_change(opened.read(LARGEST + 1), file)
    except OSError as error:
        raise EvidenceError(f"{file} cannot be read ({error.strerror}): name a file with manifests") from None


def _known_of(
    source: EvidenceSource, nodes: Sequence[str]
) -> tuple[Mapping[str, Mapping[Address, str]], Mapping[str, Mapping[str, str]]]:
    """Interfaces by address, and Felix's environment, of nodes that are in evidence."""
    from calico_debug.state.node import NodeState

    interfaces: dict[str, Mapping[Address, str]] = {}
    environments: dict[str, Mapping[str, str]] = {}
    for name in nodes:
        try:
            state = NodeState(source.node(name))
            interfaces[name] = {one.address: one.interface for one in state.addresses}
            environments[name] = state.felix
        except EvidenceError:
            continue  # objects alone say enough, the rest is told as an assumption
    return interfaces, environments
