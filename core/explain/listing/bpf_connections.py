"""The eBPF dataplane's own connection tracking, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from calico_debug.explain.listing.connections import HEADINGS, MORE, end_cells
from calico_debug.explain.listing.names import Names, protocol_word
from calico_debug.explain.listing.rows import Listing, Row
from calico_debug.model import bpf_conntrack
from calico_debug.state.bpf import BpfState
from calico_debug.state.bpf_lookups import BpfLookups
from calico_debug.state.connection_filter import ConnectionFilter

FAMILIES = (4, 6)
SIDES = ("client side", "server side")


def bpf_connections(state: BpfState, names: Names, wanted: ConnectionFilter, now: int | None = None) -> Listing:
    """Connections, each with both directions, and whether the policy of either end has approved it.

    ``now`` is CLOCK_MONOTONIC of the node in nanoseconds; None, as for a recording: that of the newest entry.
    Reading raises `calico_debug.errors.EvidenceError`.
    """
    return Listing(HEADINGS, _rows(state, names, wanted, now), MORE)


def _rows(state: BpfState, names: Names, wanted: ConnectionFilter, now: int | None) -> Iterator[Row]:
    lookups = BpfLookups(state)
    if now is None:
        now = max(lookups.newest_connection(family) for family in FAMILIES)
    for family in FAMILIES:
        for entry in lookups.connections(family, wanted):
            yield _row(entry, names, now)


def _row(entry: bpf_conntrack.ConntrackEntry, names: Names, now: int) -> Row:
    client, server = names.end(*entry.client), names.end(*entry.server)
    service = _service(entry, names)
    idle = max(now - entry.last_seen, 0) / 10**9
    legs = [leg for leg in (entry.client_leg, entry.server_leg) if leg is not None]
    approved = [side for side, leg in zip(SIDES, legs, strict=False) if leg.has("approved")]
    flags = [word for word in entry.flag_words if word != "B-A"]
    tunnel = str(entry.tunnel_ip) if entry.tunnel_ip is not None and int(entry.tunnel_ip) else ""
    document: dict[str, Any] = {
        "protocol": protocol_word(entry.key.protocol),
        "type": entry.type_word,
        "client": client,
        **({"service": service} if service else {}),
        "server": server,
        **({"state": entry.tcp_state} if entry.tcp_state else {}),
        "idleSeconds": round(idle, 3),
        "approvedBy": approved,
        "legs": {name: _leg(leg) for name, leg in zip(("client", "server"), legs, strict=False)},
        "flags": flags,
        **({"tunnel": tunnel} if tunnel else {}),
        **({"originalSourcePort": entry.original_source_port} if entry.original_source_port else {}),
    }
    cells = (
        document["protocol"],
        *end_cells(client, service, server),
        entry.tcp_state or "-",
        f"idle {idle:.1f}s",
        ", ".join(approved) or "nobody",
        "/".join(str(leg.packets) for leg in legs),
        " ".join(flags) or "-",
    )
    nat = [entry.type_word] if entry.type_word != "normal" else []
    nat += [f"tunnel {tunnel}"] if tunnel else []
    port = entry.original_source_port
    nat += [f"client's port was {port}"] if port not in (0, entry.client[1]) else []
    seen = [f"{' '.join(leg.words) or '-'} (interface {leg.ifindex})" for leg in legs]
    octets = "/".join(str(leg.bytes) for leg in legs)
    more = (octets, ", ".join(nat) or "-", *[*seen, "-", "-"][:2])
    return Row(cells, document, more)


def _service(entry: bpf_conntrack.ConntrackEntry, names: Names) -> dict[str, Any] | None:
    if entry.original_ip is None or entry.type_word != "nat-reverse":
        return None
    return names.end(entry.original_ip, entry.original_port, entry.key.protocol)


def _leg(leg: bpf_conntrack.Leg) -> dict[str, Any]:
    return {"packets": leg.packets, "bytes": leg.bytes, "ifindex": leg.ifindex, "seen": list(leg.words)}
