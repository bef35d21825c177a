"""The options of ``trace`` as typed, which of them contradict each other, and what they mean together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from calico_debug.cli.environment import Place
from calico_debug.errors import UsageError

FORMATS = ("text", "wide", "json", "yaml", "jsonl")
LEAST_SECONDS, MOST_SECONDS = 0.1, 600
"""How long counters can be watched and packets observed."""
COLOURS = ("auto", "always", "never")
WANTED = ("allowed", "denied")


bundle_option = click.option(
    "--bundle", metavar="DIR_OR_TAR", help="Read a recorded bundle; when left out, the node this command runs on."
)
"""Of commands that read a recording or the node itself."""
node_option = click.option(
    "--node", metavar="NAME", help="The name of the node this command runs on, if it is not the host name."
)
"""Of commands on a node whose name may be another than its host's."""


agents_option = click.option(
    "--agents",
    metavar="NS",
    help='Live: the namespace of the agents that other nodes are asked through, or "off"; calico-debug when left out.',
)
"""Of commands that predict what becomes of a flow, over all nodes of it."""


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that name the cluster of a live node."""
    for option in (
        click.option("--context", metavar="NAME", help="Live: the context of the kubeconfig, if not the current one."),
        click.option(
            "--kubeconfig",
            metavar="FILE",
            help="Live: the cluster that objects are read from; when left out, what kubectl would take.",
        ),
    ):
        command = option(command)
    return command


def agent_identity_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options about the caller and an agent over TLS, beside the one that names the agent."""
    for option in (
        click.option(
            "--agent-token-file",
            metavar="FILE",
            help="The token for an agent over TLS; when left out CALICO_DEBUG_AGENT_TOKEN, then an agent's own.",
        ),
        click.option("--agent-ca", metavar="FILE", help="The certificate of an agent over TLS, or who signed it; PEM."),
    ):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """The options as typed; None where the user was silent."""

    source: str | None = None
    destination: str | None = None
    protocol: str | None = None
    bundle: str | None = None
    namespace: str | None = None
    output: str | None = None
    exit_code: bool = False
    flows: str | None = None
    via: str | None = None
    want: str | None = None
    node: str | None = None
    kubeconfig: str | None = None
    context: str | None = None
    agent: str | None = None
    agent_ca: str | None = None
    agent_token_file: str | None = None
    agents: str | None = None
    colour: str = "auto"
    watch: float | None = None
    observe: float | None = None
    probe: bool = False

    @property
    def wanted(self) -> str | None:
        """The verdict that advice is for: of a single flow how to allow it; of many only what was asked for."""
        return self.want or (None if self.flows is not None else "allowed")

    @property
    def format(self) -> str:
        """The output's format, by default text for one flow and jsonl for many."""
        return self.output or ("text" if self.flows is None else "jsonl")


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two options that contradict each other; ``value`` is the one value of ``second`` that does, None for any."""

    first: str
    second: str
    remedy: str
    value: str | None = None


CONFLICTS = (
    Conflict("--flows", "--from", "each line of --flows names its own ends: leave out --from"),
    Conflict("--flows", "--to", "each line of --flows names its own ends: leave out --to"),
    Conflict("--flows", "--protocol", 'each line of --flows has its own "protocol": leave out --protocol'),
    Conflict("--flows", "--via", 'each line of --flows may have its own "via": leave out --via'),
    Conflict("--flows", "--output", "one document cannot hold many answers: use -o jsonl", "json"),
    Conflict("--flows", "--output", "one document cannot hold many answers: use -o jsonl", "yaml"),
    Conflict("--flows", "--watch", "counters are watched for one flow: give it with --from and --to"),
    Conflict("--flows", "--observe", "packets are observed of one flow: give it with --from and --to"),
    Conflict("--flows", "--probe", "packets are sent of one flow: give it with --from and --to"),
    Conflict("--bundle", "--watch", "a recording does not change: run on the node, without --bundle"),
    Conflict("--bundle", "--observe", "a recording has no packets: run on the node, without --bundle"),
    Conflict("--bundle", "--probe", "packets are sent from a node: run there, without --bundle"),
    Conflict("--bundle", "--node", "--node names the node that is read live: leave it out, a bundle names its nodes"),
    Conflict("--bundle", "--kubeconfig", "a bundle has the objects of its cluster: leave out --kubeconfig"),
    Conflict("--bundle", "--context", "a bundle has the objects of its cluster: leave out --context"),
    Conflict("--bundle", "--agents", "a bundle has its nodes: leave out --agents"),
    Conflict("--agent", "--bundle", "evidence comes from one of them: leave out --bundle or --agent"),
    Conflict("--agent", "--agents", "one agent is named, and no other is asked: leave out one of them"),
    Conflict("--agent", "--node", "an agent knows its node's name: leave out --node"),
)
"""Every pair of options that cannot stand together; docs/cli.md has the same table."""

_ATTRIBUTES = {
    "--flows": "flows",
    "--from": "source",
    "--to": "destination",
    "--protocol": "protocol",
    "--via": "via",
    "--output": "output",
    "--bundle": "bundle",
    "--node": "node",
    "--kubeconfig": "kubeconfig",
    "--context": "context",
    "--watch": "watch",
    "--observe": "observe",
    "--probe": "probe",
    "--agent": "agent",
    "--agents": "agents",
}


def contradictions(given: Mapping[str, object]) -> None:
    """Raise `UsageError` for options of ``given`` that contradict each other.

    ``given`` has what was typed by the options' names, None or False where the user was silent.
    """
    for conflict in CONFLICTS:
        first, second = given.get(conflict.first), given.get(conflict.second)
        if first not in (None, False) and second not in (None, False) and conflict.value in (None, second):
            value = f" {conflict.value}" if conflict.value else ""
            raise UsageError(f"{conflict.first} and {conflict.second}{value} contradict each other: {conflict.remedy}")


def checked_place(
    *,
    bundle: str | None,
    node: str | None,
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None = None,
) -> Place:
    """Where these options say that evidence is. Raises `UsageError` when they contradict each other."""
    contradictions({"--bundle": bundle, "--node": node, "--kubeconfig": kubeconfig, "--context": context})
    return Place(bundle, namespace, node, kubeconfig, context)


def check_agent(agent: str | None, agent_ca: str | None, agent_token_file: str | None) -> None:
    """Raise `UsageError` for options about an agent that nothing names."""
    for name, file in (("--agent-ca", agent_ca), ("--agent-token-file", agent_token_file)):
        if file is not None and agent is None:
            raise UsageError(f"{name} is about an agent: name it with --agent https://ADDR:PORT")


def check(options: TraceOptions) -> None:
    """Raise `UsageError` for options that contradict each other, and for a question that lacks an end."""
    contradictions({name: getattr(options, attribute) for name, attribute in _ATTRIBUTES.items()})
    check_agent(options.agent, options.agent_ca, options.agent_token_file)
    for name, seconds in (("--watch", options.watch), ("--observe", options.observe)):
        if seconds is not None and not LEAST_SECONDS <= seconds <= MOST_SECONDS:  # also what is not a number
            raise UsageError(f"{name} {seconds:g}: give {LEAST_SECONDS:g} to {MOST_SECONDS:g} seconds")
    if options.flows is None:
        if options.output == "jsonl":
            raise UsageError("-o jsonl is for --flows: use -o json for a single flow")
        missing = [name for name, value in (("--from", options.source), ("--to", options.destination)) if value is None]
        if missing:
            raise UsageError(
                f"{' and '.join(missing)} missing: name both ends of the flow with --from and --to, or many flows with "
                "--flows; calico-debug trace --help has examples"
            )
