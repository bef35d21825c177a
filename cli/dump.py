"""The commands that list what a node holds: policy, conntrack, nat, routes, ipsets, ifstate, counters, attachments."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from calico_debug.cli.environment import Environment, Place
from calico_debug.cli.errors import warn
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.options import bundle_option, cluster_options, contradictions
from calico_debug.cli.render.listing import FORMATS, json_list, table, yaml_list
from calico_debug.cli.render.terminal import safe
from calico_debug.errors import EvidenceError, UsageError

if TYPE_CHECKING:
    from calico_debug.evidence.source import EvidenceSource
    from calico_debug.explain.listing.node import NodeListings
    from calico_debug.explain.listing.policy_view import EndpointView
    from calico_debug.explain.listing.rows import Listing
    from calico_debug.model.conntrack import Address
    from calico_debug.state.connection_filter import ConnectionFilter

PORTS = 65535

HELP = {
    "policy": "Policy as programmed, rule by rule, with hits.",
    "conntrack": "Connections, and whose policy approved them.",
    "nat": "Services with their backends.",
    "routes": "What Calico knows of addresses: pods, hosts, pools.",
    "ipsets": "IP sets and their members.",
    "ifstate": "Interfaces and where their policy is.",
    "counters": "Packets accepted and dropped, by interface and direction.",
    "attachments": "Programs at the hooks of interfaces and cgroups.",
}

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}

DUMP = "dump"
"""A word that calico-bpf wants behind the command, and that may stand here, too."""

DIRECTIONS = ("ingress", "egress", "all")

Command = Callable[..., Any]


def _options(command: Command) -> Command:
    """What every command of this kind takes."""
    for option in (
        click.option("-o", "--output", type=click.Choice(FORMATS), default="text", help="The form of the answer."),
        click.option("-n", "--namespace", metavar="NS", help="The namespace of names that come without one."),
        click.option("--node", metavar="NAME", help="The node of the bundle; live, the name of this node."),
        bundle_option,
        cluster_options,
    ):
        command = option(command)
    return command


_word = click.argument("dump", required=False, type=click.Choice((DUMP,)), metavar="[dump]")
_all = click.option("--all", "zeros", is_flag=True, help="Also counters that are zero.")
_to = click.option("--to", "destination", metavar="X", help="Only what is to this pod, service, node or address.")
_port = click.option(
    "--port", type=click.IntRange(1, PORTS), metavar="PORT", help="Only this port of the server or service."
)
_protocol = click.option("-p", "--protocol", type=click.Choice(tuple(PROTOCOLS)), help="Only this protocol.")


def _command(name: str, *parameters: Callable[[Command], Command]) -> Callable[[Command], click.Command]:
    def decorate(function: Command) -> click.Command:
        decorated = click.pass_obj(function)
        for parameter in (_options, *reversed(parameters)):
            decorated = parameter(decorated)
        return click.command(name, short_help=HELP[name], help=f"List of a node: {HELP[name]}")(decorated)

    return decorate


@_command("policy", click.argument("words", nargs=-1, metavar="[dump] [ENDPOINT] [ingress|egress]"))
def policy(environment: Environment, /, words: tuple[str, ...], output: str, **place: str | None) -> int:
    """List policy."""
    endpoint, direction = _endpoint(words)
    listings = _listings(environment, place, endpoint)
    views = listings.policies(_interfaces(listings, endpoint))
    chosen = (view for view in views if direction in ("all", view.direction))
    _write_policies(environment, chosen, output)
    return _finish(environment, listings)


@_command(
    "conntrack",
    click.option("--from", "source", metavar="X", help="Only connections that this pod, node or address opened."),
    _to,
    _port,
    _protocol,
    click.option("--state", metavar="STATE", help="Only connections in this state: established, syn-sent, closed, …"),
    _word,
)
def conntrack(
    environment: Environment,
    /,
    dump: str | None,  # noqa: ARG001 - a word that changes nothing
    source: str | None,
    destination: str | None,
    port: int | None,
    protocol: str | None,
    state: str | None,
    output: str,
    **place: str | None,
) -> int:
    """List connections."""
    word = _state(state)
    listings = _listings(environment, place)
    wanted = _filter(listings, source, destination, port, protocol, word)
    return _list(environment, listings, listings.conntrack(wanted), output)


@_command("nat", _to, _port, _protocol, _word)
def nat(
    environment: Environment,
    /,
    dump: str | None,  # noqa: ARG001 - a word that changes nothing
    destination: str | None,
    port: int | None,
    protocol: str | None,
    output: str,
    **place: str | None,
) -> int:
    """List services."""
    listings = _listings(environment, place)
    wanted = _filter(listings, None, destination, port, protocol)
    return _list(environment, listings, listings.nat(wanted), output)


@_command("routes", _to, _word)
def routes(
    environment: Environment,
    /,
    dump: str | None,  # noqa: ARG001 - a word that changes nothing
    destination: str | None,
    output: str,
    **place: str | None,
) -> int:
    """List routes."""
    listings = _listings(environment, place)
    return _list(environment, listings, listings.routes(_addresses(listings, destination)), output)


@_command(
    "ipsets",
    click.option("--member", metavar="X", help="Only sets that hold this pod, node or address."),
    _word,
)
def ipsets(
    environment: Environment,
    /,
    dump: str | None,  # noqa: ARG001 - a word that changes nothing
    member: str | None,
    output: str,
    **place: str | None,
) -> int:
    """List IP sets."""
    listings = _listings(environment, place)
    return _list(environment, listings, listings.ipsets(_addresses(listings, member)), output)


_endpoint_words = click.argument("words", nargs=-1, metavar="[dump] [ENDPOINT]")


@_command("ifstate", _endpoint_words)
def ifstate(environment: Environment, /, words: tuple[str, ...], output: str, **place: str | None) -> int:
    """List interfaces."""
    endpoint, _ = _endpoint(words, directions=False)
    listings = _listings(environment, place, endpoint)
    return _list(environment, listings, listings.ifstate(_interfaces(listings, endpoint)), output)


@_command("counters", _all, _endpoint_words)
def counters(environment: Environment, /, words: tuple[str, ...], zeros: bool, output: str, **place: str | None) -> int:
    """List counters."""
    endpoint, _ = _endpoint(words, directions=False)
    listings = _listings(environment, place, endpoint)
    chosen = listings.counters(_interfaces(listings, endpoint), zeros=zeros)
    return _list(environment, listings, chosen, output)


@_command("attachments", _word)
def attachments(
    environment: Environment,
    /,
    dump: str | None,  # noqa: ARG001 - a word that changes nothing
    output: str,
    **place: str | None,
) -> int:
    """List attachments."""
    listings = _listings(environment, place)
    return _list(environment, listings, listings.attachments(), output)


COMMANDS: tuple[click.Command, ...] = (policy, conntrack, nat, routes, ipsets, ifstate, counters, attachments)
"""To be added to the group."""


# ------------------------------------------------------------------------------------------------------ what is meant


def _endpoint(words: tuple[str, ...], *, directions: bool = True) -> tuple[str | None, str]:
    """The endpoint among the words, None without one, and the direction."""
    rest = list(words[1:] if words[:1] == (DUMP,) else words)
    direction = rest.pop() if directions and len(rest) > 1 and rest[-1] in DIRECTIONS else "all"
    if len(rest) > 1 and rest[-1] == DUMP:
        rest.pop()
    if len(rest) > 1:
        raise UsageError(f"one endpoint at a time: {' '.join(rest)!r} names {len(rest)}")
    return (rest[0] if rest else None), direction


def _state(text: str | None) -> str:
    from calico_debug.state.connection_filter import STATES, state_word

    if text is None:
        return ""
    word = state_word(text)
    if word not in STATES:
        raise UsageError(f"{text!r} is no state of a connection: give one of {', '.join(STATES)}")
    return word


def _filter(
    listings: NodeListings,
    source: str | None,
    destination: str | None,
    port: int | None,
    protocol: str | None,
    state: str = "",
) -> ConnectionFilter:
    from calico_debug.state.connection_filter import connection_filter

    return connection_filter(
        listings.resolver,
        source=source,
        destination=destination,
        port=port,
        protocol=PROTOCOLS[protocol] if protocol else None,
        state=state,
        namespace=listings.namespace,
    )


def _addresses(listings: NodeListings, text: str | None) -> frozenset[Address] | None:
    return _filter(listings, None, text, None, None).servers


def _interfaces(listings: NodeListings, endpoint: str | None) -> frozenset[str] | None:
    return listings.interfaces_of(endpoint, listings.namespace) if endpoint is not None else None


def _listings(environment: Environment, given: Mapping[str, str | None], endpoint: str | None = None) -> NodeListings:
    """The node's listings; ``given`` are the options that say where, by the names of `Place`.

    Raises `CalicoDebugError`.
    """
    from calico_debug.cli.tracer import open_place
    from calico_debug.explain.listing.node import NodeListings

    place = Place(**given)
    contradictions({"--bundle": place.bundle, "--kubeconfig": place.kubeconfig, "--context": place.context})
    source, namespace = open_place(replace(place, node=None) if place.bundle else place, environment.platform)
    if not source.nodes():
        raise EvidenceError(f"{source.origin} has no node that could be listed: run on a Linux node, or name a bundle")
    chosen = place.node or _only_node(source, endpoint, namespace)
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) if place.bundle is None else None
    if chosen not in source.nodes():
        source.node(chosen)  # raises, and says which nodes there are
    return NodeListings(source, chosen, now, namespace)


def _only_node(source: EvidenceSource, endpoint: str | None, namespace: str | None) -> str:
    """The one node that is there, or that the endpoint is on."""
    names = source.nodes()
    if len(names) == 1:
        return names[0]
    if endpoint is not None:
        from calico_debug.explain.listing.node import node_of

        found = node_of(source, endpoint, namespace)
        if found in names:
            return found
    raise UsageError(f"name one of the bundle's nodes with --node: {', '.join(names)}")


# ---------------------------------------------------------------------------------------------------------- writing


def _list(environment: Environment, listings: NodeListings, listing: Listing, output: str) -> int:
    if output in ("json", "yaml"):
        _write_documents(environment, (row.document for row in listing.rows), output)
    else:
        environment.stdout.writelines(table(listing, output == "wide"))
    return _finish(environment, listings)


def _write_policies(environment: Environment, views: Iterable[EndpointView], output: str) -> None:
    if output in ("json", "yaml"):
        _write_documents(environment, (view.to_dict() for view in views), output)
        return
    from calico_debug.cli.render.policy import render

    lines = list(render(views, output == "wide"))
    environment.stdout.writelines(f"{line}\n" for line in lines or ["nothing"])


def _write_documents(environment: Environment, documents: Iterable[Mapping[str, Any]], output: str) -> None:
    environment.stdout.writelines((json_list if output == "json" else yaml_list)(documents))


def _finish(environment: Environment, listings: NodeListings) -> int:
    warn(environment.stderr, listings.cluster.problems)
    for finding in listings.findings:
        if finding.severity != "info":
            environment.stderr.write(f"{safe(f'{finding.severity}: {finding.message}')}\n")
    return ExitCode.ANSWERED
