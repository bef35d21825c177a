"""The agent that a command speaks to: this node's, one at an address, or that of a node of the cluster."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from calico_debug.cli.environment import OFF, Environment, Place
from calico_debug.cli.options import agent_identity_options, check_agent, contradictions
from calico_debug.errors import EvidenceError, UsageError

if TYPE_CHECKING:
    from calico_debug.cli.agent_client import AgentClient

SOCKET, VARIABLE = "/run/calico-debug/agent.sock", "CALICO_DEBUG_SOCKET"
"""Where agents listen unless told otherwise, and what tells them: as in agent/settings.py, which help imports not."""

_OPTIONS = ("agent", "agent_ca", "agent_token_file", "node", "agents", "kubeconfig", "context")


def agent_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which agent; the command gets them as its ``place``."""

    @wraps(command)
    def placed(*arguments: Any, **given: Any) -> Any:
        return command(*arguments, place=Place(**{name: given.pop(name) for name in _OPTIONS}), **given)

    made: Callable[..., Any] = placed
    for option in (
        click.option("--context", metavar="NAME", help="With --node: the context of the kubeconfig."),
        click.option(
            "--kubeconfig", metavar="FILE", help="With --node: its cluster; when left out, what kubectl would take."
        ),
        click.option(
            "--agents", metavar="NS", help="With --node: the namespace of the agents; calico-debug when left out."
        ),
        click.option("--node", metavar="NAME", help="Instead, the agent of this node of the cluster."),
        agent_identity_options,
        click.option(
            "--agent",
            metavar="SOCKET_OR_URL",
            help=f"The agent; when left out, {VARIABLE}, else {SOCKET}.",
        ),
    ):
        made = option(made)
    return made


def open_agent(environment: Environment, place: Place) -> AgentClient:
    """The agent of `agent_options`. Raises `UsageError`, and `EvidenceError` when that of a node is not found."""
    from calico_debug.cli.agent_client import AgentClient, Trust, find_token

    contradictions({"--agent": place.agent, "--agents": place.agents, "--node": place.node})
    check_agent(place.agent, place.agent_ca, place.agent_token_file)
    if place.node is not None:
        return _agent_of_node(environment, place, place.node)
    for name, given in (("--agents", place.agents), ("--kubeconfig", place.kubeconfig), ("--context", place.context)):
        if given is not None:
            raise UsageError(f"{name} is for the agent of another node: name that with --node")
    usual = environment.variables.get(VARIABLE) or SOCKET
    if place.agent is None and usual == OFF:
        raise UsageError(f"{VARIABLE} is off: name an agent with --agent or --node")
    token = find_token(place.agent_token_file, environment.variables)
    return AgentClient(place.agent or usual, trust=Trust(place.agent_ca), token=token)


def _agent_of_node(environment: Environment, place: Place, node: str) -> AgentClient:
    from calico_debug.agent.cluster import LiveCluster, UnusableCluster
    from calico_debug.cli.reach import find_agents
    from calico_debug.cli.tracer import find_cluster

    if place.agents == OFF:
        raise UsageError("--agents off asks no other node: leave out one of --agents and --node")
    cluster = find_cluster(place)
    if not isinstance(cluster, LiveCluster):
        why = cluster.problem if isinstance(cluster, UnusableCluster) else "nothing says which"
        raise EvidenceError(
            f"--node {node}: the cluster cannot be asked for its agent ({why}): give --kubeconfig, or --agent"
        )
    agent = find_agents(place, cluster, environment.variables).agent(node)
    agent.begin()
    return agent.client
