"""The commands ``calico-debug policies`` and ``calico-debug endpoints``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from calico_debug.cli.environment import Environment
from calico_debug.cli.errors import warn
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.options import bundle_option, checked_place, cluster_options, node_option
from calico_debug.cli.render.terminal import safe
from calico_debug.errors import EvidenceError, UsageError

if TYPE_CHECKING:
    from calico_debug.explain.policy_listing import PolicyListing
    from calico_debug.intent.decide import Intent
    from calico_debug.intent.model import Endpoint, Policy
    from calico_debug.state.cluster import ClusterState

FORMS = ("text", "wide", "json", "yaml")

POLICIES_HELP = """Say which policies apply to a pod, in the order of evaluation.

    Without a pod: every policy, and how many endpoints it selects. Staged policies are marked; they decide nothing.

    \b
    Examples:
      calico-debug policies --pod client/client --bundle recording.tar.gz
      calico-debug policies --bundle recording.tar.gz -o wide
    """

ENDPOINTS_HELP = """Say which endpoints a policy selects.

    \b
    Examples:
      calico-debug endpoints --policy client/platform.client-egress --bundle recording.tar.gz
      calico-debug endpoints --policy security.quarantine --bundle recording.tar.gz -o json
    """

Command = Callable[..., Any]


def _options(command: Command) -> Command:
    for option in (
        click.option("-o", "--output", type=click.Choice(FORMS), default="text", help="The form of the answer."),
        click.option("-n", "--namespace", metavar="NS", help="The namespace of a name that comes without one."),
        cluster_options,
        node_option,
        bundle_option,
    ):
        command = option(command)
    return command


@click.command("policies", short_help="Say which policies apply to a pod.", help=POLICIES_HELP)
@click.option("--pod", metavar="POD", help="The pod, as ns/name or name; when left out, every policy is listed.")
@_options
@click.pass_obj
def policies(environment: Environment, /, pod: str | None, output: str, **place: str | None) -> int:
    """Which policies apply to a pod."""

    def documents(cluster: ClusterState, intent: Intent, listing: PolicyListing) -> Iterable[dict[str, Any]]:
        return [listing.of_all() if pod is None else listing.of_pod(_pod(cluster, intent, pod, place["namespace"]))]

    return _answer(environment, output, documents, **place)


@click.command("endpoints", short_help="Say which endpoints a policy selects.", help=ENDPOINTS_HELP)
@click.option("--policy", metavar="POLICY", required=True, help="The policy, as ns/name, or name of a global one.")
@_options
@click.pass_obj
def endpoints(environment: Environment, /, policy: str, output: str, **place: str | None) -> int:
    """Which endpoints a policy selects."""

    def documents(cluster: ClusterState, intent: Intent, listing: PolicyListing) -> Iterable[dict[str, Any]]:
        return [listing.endpoints(one) for one in _policies(cluster, intent, policy, place["namespace"])]

    return _answer(environment, output, documents, **place)


COMMANDS: tuple[click.Command, ...] = (policies, endpoints)
"""To be added to the group."""

_Documents = Callable[["ClusterState", "Intent", "PolicyListing"], Iterable[dict[str, Any]]]


def _answer(environment: Environment, output: str, documents: _Documents, **place: str | None) -> int:
    from calico_debug.cli.tracer import open_source
    from calico_debug.explain.policy_listing import PolicyListing
    from calico_debug.intent.decide import Intent
    from calico_debug.state.cluster import load_cluster
    from calico_debug.state.node import NodeState

    source = open_source(checked_place(**place), environment.platform)
    cluster = load_cluster(source)
    intent = Intent(cluster.cluster)
    states = {name: NodeState(source.node(name)) for name in source.nodes()}
    for document in documents(cluster, intent, PolicyListing(intent, states)):
        environment.stdout.write(_text(document, output))
    warn(environment.stderr, cluster.notes)
    return ExitCode.ANSWERED


def _text(document: dict[str, Any], output: str) -> str:
    if output == "json":
        import json

        return json.dumps(document, indent=2) + "\n"
    if output == "yaml":
        from calico_debug.cli.render.yaml import dump

        return dump(document)
    from calico_debug.cli.render.policies import lines

    return "".join(f"{safe(line)}\n" for line in lines(document, wide=output == "wide"))


def _pod(cluster: ClusterState, intent: Intent, name: str, namespace: str | None) -> Endpoint:
    place, slash, bare = name.removeprefix("pod/").rpartition("/")
    if not cluster.pods:
        problem = cluster.problem("pods.json") or f"{cluster.origin} has no pods.json"
        raise EvidenceError(f"{problem}: which policies apply follows from a pod's labels")
    wanted = place if slash else namespace
    found = [pod for pod in cluster.pods_named(bare) if wanted in (None, pod.namespace)]
    if not found:
        raise UsageError(f"no pod is named {name!r} in {cluster.origin}: name it as ns/name")
    if len(found) > 1:
        raise UsageError(f"{name!r} could be a pod of {', '.join(p.namespace for p in found)}: give the namespace")
    endpoint = intent.applicability.pod(found[0].namespace, bare)
    if endpoint is None:
        why = "is in its node's network" if found[0].host_network else "has no address of its own now"
        raise UsageError(f"no policy for pods applies to {found[0].namespace}/{bare}: it {why}")
    return endpoint


def _policies(cluster: ClusterState, intent: Intent, name: str, namespace: str | None) -> list[Policy]:
    from calico_debug.policy.identity import spellings

    wanted = {name} | ({f"{namespace}/{name}"} if namespace else set())
    found = [policy for policy in intent.applicability.policies if wanted & spellings(policy.source)]
    if not found:
        raise UsageError(
            f"no policy is named {name!r} in {cluster.origin}: name it as ns/name, or name if it is global"
        )
    return found
