"""Connections that are open, of nodes of every dataplane in one form, each once though several nodes track it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from calico_debug.errors import EvidenceError
from calico_debug.state.bpf_lookups import BpfLookups
from calico_debug.state.connection_filter import state_word
from calico_debug.state.dataplane import EBPF

if TYPE_CHECKING:
    from calico_debug.model import bpf_conntrack
    from calico_debug.model.conntrack import Address, Connection
    from calico_debug.state.cluster import ClusterState
    from calico_debug.state.node import NodeState

FAMILIES = (4, 6)
TCP, ICMP, ICMPV6 = 6, 1, 58
ECHO = {ICMP: 8, ICMPV6: 128}
"""The request of ping, by protocol: of ICMP, only that opens a connection that lasts."""

OPEN = frozenset({"syn-recv", "established", "fin-wait", "close-wait"})
"""States of TCP in which data may still flow. What has no answer yet is not open: it may have been refused."""

MOST = 100_000
"""Connections that are held at once; of a larger table the first ones."""

End = tuple["Address", int | None]


@dataclass(frozen=True, slots=True)
class LiveConnection:
    """An open connection. ``asked`` is what the client sent to, ``server`` who answers, ``seen_as`` the client as the
    server sees it. ``approved_by`` are sides whose policy let it through, as far as ``nodes`` can tell.

    ``packets`` and ``bytes`` are of both directions, None where they are not counted; ``age`` and ``idle`` are in
    seconds, None where evidence does not tell.
    """

    nodes: tuple[str, ...]
    protocol: int
    client: End
    asked: End
    server: End
    seen_as: End
    state: str = ""
    approved_by: tuple[str, ...] = ()
    packets: int | None = None
    bytes: int | None = None
    age: int | None = None
    idle: float | None = None


@dataclass(slots=True)
class Tally:
    """How many connections were met that are not in the answer, and why: they are closed or have no answer yet, they
    are of no pod here (or between neighbours on a link, which policy has no part in), or there were too many.
    ``unread`` says of nodes whose connections could not be read why.
    """

    looked_at: int = 0
    not_open: int = 0
    elsewhere: int = 0
    left_out: int = 0
    unread: dict[str, str] = field(default_factory=dict)


def open_connections(
    states: Sequence[NodeState],
    cluster: ClusterState,
    tally: Tally,
    now: int | None = None,
    *,
    passing: bool = False,
) -> Sequence[LiveConnection]:
    """Open connections to or from pods of these nodes, each once. ``now`` is CLOCK_MONOTONIC in nanoseconds; None, as
    for a recording, is the time of the newest entry. ``passing`` adds those that the nodes only send on, to or from
    pods elsewhere. Raises `EvidenceError` when those of no node can be read.
    """
    found: list[LiveConnection] = []
    for state in states:
        try:
            _add(found, state, _Pods(state, cluster, anywhere=passing), tally, now)
        except EvidenceError as error:
            tally.unread[state.name] = str(error)
            if len(tally.unread) == len(states):
                raise
    return merged(found)


def _add(found: list[LiveConnection], state: NodeState, pods: _Pods, tally: Tally, now: int | None) -> None:
    for connection in _of_node(state, pods, tally, now):
        client, server = connection.client[0], connection.server[0]
        if client.is_link_local or server.is_link_local or not (pods.has(client) or pods.has(server)):
            tally.elsewhere += 1
        elif len(found) >= MOST:
            tally.left_out += 1
        else:
            found.append(connection)


def merged(connections: Iterable[LiveConnection]) -> Sequence[LiveConnection]:
    """Each connection once: what one node sends on, translated or not, another one tracks as well."""
    first: dict[tuple[int, End, End], LiveConnection] = {}
    for one in connections:
        key = (one.protocol, one.client, one.asked)
        first[key] = _joined(first[key], one) if key in first else one
    # Where a node has put itself in the client's place, the next one knows the connection by that.
    goes_on = {
        (one.protocol, one.seen_as, one.server): key
        for key, one in first.items()
        if (one.seen_as, one.server) != (one.client, one.asked)
    }
    for key in list(first):
        before = goes_on.get(key)
        if before is not None and before in first and not set(first[before].nodes) & set(first[key].nodes):
            first[before] = _joined(first[before], first.pop(key))
    return list(first.values())


def _joined(one: LiveConnection, other: LiveConnection) -> LiveConnection:
    ages = [age for age in (one.age, other.age) if age is not None]
    counted = max((one, other), key=lambda each: each.packets or 0)
    # The node that translates knows who answers; one before it only what was asked for.
    translated = one if one.server != one.asked else other
    return replace(
        one,
        nodes=tuple(dict.fromkeys((*one.nodes, *other.nodes))),
        server=translated.server,
        approved_by=tuple(sorted({*one.approved_by, *other.approved_by})),
        packets=counted.packets,
        bytes=counted.bytes,
        age=max(ages) if ages else None,
    )


class _Pods:
    """Which addresses are of pods on a node: as the cluster says, and as the node's routes do."""

    def __init__(self, state: NodeState, cluster: ClusterState, *, anywhere: bool) -> None:
        self._state = state
        self._cluster = cluster
        self._anywhere = anywhere
        self._routed: dict[int, frozenset[Address]] = {}

    def has(self, address: Address) -> bool:
        pod = self._cluster.pod_by_address(address)
        if pod is not None:
            return self._anywhere or pod.node == self._state.name
        if address.version not in self._routed:
            self._routed[address.version] = self._routes(address.version)
        return address in self._routed[address.version]

    def _routes(self, family: int) -> frozenset[Address]:
        """Addresses that alone lead to an interface of their own, as Felix routes pods."""
        try:
            main = self._state.routing(family).tables.get("main", ())
        except EvidenceError:
            return frozenset()
        return frozenset(
            route.destination.network_address
            for route in main
            if route.type == "unicast"
            and route.destination.prefixlen == route.destination.max_prefixlen
            and any(hop.gateway is None for hop in route.hops)
        )


