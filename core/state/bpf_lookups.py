"""Questions about single flows and filtered lists, answered from the maps of `BpfState`.

On a live node each is a few system calls whatever the size of the map, except the lists, which go through a map in
batches and decode only what passes the filter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from calico_debug.decode.bpf_keys import conntrack_key, ordered_key, prefix_key
from calico_debug.decode.bpf_layout_types import MapLayout, Role
from calico_debug.decode.bpf_layouts_conntrack import NAT_FORWARD
from calico_debug.decode.bpf_maps import decode_entry, route_target
from calico_debug.errors import EvidenceError
from calico_debug.model import bpf, bpf_nat
from calico_debug.model.bpf_conntrack import ConntrackEntry, ConntrackKey
from calico_debug.model.routing import Address
from calico_debug.state.bpf import BpfState
from calico_debug.state.connection_filter import ANY_CONNECTION, ConnectionFilter

OUTBOUND = 1
"""Flag of a failsafe port for connections from the host."""


def admits(wanted: ConnectionFilter, entry: ConntrackEntry) -> bool:
    """Whether an entry with legs (of type normal or NAT reverse) is wanted."""
    services = (entry.server, (entry.original_ip, entry.original_port))
    server_leg = entry.server_leg
    unreplied = server_leg is not None and not server_leg.packets
    states = (entry.tcp_state, "unreplied" if unreplied else "")
    return wanted.admits(entry.key.protocol, entry.client, services, states)


class BpfLookups:
    """What the maps say about an address, a service, a connection."""

    def __init__(self, state: BpfState) -> None:
        """``state`` is the node's."""
        self._state = state

    # --------------------------------------------------------------------------------------------------- connections

    def connection(
        self, protocol: int, source: Address, sport: int, destination: Address, dport: int
    ) -> ConntrackEntry | None:
        """The entry of a packet's tuple, in either direction. Of a service's address it is the entry of type
        NAT forward; `connection_behind` leads on. Raises `EvidenceError`.
        """
        return self.connection_by_key(ordered_key(protocol, source, sport, destination, dport))

    def connection_by_key(self, key: ConntrackKey) -> ConntrackEntry | None:
        """The entry of a key. Raises `EvidenceError`."""
        found = self._state.entry(Role.CONNTRACK, key.address_a.version, conntrack_key(key))
        return found if isinstance(found, ConntrackEntry) else None

    def connection_behind(self, entry: ConntrackEntry) -> ConntrackEntry | None:
        """The entry with the legs: ``entry`` itself, or the one that an entry of type NAT forward names."""
        return entry if entry.reverse_key is None else self.connection_by_key(entry.reverse_key)

    def connections(self, family: int, wanted: ConnectionFilter = ANY_CONNECTION) -> Iterator[ConntrackEntry]:
        """Connections that pass the filter, once each (entries of type NAT forward are left out). Memory is bounded
        by a batch. Raises `EvidenceError`.
        """
        chosen = self._state.map(Role.CONNTRACK, family)
        if chosen is None:
            return
        layout, info = chosen.layout, chosen.info
        may_pass = _quick_test(layout, family, wanted)
        key_size, value_size = info.key_size, info.value_stride
        for batch in self._state.kernel.batches(info):
            for place, raw in enumerate(layout.key.unpack_all(batch.keys)):
                value = batch.values[place * value_size : (place + 1) * value_size]
                if not may_pass(raw, value):
                    continue
                key = batch.keys[place * key_size : (place + 1) * key_size]
                for entry in decode_entry(layout, info, key, value):
                    if isinstance(entry, ConntrackEntry) and entry.a_to_b is not None and admits(wanted, entry):
                        yield entry

    def newest_connection(self, family: int) -> int:
        """When any connection had its last packet, in nanoseconds of CLOCK_MONOTONIC; 0 without connections. Raises
        `EvidenceError`.
        """
        chosen = self._state.map(Role.CONNTRACK, family)
        if chosen is None:
            return 0
        start = next(field.offset for field in chosen.layout.value.fields if field.name == "last_seen")
        size, newest = chosen.info.value_stride, 0
        for batch in self._state.kernel.batches(chosen.info):
            for at in range(start, len(batch.values), size):
                newest = max(newest, int.from_bytes(batch.values[at : at + 8], "little"))
        return newest

    # ------------------------------------------------------------------------------------------------------ services

    def frontend(self, protocol: int, address: Address, port: int, client: Address) -> bpf_nat.FrontendTarget | None:
        """The service behind an address and port for a client, by the longest matching source range. Raises
        `EvidenceError`.
        """
        found = self._longest(
            Role.NAT_FRONTENDS, address.version, address=address, port=port, protocol=protocol, source=client
        )
        return bpf_nat.FrontendTarget(**found) if found is not None else None

    def backend(self, family: int, service_id: int, ordinal: int) -> bpf_nat.NatBackend | None:
        """A service's backend, None when it is missing. Raises `EvidenceError`."""
        return self._ordinal(Role.NAT_BACKENDS, family, service_id, ordinal)

    def maglev_backend(self, family: int, service_id: int, slot: int) -> bpf_nat.NatBackend | None:
        """The backend in a slot of a service's Maglev table (v3.32). Raises `EvidenceError`."""
        return self._ordinal(Role.MAGLEV, family, service_id, slot)

    def affinity(self, protocol: int, address: Address, port: int, client: Address) -> bpf_nat.Affinity | None:
        """The backend a client of a service sticks to. Raises `EvidenceError`."""
        fields = {"address": address, "port": port, "protocol": protocol, "client": client}
        found = self._exact(Role.NAT_AFFINITY, address.version, fields)
        return found if isinstance(found, bpf_nat.Affinity) else None

    # -------------------------------------------------------------------------------------------- routes and policy

    def route(self, address: Address) -> bpf.RouteTarget | None:
        """What Calico knows of an address, None when no route covers it. Raises `EvidenceError`."""
        found = self._longest(Role.ROUTES, address.version, address=address)
        return route_target(found) if found is not None else None

    def in_ip_set(self, set_id: int, address: Address, port: int = 0, protocol: int = 0) -> bool:
        """Whether an IP set holds an address, or an address with that port. Raises `EvidenceError`."""
        found = self._longest(
            Role.IP_SETS, address.version, set_id=set_id, address=address, port=port, protocol=protocol
        )
        return found is not None

    def failsafe(self, protocol: int, port: int, peer: Address, *, outbound: bool) -> bool:
        """Whether a port is a failsafe towards a peer. Raises `EvidenceError`."""
        flags = OUTBOUND if outbound else 0
        found = self._longest(Role.FAILSAFES, peer.version, protocol=protocol, port=port, flags=flags, address=peer)
        return found is not None

    def failsafes(self, protocol: int, peer: Address, *, outbound: bool) -> Sequence[bpf.Failsafe]:
        """Every failsafe port of a protocol towards a peer. Raises `EvidenceError`."""
        return [
            one
            for one in self._state.entries(Role.FAILSAFES, peer.version)
            if (one.protocol, one.outbound) == (protocol, outbound) and peer in one.peers
        ]

    def may_send_from(self, ifindex: int, source: Address) -> bool:
        """Whether a pod may use a source address that is not its own (v3.32). Raises `EvidenceError`."""
        return self._longest(Role.ALLOWED_SOURCES, source.version, ifindex=ifindex, address=source) is not None

    # ------------------------------------------------------------------------------------------ interfaces, counters

    @cached_property
    def interfaces(self) -> Mapping[int, bpf.InterfaceState]:
        """Interfaces that Felix has told its programs of, by index. Raises `EvidenceError`."""
        return {entry.ifindex: entry for entry in self._state.entries(Role.INTERFACES)}

    def counters(self, ifindex: int, hook: int) -> bpf.InterfaceCounters | None:
        """Counters of an interface at a tc hook, summed over CPUs, as they are now; None when there are none. Raises
        `EvidenceError`.
        """
        found = self._exact(Role.COUNTERS, 0, {"ifindex": ifindex, "hook": hook})
        return found if isinstance(found, bpf.InterfaceCounters) else None

    def all_counters(self) -> Iterator[bpf.InterfaceCounters]:
        """Counters of every interface and hook. Raises `EvidenceError`."""
        yield from self._state.entries(Role.COUNTERS)

    def rule_counter(self, rule_id: int) -> int | None:
        """Packets of this node that met a rule, None when none ever did. Raises `EvidenceError`."""
        found = self._exact(Role.RULE_COUNTERS, 0, {"rule_id": rule_id})
        return found[1] if isinstance(found, tuple) else None

    def rule_counters(self) -> Mapping[int, int]:
        """Packets by rule id, as they are now. Raises `EvidenceError`."""
        return dict(self._state.entries(Role.RULE_COUNTERS))

    # ------------------------------------------------------------------------------------------------------ internals

    def _ordinal(self, role: Role, family: int, service_id: int, ordinal: int) -> bpf_nat.NatBackend | None:
        found = self._exact(role, family, {"service_id": service_id, "ordinal": ordinal})
        return found if isinstance(found, bpf_nat.NatBackend) else None

    def _exact(self, role: Role, family: int, fields: Mapping[str, Any]) -> Any | None:
        chosen = self._state.map(role, family)
        return self._state.entry(role, family, chosen.layout.key.pack(fields)) if chosen is not None else None

    def _longest(self, role: Role, family: int, **fields: Any) -> dict[str, Any] | None:
        """The value of the longest match, as fields: the kernel does not return the key it found."""
        chosen = self._state.map(role, family)
        if chosen is None:
            return None
        value = self._state.kernel.lookup(chosen.info, prefix_key(chosen.layout, **fields))
        if value is None:
            return None
        try:
            return chosen.layout.value.unpack(value)
        except ValueError as error:
            raise EvidenceError(
                f"a value of map {chosen.info.name} of {self._state.origin} cannot be decoded: {error}"
            ) from None


