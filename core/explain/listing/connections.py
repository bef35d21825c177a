"""The kernel's own connection tracking, row by row: nodes in nftables and iptables mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from calico_debug.errors import EvidenceError
from calico_debug.explain.listing.names import Names, end_words, protocol_word
from calico_debug.explain.listing.rows import Listing, Row
from calico_debug.state.connection_filter import ConnectionFilter, state_word

if TYPE_CHECKING:
    from calico_debug.model.conntrack import Address, Connection, Tuple
    from calico_debug.state.node import NodeState

FAMILIES = (4, 6)
HEADINGS = ("PROTO", "CLIENT", "SERVICE", "SERVER", "STATE", "AGE", "APPROVED BY", "PACKETS", "FLAGS")
MORE = ("BYTES", "NAT", "CLIENT'S PACKETS", "SERVER'S PACKETS")
"""Columns of every dataplane's connections; the wide form has ``MORE`` too."""


def end_cells(client: Mapping[str, Any], service: Mapping[str, Any] | None, server: Mapping[str, Any]) -> list[str]:
    """Who opened the connection, what was asked for, who answers."""
    return [end_words(client), end_words(service) if service else "-", end_words(server)]


def kernel_connections(state: NodeState, names: Names, wanted: ConnectionFilter) -> Listing:
    """Connections with both directions, and the sides whose policy is on this node and let them through.

    The kernel lists a connection once its first packet has passed every hook of the node (nf_conntrack_confirm).
    """
    return Listing(HEADINGS, _rows(state, names, wanted), MORE)


def _rows(state: NodeState, names: Names, wanted: ConnectionFilter) -> Iterator[Row]:
    local = _Local(state)
    for family in FAMILIES:
        if not wanted.has_family(family):
            continue
        for connection in state.listed_connections(family):
            if _admits(wanted, connection):
                yield _row(connection, names, local)


def _admits(wanted: ConnectionFilter, connection: Connection) -> bool:
    original, reply = connection.original, connection.reply
    servers = ((original.destination, original.destination_port), (reply.source, reply.source_port))
    return wanted.admits(original.protocol, (original.source, original.source_port), servers, _states(connection))


def _states(connection: Connection) -> list[str]:
    states = [state_word(connection.state)] if connection.state else []
    states += [] if connection.replied else ["unreplied"]
    return states + (["assured"] if connection.assured else [])


class _Local:
    """Which addresses have their policy on this node: its pods', and its own."""

    def __init__(self, state: NodeState) -> None:
        self._state = state
        self._known: dict[Address, bool] = {}

    def has(self, address: Address) -> bool:
        if address not in self._known:
            self._known[address] = self._look(address)
        return self._known[address]

    def _look(self, address: Address) -> bool:
        try:
            if self._state.is_local(address):
                return True
            main = self._state.routing(address.version).tables.get("main", ())
        except EvidenceError:
            return False
        return any(
            route.destination.prefixlen == address.max_prefixlen
            and route.destination.network_address == address
            and any(hop.gateway is None for hop in route.hops)
            for route in main
        )


def _row(connection: Connection, names: Names, local: _Local) -> Row:
    original, reply = connection.original, connection.reply
    protocol = original.protocol
    client = names.end(original.source, original.source_port)
    asked = (original.destination, original.destination_port)
    answering = (reply.source, reply.source_port)
    server = names.end(*answering, None if asked != answering else protocol)
    service = names.end(*asked, protocol) if asked != answering else None
    seen_as = (reply.destination, reply.destination_port)
    translated = names.end(*seen_as) if seen_as != (original.source, original.source_port) else None
    sides = (("client side", original.source), ("server side", reply.source))
    approved = [side for side, address in sides if local.has(address)]
    states = _states(connection)
    flags = [word for word in states if word in ("unreplied", "assured")]
    state = states[0] if connection.state else ""
    document: dict[str, Any] = {
        "protocol": protocol_word(protocol),
        "client": client,
        **({"service": service} if service else {}),
        "server": server,
        **({"state": state} if state else {}),
        **({"expiresSeconds": connection.timeout} if connection.timeout is not None else {}),
        **({"ageSeconds": connection.age} if connection.age is not None else {}),
        "approvedBy": approved,
        "legs": {
            "client": _leg(original, connection.packets[0], connection.bytes[0]),
            "server": _leg(reply, connection.packets[1], connection.bytes[1]),
        },
        **({"clientSeenAs": translated} if translated else {}),
        "flags": flags,
        **({"mark": connection.mark} if connection.mark else {}),
        **({"zone": connection.zone} if connection.zone else {}),
    }
    cells = (
        document["protocol"],
        *end_cells(client, service, server),
        state or "-",
        _age(connection),
        ", ".join(approved) or "not here",
        _pair(connection.packets),
        " ".join(flags) or "-",
    )
    nat = ["server"] if service else []
    nat += [f"client as {end_words(translated)}"] if translated else []
    more = (_pair(connection.bytes), ", ".join(nat) or "-", _tuple_words(original), _tuple_words(reply))
    return Row(cells, document, more)


def _age(connection: Connection) -> str:
    parts = [f"{connection.age}s"] if connection.age is not None else []
    parts += [f"ends in {connection.timeout}s"] if connection.timeout is not None else []
    return ", ".join(parts) or "-"


def _pair(counts: tuple[int | None, int | None]) -> str:
    return "-" if None in counts else f"{counts[0]}/{counts[1]}"


def _tuple_words(one: Tuple) -> str:
    source, destination = (
        end_words({"ip": str(ip), **({"port": port} if port is not None else {})})
        for ip, port in ((one.source, one.source_port), (one.destination, one.destination_port))
    )
    icmp = f" type {one.icmp[0]} code {one.icmp[1]} id {one.icmp[2]}" if one.icmp is not None else ""
    return f"{source} -> {destination}{icmp}"


def _leg(one: Tuple, packets: int | None, octets: int | None) -> dict[str, Any]:
    return {
        "source": {"ip": str(one.source), **({"port": one.source_port} if one.source_port is not None else {})},
        "destination": {
            "ip": str(one.destination),
            **({"port": one.destination_port} if one.destination_port is not None else {}),
        },
        **({"icmp": dict(zip(("type", "code", "id"), one.icmp, strict=True))} if one.icmp is not None else {}),
        **({"packets": packets} if packets is not None else {}),
        **({"bytes": octets} if octets is not None else {}),
    }
