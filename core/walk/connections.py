"""Conntrack as one flow meets it: which entry a packet belongs to, and what a packet without an entry is.

Source: Linux net/netfilter/nf_conntrack_core.c (resolve_normal_ct), nf_conntrack_proto_tcp.c (tcp_new and its state
table), nf_conntrack_proto_icmp.c and _icmpv6.c.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from calico_debug.model.conntrack import STATE_BITS, STATUS_BITS, Connection, Tuple
from calico_debug.model.routing import address_from_int
from calico_debug.state.bpf_lookups import BpfLookups
from calico_debug.state.dataplane import EBPF
from calico_debug.walk.packet import ICMP, ICMPV6, PORT_PROTOCOLS, TCP, TCP_FLAGS, Ends, Packet, Port, Tracking

if TYPE_CHECKING:
    from calico_debug.state.node import NodeState

_NEW_ICMP = {ICMP: frozenset({8, 13, 15, 17}), ICMPV6: frozenset({128, 139})}
"""Requests that open an entry (valid_new of both ICMP trackers)."""
_NEVER_TRACKED_ICMPV6 = frozenset({130, 131, 132, 133, 134, 135, 136, 137, 143})
"""Neighbour discovery and multicast listeners are left untracked (noct_valid_new)."""

_DECIDING = TCP_FLAGS["syn"] | TCP_FLAGS["ack"] | TCP_FLAGS["rst"] | TCP_FLAGS["fin"]

FINISHED = frozenset({"TIME_WAIT", "CLOSE", "LAST_ACK"})
"""TCP states in which a new SYN replaces the entry."""


class ConnectionTable:
    """The entries that one flow meets on one node: those of evidence, and those its own packets made."""

    def __init__(self, state: NodeState, ask_evidence: bool) -> None:
        """``ask_evidence`` lets packets join connections that exist; without it every flow is a new one."""
        self._state = state
        self._ask = ask_evidence
        self._own: list[tuple[int, Tracking]] = []

    def track(self, packet: Packet) -> Tracking:
        """The entry for a packet that conntrack sees for the first time on this node."""
        ends = packet.ends()
        for protocol, tracking in self._own:
            if protocol != packet.protocol:
                continue
            if ends == tracking.reply and ends != tracking.original:
                tracking.status |= STATUS_BITS["seen-reply"]
                return replace(
                    tracking,
                    state=STATE_BITS["established"],
                    in_reply=True,
                )
            if ends == tracking.original:
                if tracking.status & STATUS_BITS["seen-reply"]:
                    tracking.state = STATE_BITS["established"]
                return tracking
        tracking = self._from_evidence(packet) or Tracking(self._fresh_state(packet), ends, _reversed(ends))
        if tracking.state not in (STATE_BITS["invalid"], STATE_BITS["untracked"]):
            self._own.append((packet.protocol, tracking))
        return tracking

    def knows_answer(self, packet: Packet) -> bool:
        """Whether a packet answers a connection that this flow's own packets made, as far as it was noted here."""
        ends = packet.ends()
        return any(protocol == packet.protocol and ends == one.reply for protocol, one in self._own)

    def _from_evidence(self, packet: Packet) -> Tracking | None:
        if not self._ask:
            return None
        connection = live_connection(self._state, packet)
        if connection is None:
            return None
        wanted = _looked_up(self._state, packet)
        in_reply = wanted == connection.reply
        established = connection.replied or in_reply
        return Tracking(
            STATE_BITS["established"] if established else STATE_BITS["new"],
            _ends(connection.original),
            _ends(connection.reply),
            in_reply,
            connection.status,
            connection.mark,
            {"src", "dst"},
            existing=True,
        )

    def _fresh_state(self, packet: Packet) -> int:
        if packet.protocol == TCP and packet.tcp_flags is not None:
            return self._fresh_tcp(packet.tcp_flags)
        if packet.protocol in _NEW_ICMP:
            if packet.protocol == ICMPV6 and packet.icmp_type in _NEVER_TRACKED_ICMPV6:
                return STATE_BITS["untracked"]
            return STATE_BITS["new" if packet.icmp_type in _NEW_ICMP[packet.protocol] else "invalid"]
        return STATE_BITS["new"]

    def _fresh_tcp(self, flags: int) -> int:
        """Row "none" of tcp_conntracks: a SYN opens, an ACK may be picked up, anything else is invalid."""
        if flags & _DECIDING == TCP_FLAGS["syn"]:
            return STATE_BITS["new"]
        if flags & _DECIDING != TCP_FLAGS["ack"]:
            return STATE_BITS["invalid"]
        loose = self._state.sysctl("net.netfilter.nf_conntrack_tcp_loose") != "0"
        return STATE_BITS["new" if loose else "invalid"]