def _quick_test(layout: MapLayout, family: int, wanted: ConnectionFilter) -> Callable[[tuple[Any, ...], bytes], bool]:
    """What a raw key and value must fulfil before the entry is worth decoding, which costs thirty times as much.

    The service that a client asked for stands in the value alone, its address and port among other bytes.
    """
    if not wanted.has_family(family):
        return lambda _raw, _value: False
    names = layout.key.raw_names
    protocol, a, b = names.index("protocol"), names.index("address_a"), names.index("address_b")
    port_a, port_b = names.index("port_a"), names.index("port_b")
    kind = next(field.offset for field in layout.value.fields if field.name == "type")
    clients = _packed(wanted.clients, family)
    servers = _packed(wanted.servers, family)
    port = wanted.port.to_bytes(2, "little") if wanted.port is not None else None

    def may_pass(raw: tuple[Any, ...], value: bytes) -> bool:
        if clients is not None and raw[a] not in clients and raw[b] not in clients:
            return False
        if value[kind] == NAT_FORWARD or wanted.protocol not in (None, raw[protocol]):
            return False
        if servers is not None and raw[a] not in servers and raw[b] not in servers:
            if not any(server in value for server in servers):
                return False
        return port is None or wanted.port in (raw[port_a], raw[port_b]) or port in value

    return may_pass


def _packed(addresses: frozenset[Address] | None, family: int) -> frozenset[bytes] | None:
    return None if addresses is None else frozenset(one.packed for one in addresses if one.version == family)
