"""The command ``calico-debug chain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from calico_debug.cli.environment import Environment
from calico_debug.cli.errors import warn
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.options import bundle_option, checked_place, cluster_options, node_option
from calico_debug.cli.render.terminal import safe
from calico_debug.errors import EvidenceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calico_debug.explain.chainlookup import ChainAnswer

HELP = """Say which policy a chain is, and which chains a policy has.

    \b
    Examples:
      calico-debug chain cali-pi-_DGlcWcRp1ZkXB3gGq8k --bundle recording.tar.gz
      calico-debug chain cali-fw-cali930d9fe4cd7
      calico-debug chain client/platform.client-egress -o json
    """


@click.command(short_help="Say which policy a chain is, and the other way round.", help=HELP)
@click.argument("name")
@bundle_option
@node_option
@cluster_options
@click.option("-o", "--output", type=click.Choice(("text", "json")), default="text", help="The form of the answer.")
@click.pass_obj
def chain(environment: Environment, /, name: str, output: str, **place: str | None) -> int:
    """Look a chain or a policy up."""
    import json

    from calico_debug.cli.tracer import open_source
    from calico_debug.explain.chainlookup import ChainDirectory
    from calico_debug.state.cluster import load_cluster
    from calico_debug.state.node import NodeState

    source = open_source(checked_place(**place), environment.platform)
    states = {each: NodeState(source.node(each)) for each in source.nodes()}
    cluster = load_cluster(source)
    try:
        answers = ChainDirectory(cluster, states).look_up(name)
    except UsageError as error:
        if cluster.problems:
            raise EvidenceError(f"{error}; not every policy is known: {cluster.problems[0]}") from error
        raise
    warn(environment.stderr, cluster.problems)
    for answer in answers:
        if output == "json":
            environment.stdout.write(json.dumps(answer.to_dict(), indent=2) + "\n")
        else:
            environment.stdout.writelines(f"{safe(line)}\n" for line in _lines(answer))
    return ExitCode.ANSWERED


def _lines(answer: ChainAnswer) -> Iterator[str]:
    direction = f", {answer.direction}" if answer.direction else ""
    if answer.policy is not None:
        tier = f", tier {answer.policy.tier}" if answer.policy.tier else ""
        yield f"{answer.policy}{tier}{direction}"
    elif answer.pod is not None:
        yield f"{answer.kind}{direction}: pod {'/'.join(answer.pod)} behind {answer.subject}"
    else:
        subject = f": {answer.subject}" if answer.subject else ""
        unnamed = " (no object or comment says which)" if answer.kind == "policy" else ""
        yield f"{answer.kind}{direction}{subject}{unnamed}"
    for place in answer.programmed:
        rules = "1 rule" if place.rules == 1 else f"{place.rules} rules"
        yield f"  {place.node}  table {place.family} {place.table}  chain {place.chain}  {rules}"
    if not answer.programmed:
        yield "  on no node of the evidence: Felix programs only chains that an endpoint of the node refers to"
