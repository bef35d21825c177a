"""The commands that list a node's eBPF maps: conntrack, nat, routes, ipsets, ifstate, counters, attachments."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import click

from calico_debug.cli.environment import Environment, Place
from calico_debug.cli.errors import warn
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.options import cluster_options, contradictions
from calico_debug.cli.render.terminal import safe
from calico_debug.errors import EvidenceError, UsageError

if TYPE_CHECKING:
    from calico_debug.evidence.source import EvidenceSource, NodeEvidence
    from calico_debug.explain.bpf_listing import BpfListings, Listing, Row

FORMATS = ("text", "json")

MEASURED = 500
"""Rows that settle the widths of a table's columns; more are written as they come."""

PORTS = 65535

HELP = {
    "conntrack": "Connections, and whose policy approved them.",
    "nat": "Services with their backends.",
    "routes": "What Calico knows of addresses: pods, hosts, pools.",
    "ipsets": "IP sets and their members.",
    "ifstate": "Interfaces and the policy programs they run.",
    "counters": "Packets accepted and dropped, by interface and direction.",
    "attachments": "Programs at the hooks of interfaces and cgroups.",
}

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every command of this kind takes."""
    for option in (
        click.option("-o", "--output", type=click.Choice(FORMATS), default="text", help="The form of the answer."),
        click.option("--node", metavar="NAME", help="The node of the bundle; live, the name of this node."),
        click.option(
            "--bundle",
            metavar="DIR_OR_TAR",
            help="Read a recorded bundle; when left out, the node this command runs on.",
        ),
        cluster_options,
    ):
        command = option(command)
    return command


def _simple(name: str) -> click.Command:
    @click.command(name, short_help=HELP[name], help=f"List from the eBPF dataplane of a node: {HELP[name]}")
    @_options
    @click.pass_obj
    def command(environment: Environment, /, output: str, **place: str | None) -> int:
        from calico_debug.explain.bpf_listing import LISTINGS

        return _list(environment, place, output, LISTINGS[name])

    return command


@click.command("counters", short_help=HELP["counters"], help=f"List: {HELP['counters']}")
@click.option("--all", "zeros", is_flag=True, help="Also counters that are zero.")
@_options
@click.pass_obj
def counters(environment: Environment, /, zeros: bool, output: str, **place: str | None) -> int:
    """List counters."""
    return _list(environment, place, output, lambda listings: listings.counters(zeros=zeros))


@click.command("conntrack", short_help=HELP["conntrack"], help=f"List: {HELP['conntrack']}")
@click.option("--from", "client", metavar="IP", help="Only connections that this address opened.")
@click.option("--to", "server", metavar="IP", help="Only connections to this address or to the service that has it.")
@click.option("--port", type=click.IntRange(1, PORTS), metavar="PORT", help="Only this port of the server or service.")
@click.option("-p", "--protocol", type=click.Choice(tuple(PROTOCOLS)), help="Only this protocol.")
@_options
@click.pass_obj
def conntrack(
    environment: Environment,
    /,
    client: str | None,
    server: str | None,
    port: int | None,
    protocol: str | None,
    output: str,
    **place: str | None,
) -> int:
    """List connections."""
    from calico_debug.state.bpf_lookups import ConnectionFilter

    wanted = ConnectionFilter(
        _address("--from", client), _address("--to", server), port, PROTOCOLS[protocol] if protocol else None
    )
    return _list(environment, place, output, lambda listings: listings.conntrack(wanted))


COMMANDS: tuple[click.Command, ...] = (
    conntrack,
    *(_simple(name) for name in ("nat", "routes", "ipsets", "ifstate")),
    counters,
    _simple("attachments"),
)
"""To be added to the group."""


def _address(option: str, text: str | None) -> Any:
    from ipaddress import ip_address

    try:
        return ip_address(text) if text is not None else None
    except ValueError:
        raise UsageError(f"{option} {text!r} is not an IP address: give the pod's, node's or service's") from None


def _list(
    environment: Environment, given: Mapping[str, str | None], output: str, choose: Callable[[BpfListings], Listing]
) -> int:
    """``given`` are the options that say where, by the names of `Place`."""
    from calico_debug.decode.bpf_layouts import is_calico
    from calico_debug.explain.bpf_listing import BpfListings
    from calico_debug.state.bpf import BpfState
    from calico_debug.state.cluster import load_cluster

    source, evidence = _evidence(environment, Place(**given))
    state = BpfState(evidence)
    if not state.reach.attachments and not any(is_calico(info.name) for info in state.maps.values()):
        raise EvidenceError(
            f"{state.origin} has no eBPF programs and maps of Calico: name a node that runs Calico's eBPF dataplane"
        )
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) if given["bundle"] is None else None
    cluster = load_cluster(source)
    listing = choose(BpfListings(state, cluster, now))
    write = _write_json if output == "json" else _write_table
    write(environment, listing)
    warn(environment.stderr, cluster.problems)
    for finding in state.findings:
        if finding.severity != "info":
            environment.stderr.write(f"{safe(f'{finding.severity}: {finding.message}')}\n")
    return ExitCode.ANSWERED


def _evidence(environment: Environment, place: Place) -> tuple[EvidenceSource, NodeEvidence]:
    from calico_debug.cli.tracer import open_source

    contradictions({"--bundle": place.bundle, "--kubeconfig": place.kubeconfig, "--context": place.context})
    source = open_source(replace(place, node=None) if place.bundle else place, environment.platform)
    names = source.nodes()
    chosen = place.node or (names[0] if len(names) == 1 else None)
    if chosen is None:
        raise UsageError(f"name one of the bundle's nodes with --node: {', '.join(names) or 'it has none'}")
    evidence = source.node(chosen)
    if not any(name.startswith("bpf/") for name in evidence.files()):
        raise EvidenceError(f"{chosen} of {source.origin} has no bpf/ files: it does not run Calico's eBPF dataplane")
    return source, evidence


def _write_json(environment: Environment, listing: Listing) -> None:
    import json

    separator = "["
    for row in listing.rows:
        environment.stdout.write(f"{separator}\n  {json.dumps(row.document)}")
        separator = ","
    environment.stdout.write("[]\n" if separator == "[" else "\n]\n")


def _write_table(environment: Environment, listing: Listing) -> None:
    rows: Iterator[Row] = listing.rows
    first = list(islice(rows, MEASURED))
    if not first:
        environment.stdout.write("nothing\n")
        return
    columns = zip(listing.headings, *(row.cells for row in first), strict=True)
    widths = [max(len(safe(cell)) for cell in column) for column in columns]
    for cells in chain((listing.headings,), (row.cells for row in chain(first, rows))):
        line = "  ".join(safe(cell).ljust(width) for cell, width in zip(cells, widths, strict=True))
        environment.stdout.write(f"{line.rstrip()}\n")