def _of_node(state: NodeState, pods: _Pods, tally: Tally, now: int | None) -> Iterator[LiveConnection]:
    if not state.dataplane:
        raise EvidenceError(f"{state.name} runs no dataplane of Calico; name a node that runs Calico")
    if state.dataplane == EBPF:
        yield from _from_map(state, tally, now)
        return
    for family in FAMILIES:
        for connection in state.listed_connections(family):
            tally.looked_at += 1
            if is_open(connection):
                yield _from_kernel(connection, state.name, pods)
            else:
                tally.not_open += 1


def is_open(connection: Connection) -> bool:
    """Whether data may still flow over it."""
    original = connection.original
    if not connection.replied:
        return False
    if original.protocol in ECHO:
        return original.icmp is not None and original.icmp[0] == ECHO[original.protocol]
    return not connection.state or state_word(connection.state) in OPEN


def _from_kernel(connection: Connection, node: str, pods: _Pods) -> LiveConnection:
    original, reply = connection.original, connection.reply
    sides = (("client side", original.source), ("server side", reply.source))
    return LiveConnection(
        (node,),
        original.protocol,
        (original.source, original.source_port),
        (original.destination, original.destination_port),
        (reply.source, reply.source_port),
        (reply.destination, reply.destination_port),
        state_word(connection.state) if connection.state else "",
        tuple(side for side, address in sides if pods.has(address)),
        _sum(connection.packets),
        _sum(connection.bytes),
        connection.age,
    )


def _sum(counts: tuple[int | None, int | None]) -> int | None:
    one, other = counts
    return None if one is None or other is None else one + other


def _from_map(state: NodeState, tally: Tally, now: int | None) -> Iterator[LiveConnection]:
    lookups = BpfLookups(state.bpf)
    if now is None:
        now = max(lookups.newest_connection(family) for family in FAMILIES)
    for family in FAMILIES:
        for entry in lookups.connections(family):
            tally.looked_at += 1
            legs = [leg for leg in (entry.client_leg, entry.server_leg) if leg is not None]
            answered = entry.server_leg is not None and entry.server_leg.packets > 0
            if not answered or (entry.key.protocol == TCP and entry.tcp_state != "established"):
                tally.not_open += 1
                continue
            sides = zip(("client side", "server side"), legs, strict=False)
            yield LiveConnection(
                (state.name,),
                entry.key.protocol,
                _ported(entry.key.protocol, entry.client),
                _ported(entry.key.protocol, _asked(entry)),
                _ported(entry.key.protocol, entry.server),
                _ported(entry.key.protocol, entry.client),
                entry.tcp_state,
                tuple(side for side, leg in sides if leg.has("approved")),
                sum(leg.packets for leg in legs),
                sum(leg.bytes for leg in legs),
                None,
                max(now - entry.last_seen, 0) / 10**9,
            )


def _asked(entry: bpf_conntrack.ConntrackEntry) -> tuple[Address, int]:
    if entry.type_word == "nat-reverse" and entry.original_ip is not None and int(entry.original_ip):
        return entry.original_ip, entry.original_port
    return entry.server


def _ported(protocol: int, end: tuple[Address, int]) -> End:
    """An end; the maps hold numbers of their own, or 0, where a protocol has no ports."""
    return (end[0], None) if protocol in ECHO else end