def live_connection(state: NodeState, packet: Packet) -> Connection | None:
    """The connection of evidence that the packet belongs to, None when there is none or it is finished."""
    wanted = _looked_up(state, packet)
    if wanted is None:
        return None
    if state.dataplane == EBPF:
        return program_connection(state, wanted)
    connection = state.connection(wanted)
    if connection is None or connection.state in FINISHED:
        return None
    return connection


def program_connection(state: NodeState, wanted: Tuple) -> Connection | None:
    """The connection in the eBPF dataplane's map, once both sides' policy approved it; of TCP once it is established.

    A SYN asks policy anew. Source: felix/bpf-gpl/conntrack.h, calico_ct_lookup.
    """
    lookups = BpfLookups(state.bpf)
    source, destination = (wanted.source, wanted.source_port or 0), (wanted.destination, wanted.destination_port or 0)
    found = lookups.connection(wanted.protocol, *source, *destination)
    entry = lookups.connection_behind(found) if found is not None else None
    if entry is None or entry.tcp_state not in ("", "established"):
        return None
    legs = (entry.client_leg, entry.server_leg)
    if not all(leg is not None and leg.has("approved") for leg in legs):
        return None
    client, server = entry.client, entry.server
    translated = entry.type_word == "nat-reverse" and entry.original_ip is not None
    asked = (entry.original_ip or server[0], entry.original_port) if translated else server
    original = Tuple(wanted.protocol, client[0], asked[0], client[1] or None, asked[1] or None)
    reply = Tuple(wanted.protocol, server[0], client[0], server[1] or None, client[1] or None)
    return Connection(original, reply, state=entry.tcp_state.upper())


def _looked_up(state: NodeState, packet: Packet) -> Tuple | None:
    """As `as_tuple`; but entries of eBPF programs have no ICMP ids: between two addresses there is one of each protocol
    without ports, whatever its types (tc.c, "conntrack entries for icmp").
    """
    if packet.protocol in PORT_PROTOCOLS or state.dataplane != EBPF:
        return as_tuple(packet)
    source, destination = (address_from_int(packet.family, end) for end in (packet.source, packet.destination))
    return Tuple(packet.protocol, source, destination)


def as_tuple(packet: Packet) -> Tuple | None:
    """What conntrack would look the packet up by; None while a port is open or for ICMP, whose id is never given."""
    if packet.protocol not in PORT_PROTOCOLS or not isinstance(packet.sport, int) or not isinstance(packet.dport, int):
        return None
    source = address_from_int(packet.family, packet.source)
    destination = address_from_int(packet.family, packet.destination)
    return Tuple(packet.protocol, source, destination, packet.sport, packet.dport)


def _reversed(ends: Ends) -> Ends:
    return Ends(ends.destination, ends.source, ends.destination_port, ends.source_port)


def _ends(of: Tuple) -> Ends:
    source_port: Port = of.source_port
    destination_port: Port = of.destination_port
    return Ends(int(of.source), int(of.destination), source_port, destination_port)
