"""What a node's eBPF maps hold, row by row, with the names of pods, services and nodes.

Directions are the pod's: "egress" leaves it, "ingress" goes to it; of a host's interface "ingress" goes to the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from calico_debug.decode.bpf_layout_types import Role
from calico_debug.model import bpf
from calico_debug.model.bpf_words import counter_name
from calico_debug.model.conntrack import Address
from calico_debug.state.bpf import BpfState
from calico_debug.state.bpf_lookups import BpfLookups, ConnectionFilter
from calico_debug.state.cluster import ClusterState

PROTOCOL_WORDS: Mapping[int, str] = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}

OPPOSITE = {"ingress": "egress", "egress": "ingress"}

FAMILIES = (4, 6)


@dataclass(frozen=True, slots=True)
class Row:
    """One entry. ``cells`` are for a table with the listing's headings, ``document`` is for machines."""

    cells: tuple[str, ...]
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Listing:
    """``headings`` of the table, and the rows, made while they are read."""

    headings: tuple[str, ...]
    rows: Iterator[Row]


class BpfListings:
    """Lists the maps of one node. Reading raises `calico_debug.errors.EvidenceError`."""

    def __init__(self, state: BpfState, cluster: ClusterState, now: int | None = None) -> None:
        """``now`` is CLOCK_MONOTONIC of the node in nanoseconds; None, as for a recording: the newest entry's time."""
        self._state = state
        self._lookups = BpfLookups(state)
        self._cluster = cluster
        self._now = now

    # --------------------------------------------------------------------------------------------------- connections

    def conntrack(self, wanted: ConnectionFilter = ConnectionFilter()) -> Listing:  # noqa: B008 - it is immutable
        """Connections, each with both directions, and whether the policy of either end has approved it."""
        headings = ("PROTO", "CLIENT", "SERVICE", "SERVER", "STATE", "IDLE", "APPROVED BY", "PACKETS", "FLAGS")
        return Listing(headings, self._connections(wanted))

    def _connections(self, wanted: ConnectionFilter) -> Iterator[Row]:
        entries: Iterator[bpf.ConntrackEntry] = (
            entry for family in FAMILIES for entry in self._lookups.connections(family, wanted)
        )
        now = self._now
        if now is None:
            kept = list(entries)
            now = max((entry.last_seen for entry in kept), default=0)
            entries = iter(kept)
        for entry in entries:
            yield self._connection(entry, now)

    def _connection(self, entry: bpf.ConntrackEntry, now: int) -> Row:
        client, server = self._end(*entry.client), self._end(*entry.server)
        service = self._service_end(entry)
        idle = max(now - entry.last_seen, 0) / 10**9
        legs = [leg for leg in (entry.client_leg, entry.server_leg) if leg is not None]
        approved = [
            side for side, leg in zip(("client side", "server side"), legs, strict=False) if leg.has("approved")
        ]
        flags = [word for word in entry.flag_words if word != "B-A"]
        document: dict[str, Any] = {
            "protocol": _protocol(entry.key.protocol),
            "type": entry.type_word,
            "client": client,
            **({"service": service} if service else {}),
            "server": server,
            **({"state": entry.tcp_state} if entry.tcp_state else {}),
            "idleSeconds": round(idle, 3),
            "approvedBy": approved,
            "legs": {name: _leg(leg) for name, leg in zip(("client", "server"), legs, strict=False)},
            "flags": flags,
            **({"tunnel": str(entry.tunnel_ip)} if entry.tunnel_ip is not None and int(entry.tunnel_ip) else {}),
            **({"originalSourcePort": entry.original_source_port} if entry.original_source_port else {}),
        }
        cells = (
            document["protocol"],
            _words(client),
            _words(service) if service else "-",
            _words(server),
            entry.tcp_state or "-",
            f"{idle:.1f}s",
            ", ".join(approved) or "nobody",
            "/".join(str(leg.packets) for leg in legs),
            " ".join(flags) or "-",
        )
        return Row(cells, document)

    def _service_end(self, entry: bpf.ConntrackEntry) -> dict[str, Any] | None:
        if entry.original_ip is None or entry.type_word != "nat-reverse":
            return None
        return self._end(entry.original_ip, entry.original_port, entry.key.protocol)

    # ------------------------------------------------------------------------------------------------------ services

    def nat(self) -> Listing:
        """Services with their backends."""
        headings = ("SERVICE", "CLIENTS", "PROTO", "BACKENDS", "LOCAL", "FLAGS", "NAME")
        return Listing(headings, self._frontends())

    def _frontends(self) -> Iterator[Row]:
        for family in FAMILIES:
            found: list[bpf.Frontend] = list(self._state.entries(Role.NAT_FRONTENDS, family))
            if not found:
                continue
            backends = {(one.service_id, one.ordinal): one for one in self._state.entries(Role.NAT_BACKENDS, family)}
            for frontend in sorted(found, key=lambda one: (int(one.address), one.port, one.protocol, one.sources)):
                # A count that no table can have would be a damaged entry: what is not there is not counted up.
                count = 0 if frontend.blackhole else min(frontend.count, len(backends) + 1)
                ends = [
                    self._end(one.address, one.port) if (one := backends.get((frontend.service_id, n))) else None
                    for n in range(count)
                ]
                yield self._frontend(frontend, ends)

    def _frontend(self, frontend: bpf.Frontend, ends: list[dict[str, Any] | None]) -> Row:
        end = self._end(frontend.address, frontend.port, frontend.protocol)
        everyone = frontend.sources.prefixlen == 0
        wildcard = int(frontend.address) == 2**frontend.address.max_prefixlen - 1
        document: dict[str, Any] = {
            **end,
            "protocol": _protocol(frontend.protocol),
            "clients": "any" if everyone else str(frontend.sources),
            "id": frontend.service_id,
            "count": None if frontend.blackhole else frontend.count,
            "local": frontend.local_count,
            "blackhole": frontend.blackhole,
            "nodePort": wildcard,
            "affinitySeconds": frontend.affinity_timeout,
            "flags": list(frontend.flag_words),
            "backends": [{"missing": True} if one is None else one for one in ends],
        }
        shown = ", ".join("missing" if one is None else _words(one) for one in ends)
        cells = (
            f"node port {frontend.port}" if wildcard else _address(end),
            document["clients"],
            document["protocol"],
            "drops" if frontend.blackhole else shown or "none: refuses",
            str(frontend.local_count),
            " ".join(frontend.flag_words) or "-",
            end.get("service", "-"),
        )
        return Row(cells, document)

    # ------------------------------------------------------------------------------------------ routes and sets

    def routes(self) -> Listing:
        """Routes by prefix."""
        return Listing(("PREFIX", "FLAGS", "NEXT", "NAME"), self._routes())

    def _routes(self) -> Iterator[Row]:
        for family in FAMILIES:
            found: list[bpf.BpfRoute] = list(self._state.entries(Role.ROUTES, family))
            for route in sorted(found, key=lambda one: (int(one.prefix.network_address), one.prefix.prefixlen)):
                target = route.target
                host = route.prefix.prefixlen == route.prefix.max_prefixlen
                name = self._name(route.prefix.network_address) if host else {}
                following = ""
                if target.ifindex is not None:
                    following = self._interface_names.get(target.ifindex, f"interface {target.ifindex}")
                elif target.next_hop is not None:
                    following = str(target.next_hop)
                document = {
                    "prefix": str(route.prefix),
                    "flags": list(target.flag_words),
                    **({"ifindex": target.ifindex, "interface": following} if target.ifindex is not None else {}),
                    **({"nextHop": following} if target.next_hop is not None else {}),
                    **name,
                }
                cells = (str(route.prefix), " ".join(target.flag_words), following or "-", _label(name) or "-")
                yield Row(cells, document)

    def ipsets(self) -> Listing:
        """Members of IP sets, by set."""
        return Listing(("SET", "MEMBER", "NAME"), self._members())

    def _members(self) -> Iterator[Row]:
        for family in FAMILIES:
            found: list[bpf.IpSetMember] = list(self._state.entries(Role.IP_SETS, family))
            for one in sorted(found, key=lambda m: (m.set_id, int(m.prefix.network_address), m.port)):
                host = one.prefix.prefixlen == one.prefix.max_prefixlen
                name = self._name(one.prefix.network_address) if host else {}
                document: dict[str, Any] = {"set": f"{one.set_id:#x}", "member": str(one.prefix), **name}
                member = str(one.prefix)
                if one.protocol:
                    document |= {"protocol": _protocol(one.protocol), "port": one.port}
                    member = f"{one.prefix.network_address} {_protocol(one.protocol)} port {one.port}"
                yield Row((document["set"], member, _label(name) or "-"), document)

    # ---------------------------------------------------------------------------------------- interfaces, counters

    def ifstate(self) -> Listing:
        """Interfaces as the programs know them, with the programs that their policies are."""
        return Listing(("INTERFACE", "INDEX", "FLAGS", "INGRESS POLICY", "EGRESS POLICY", "POD"), self._interfaces())

    def _interfaces(self) -> Iterator[Row]:
        for state in sorted(self._lookups.interfaces.values(), key=lambda one: one.ifindex):
            policies: dict[str, dict[str, str]] = {"ingress": {}, "egress": {}}
            for attachment in self._state.calico_attachments(state.name):
                if attachment.hook in OPPOSITE and attachment.mechanism != "xdp":
                    direction = self._direction(state.ifindex, attachment.hook)
                    for family in self._state.reach.families(attachment):
                        policy = self._state.reach.policy(attachment, family)
                        policies[direction][f"ipv{family}"] = self._policy_words(policy.programs, policy.placeholder)
            pod = self._pods.get(state.ifindex, "")
            document = {
                "interface": state.name,
                "ifindex": state.ifindex,
                "flags": list(state.flag_words),
                "policies": policies,
                **({"pod": pod} if pod else {}),
            }
            cells = (
                state.name,
                str(state.ifindex),
                " ".join(state.flag_words) or "-",
                *(", ".join(sorted(set(policies[way].values()))) or "-" for way in ("ingress", "egress")),
                pod or "-",
            )
            yield Row(cells, document)

    def _policy_words(self, programs: tuple[int, ...], placeholder: str) -> str:
        if placeholder:
            return f"{placeholder}s all: not loaded yet"
        if not programs:
            return "none"
        info = self._state.programs.get(programs[0])
        return f"program {programs[0]}" + (f" ({info.name})" if info is not None else "")

    def counters(self, *, zeros: bool = False) -> Listing:
        """Counters of every interface and direction; those that are zero when asked for."""
        return Listing(("INTERFACE", "DIRECTION", "COUNTER", "PACKETS", "POD"), self._counters(zeros))

    def _counters(self, zeros: bool) -> Iterator[Row]:
        for one in sorted(self._lookups.all_counters(), key=lambda c: (c.ifindex, c.hook)):
            interface = self._interface_names.get(one.ifindex, f"interface {one.ifindex}")
            hook = {0: "ingress", 1: "egress"}.get(one.hook)
            direction = self._direction(one.ifindex, hook) if hook else "ingress (XDP)"
            pod = self._pods.get(one.ifindex, "")
            for index, packets in enumerate(one.cells):
                name = counter_name(index)
                if not name.category or not (packets or zeros):
                    continue
                document = {
                    "interface": interface,
                    "direction": direction,
                    "category": name.category,
                    "counter": name.caption,
                    "packets": packets,
                    **({"pod": pod} if pod else {}),
                }
                yield Row((interface, direction, f"{name.category} {name.caption}", str(packets), pod or "-"), document)

    def attachments(self) -> Listing:
        """Every program at a hook of this node, Calico's or not."""
        return Listing(("INTERFACE", "DIRECTION", "BY", "PROGRAM", "CALICO", "POD"), self._attachments())

    def _attachments(self) -> Iterator[Row]:
        ours = set(self._state.reach.attachments)
        for one in self._state.attachments:
            direction = self._direction(one.ifindex, one.hook) if one.hook in OPPOSITE else one.hook
            pod = self._pods.get(one.ifindex, "")
            place = one.interface or one.place
            document = {
                "place": place,
                "direction": direction,
                "mechanism": one.mechanism,
                "program": one.program_id,
                "name": one.name,
                "calico": one in ours,
                "position": one.position,
                **({"link": one.link_id} if one.link_id is not None else {}),
                **({"pod": pod} if pod else {}),
            }
            program = f"{one.program_id} ({one.name})" if one.name else str(one.program_id)
            yield Row((place, direction, one.mechanism, program, "yes" if one in ours else "no", pod or "-"), document)

    # ------------------------------------------------------------------------------------------------------- names

    @cached_property
    def _interface_names(self) -> Mapping[int, str]:
        return {state.ifindex: state.name for state in self._lookups.interfaces.values()}

    @cached_property
    def _pods(self) -> Mapping[int, str]:
        """Pods by their interface: the routes to their addresses say which it is."""
        found: dict[int, str] = {}
        for family in FAMILIES:
            for route in self._state.entries(Role.ROUTES, family):
                pod = self._cluster.pod_by_address(route.prefix.network_address)
                if route.target.ifindex is not None and pod is not None:
                    found.setdefault(route.target.ifindex, f"{pod.namespace}/{pod.name}")
        return found

    def _direction(self, ifindex: int, hook: str) -> str:
        """The pod's direction of a tc hook: what comes from its interface leaves the pod."""
        state = self._lookups.interfaces.get(ifindex)
        return OPPOSITE[hook] if state is not None and state.workload else hook

    def _end(self, ip: Address, port: int, protocol: int | None = None) -> dict[str, Any]:
        end: dict[str, Any] = {"ip": str(ip), **({"port": port} if port else {})}
        return end | self._name(ip, port, protocol)

    def _name(self, ip: Address, port: int = 0, protocol: int | None = None) -> dict[str, str]:
        pod = self._cluster.pod_by_address(ip)
        if pod is not None:
            return {"pod": f"{pod.namespace}/{pod.name}"}
        word = PROTOCOL_WORDS.get(protocol, "").upper() if protocol is not None else ""
        found = self._cluster.service_by_address(ip, port or None, word or None)
        if found is not None:
            return {"service": f"{found[0].namespace}/{found[0].name}"}
        node = self._cluster.node_by_address(ip)
        wildcard = int(ip) == 2**ip.max_prefixlen - 1
        if word and (node is not None or wildcard):
            by_port = self._cluster.service_by_node_port(port, word)
            if by_port is not None:
                return {"service": f"{by_port[0].namespace}/{by_port[0].name}"}
        return {"node": node.name} if node is not None else {}


LISTINGS: Mapping[str, Callable[[BpfListings], Listing]] = {
    "nat": BpfListings.nat,
    "routes": BpfListings.routes,
    "ipsets": BpfListings.ipsets,
    "ifstate": BpfListings.ifstate,
    "attachments": BpfListings.attachments,
}
"""Listings that take no options."""


def _protocol(number: int) -> str:
    return PROTOCOL_WORDS.get(number, str(number))


def _leg(leg: bpf.Leg) -> dict[str, Any]:
    return {"packets": leg.packets, "bytes": leg.bytes, "ifindex": leg.ifindex, "seen": list(leg.words)}


def _address(end: Mapping[str, Any]) -> str:
    ip, port = end["ip"], end.get("port")
    if port is None:
        return str(ip)
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _label(name: Mapping[str, Any]) -> str:
    return next((f"{kind} {name[kind]}" if kind == "node" else name[kind] for kind in name), "")


def _words(end: Mapping[str, Any]) -> str:
    label = _label({kind: end[kind] for kind in ("pod", "service", "node") if kind in end})
    return f"{label} ({_address(end)})" if label else _address(end)
