"""The command ``calico-debug staged``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from calico_debug.cli.environment import Environment
from calico_debug.cli.errors import warn
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.options import bundle_option, checked_place, cluster_options
from calico_debug.cli.render.terminal import safe
from calico_debug.errors import EvidenceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from calico_debug.advice.staged import StagedEffects
    from calico_debug.intent.decide import Intent
    from calico_debug.intent.model import PolicyKey

FORMATS = ("text", "json", "yaml")

HELP = """Say what would change between pods if staged policies were enforced, each by itself.

    Worked out from the API's objects: nothing is asked of nodes. Traffic from outside and of nodes is not looked at.

    \b
    Examples:
      calico-debug staged --bundle recording.tar.gz
      calico-debug staged --policy team/lock --bundle recording.tar.gz -o json
    """


@click.command(short_help="Say what staged policies would change.", help=HELP)
@click.option("--policy", metavar="POLICY", help="Only this staged policy, as ns/name, or name of a global one.")
@bundle_option
@cluster_options
@click.option("-o", "--output", type=click.Choice(FORMATS), default="text", help="The form of the answer.")
@click.pass_obj
def staged(environment: Environment, /, policy: str | None, output: str, **place: str | None) -> int:
    """What staged policies would change."""
    from calico_debug.advice.staged import staged_effects
    from calico_debug.cli.render.listing import json_list, yaml_list
    from calico_debug.cli.tracer import open_source
    from calico_debug.intent.decide import Intent
    from calico_debug.state.cluster import load_cluster

    cluster = load_cluster(open_source(checked_place(node=None, **place), environment.platform))
    intent = Intent(cluster.cluster)
    if not cluster.pods:
        raise EvidenceError(
            f"{cluster.origin} has no pods to compare{_why(cluster.problems)}: name a bundle with the cluster's "
            "objects, or a cluster with --kubeconfig"
        )
    warn(environment.stderr, cluster.problems)
    effects = staged_effects(intent, _keys(intent, policy, cluster.origin) if policy is not None else ())
    if output == "text":
        found = list(effects)
        environment.stdout.writelines(f"{safe(line)}\n" for one in found for line in _lines(one))
        if not found:
            environment.stdout.write("no staged policy\n")
    else:
        lists = json_list if output == "json" else yaml_list
        environment.stdout.writelines(lists(one.to_dict() for one in effects))
    return ExitCode.ANSWERED


def _why(problems: Sequence[str]) -> str:
    return f" ({problems[0]})" if problems else ""


def _keys(intent: Intent, text: str, origin: str) -> list[PolicyKey]:
    known = [policy.key for policy in intent.applicability.policies if policy.staged]
    found = [key for key in known if _name(key) == text]
    if not found:
        names = ", ".join(map(_name, known)) or "none"
        raise UsageError(f"{origin} has no staged policy {text!r}: it has {names}")
    return found


def _name(key: PolicyKey) -> str:
    return f"{key.namespace}/{key.name}" if key.namespace else key.name


def _lines(one: StagedEffects) -> Iterator[str]:
    pods = "1 pod" if one.endpoints == 1 else f"{one.endpoints} pods"
    yield f"{one.policy} (stagedAction {one.action}), {pods}"
    if one.problem:
        yield f"  not worked out: {one.problem}"
    elif not one.effects:
        yield "  would change nothing between pods"
    for effect in one.effects:
        flows = "1 pair" if effect.count == 1 else f"{effect.count} pairs"
        services = "; ".join(map(str, effect.services))
        yield f"  {effect.becomes.upper()} in place of {effect.was}, IPv{effect.version}, {flows} of pods: {services}"
        more = ", …" if effect.count > len(effect.examples) else ""
        yield "    " + ", ".join(f"{source} -> {destination}" for source, destination in effect.examples) + more
