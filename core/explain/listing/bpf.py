"""What a node's eBPF maps hold, row by row, with the names of pods, services and nodes.

Directions are the pod's: "egress" leaves it, "ingress" goes to it; of a host's interface "ingress" goes to the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from calico_debug.decode.bpf_layout_types import Role
from calico_debug.explain.listing.endpoints import bpf_pods_by_interface
from calico_debug.explain.listing.names import Names, address_words, end_words, label, protocol_word
from calico_debug.explain.listing.rows import Listing, Row
from calico_debug.model import bpf, bpf_nat
from calico_debug.model.bpf_words import counter_name
from calico_debug.model.conntrack import Address
from calico_debug.state.bpf import BpfState
from calico_debug.state.bpf_lookups import BpfLookups
from calico_debug.state.cluster import ClusterState
from calico_debug.state.connection_filter import ANY_CONNECTION, ConnectionFilter

OPPOSITE = {"ingress": "egress", "egress": "ingress"}

FAMILIES = (4, 6)


class BpfListings:
    """Lists the maps of one node. Reading raises `calico_debug.errors.EvidenceError`."""

    def __init__(self, state: BpfState, cluster: ClusterState) -> None:
        """Maps are read when a listing's rows are."""
        self._state = state
        self._lookups = BpfLookups(state)
        self._cluster = cluster
        self._names = Names(cluster)

    # ------------------------------------------------------------------------------------------------------ services

    def nat(self, wanted: ConnectionFilter = ANY_CONNECTION) -> Listing:
        """Services with their backends; ``wanted`` may name addresses, a port and a protocol."""
        headings = ("SERVICE", "CLIENTS", "PROTO", "BACKENDS", "LOCAL", "FLAGS", "NAME")
        return Listing(headings, self._frontends(wanted), ("ID", "AFFINITY"))

    def _frontends(self, wanted: ConnectionFilter) -> Iterator[Row]:
        for family in FAMILIES:
            found: list[bpf_nat.Frontend] = list(self._state.entries(Role.NAT_FRONTENDS, family))
            if not found:
                continue
            backends = {(one.service_id, one.ordinal): one for one in self._state.entries(Role.NAT_BACKENDS, family)}
            for frontend in sorted(found, key=lambda one: (int(one.address), one.port, one.protocol, one.sources)):
                if not _admits(wanted, frontend):
                    continue
                # A count that no table can have would be a damaged entry: what is not there is not counted up.
                count = 0 if frontend.blackhole else min(frontend.count, len(backends) + 1)
                ends = [
                    self._names.end(one.address, one.port) if (one := backends.get((frontend.service_id, n))) else None
                    for n in range(count)
                ]
                yield self._frontend(frontend, ends)

    def _frontend(self, frontend: bpf_nat.Frontend, ends: list[dict[str, Any] | None]) -> Row:
        end = self._names.end(frontend.address, frontend.port, frontend.protocol)
        everyone = frontend.sources.prefixlen == 0
        wildcard = int(frontend.address) == 2**frontend.address.max_prefixlen - 1
        document: dict[str, Any] = {
            **end,
            "protocol": protocol_word(frontend.protocol),
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
        shown = ", ".join("missing" if one is None else end_words(one) for one in ends)
        cells = (
            f"node port {frontend.port}" if wildcard else address_words(end),
            document["clients"],
            document["protocol"],
            "drops" if frontend.blackhole else shown or "none: refuses",
            str(frontend.local_count),
            " ".join(frontend.flag_words) or "-",
            end.get("service", "-"),
        )
        affinity = f"{frontend.affinity_timeout}s" if frontend.affinity_timeout else "-"
        return Row(cells, document, (str(frontend.service_id), affinity))

    # ------------------------------------------------------------------------------------------ routes and sets

    def routes(self, covering: frozenset[Address] | None = None) -> Listing:
        """Routes by prefix, all or those that cover one of the addresses."""
        return Listing(("PREFIX", "FLAGS", "NEXT", "NAME"), self._routes(covering), ("INDEX",))

    def _routes(self, covering: frozenset[Address] | None) -> Iterator[Row]:
        for family in FAMILIES:
            found: list[bpf.BpfRoute] = list(self._state.entries(Role.ROUTES, family))
            for route in sorted(found, key=lambda one: (int(one.prefix.network_address), one.prefix.prefixlen)):
                if covering is not None and not any(address in route.prefix for address in covering):
                    continue
                target = route.target
                host = route.prefix.prefixlen == route.prefix.max_prefixlen
                name = self._names.of(route.prefix.network_address) if host else {}
                following = ""
                if target.ifindex is not None:
                    following = self._interface_names.get(target.ifindex, f"interface {target.ifindex}")
                elif target.next_hop is not None:
                    following = str(target.next_hop)
                flags = [*([] if target.has("local") else ["remote"]), *target.flag_words]
                document = {
                    "prefix": str(route.prefix),
                    "flags": flags,
                    **({"ifindex": target.ifindex, "interface": following} if target.ifindex is not None else {}),
                    **({"nextHop": following} if target.next_hop is not None else {}),
                    **name,
                }
                cells = (str(route.prefix), " ".join(flags), following or "-", label(name) or "-")
                yield Row(cells, document, ("-" if target.ifindex is None else str(target.ifindex),))

    def ipsets(self, holding: frozenset[Address] | None = None, ids: Mapping[int, str] | None = None) -> Listing:
        """Members of IP sets, by set; of all sets, or of those that hold one of the addresses.

        ``ids`` are Felix's ids of sets by number.
        """
        return Listing(("SET", "MEMBER", "NAME"), self._members(holding, ids or {}), ("ID",))

    def _members(self, holding: frozenset[Address] | None, ids: Mapping[int, str]) -> Iterator[Row]:
        for family in FAMILIES:
            found: list[bpf.IpSetMember] = list(self._state.entries(Role.IP_SETS, family))
            if holding is not None:
                kept = {one.set_id for one in found if any(address in one.prefix for address in holding)}
                found = [one for one in found if one.set_id in kept]
            for one in sorted(found, key=lambda m: (m.set_id, int(m.prefix.network_address), m.port)):
                host = one.prefix.prefixlen == one.prefix.max_prefixlen
                name = self._names.of(one.prefix.network_address) if host else {}
                felix = ids.get(one.set_id, "")
                document: dict[str, Any] = {
                    "set": f"{one.set_id:#x}",
                    **({"id": felix} if felix else {}),
                    "member": str(one.prefix),
                    **name,
                }
                member = str(one.prefix)
                if one.protocol:
                    document |= {"protocol": protocol_word(one.protocol), "port": one.port}
                    member = f"{one.prefix.network_address} {protocol_word(one.protocol)} port {one.port}"
                yield Row((document["set"], member, label(name) or "-"), document, (felix or "-",))

    # ---------------------------------------------------------------------------------------- interfaces, counters

    def ifstate(self, interfaces: frozenset[str] | None = None) -> Listing:
        """Interfaces as the programs know them, with the programs that their policies are."""
        headings = ("INTERFACE", "INDEX", "FLAGS", "INGRESS POLICY", "EGRESS POLICY", "POD")
        return Listing(headings, self._interfaces(interfaces), ("IPV4 SLOTS", "IPV6 SLOTS"))

    def _interfaces(self, wanted: frozenset[str] | None) -> Iterator[Row]:
        for state in sorted(self._lookups.interfaces.values(), key=lambda one: one.ifindex):
            if wanted is not None and state.name not in wanted:
                continue
            policies: dict[str, dict[str, str]] = {"ingress": {}, "egress": {}}
            for attachment in self._state.calico_attachments(state.name):
                if attachment.hook in OPPOSITE and attachment.mechanism != "xdp":
                    direction = self._direction(state.ifindex, attachment.hook)
                    for family in self._state.reach.families(attachment):
                        policy = self._state.reach.policy(attachment, family)
                        policies[direction][f"ipv{family}"] = self._policy_words(policy.programs, policy.placeholder)
            pod = self._pods.get(state.ifindex, "")
            slots = {f"ipv{family}": self._slots(state, family) for family in FAMILIES}
            document = {
                "interface": state.name,
                "ifindex": state.ifindex,
                "flags": list(state.flag_words),
                "policies": policies,
                "slots": slots,
                **({"pod": pod} if pod else {}),
            }
            cells = (
                state.name,
                str(state.ifindex),
                " ".join(state.flag_words) or "-",
                *(", ".join(sorted(set(policies[way].values()))) or "-" for way in ("ingress", "egress")),
                pod or "-",
            )
            yield Row(cells, document, tuple(_slot_words(slots[f"ipv{family}"]) for family in FAMILIES))

    def _slots(self, state: bpf.InterfaceState, family: int) -> dict[str, int]:
        """Places of the interface's policies in the jump maps, by the endpoint's direction; those that it has."""
        jumps = self._state.map(Role.JUMPS)
        joint = jumps is not None and jumps.used
        found = {
            self._direction(state.ifindex, hook) if hook in OPPOSITE else hook: state.policy_index(hook, family, joint)
            for hook in (*OPPOSITE, "xdp")
        }
        return {direction: index for direction, index in found.items() if index >= 0}

    def _policy_words(self, programs: tuple[int, ...], placeholder: str) -> str:
        if placeholder:
            return f"{placeholder}s all: not loaded yet"
        if not programs:
            return "none"
        info = self._state.programs.get(programs[0])
        return f"program {programs[0]}" + (f" ({info.name})" if info is not None else "")

    def counters(self, interfaces: frozenset[str] | None = None, *, zeros: bool = False) -> Listing:
        """Counters of interfaces by direction; those that are zero when asked for."""
        headings = ("INTERFACE", "DIRECTION", "COUNTER", "PACKETS", "POD")
        return Listing(headings, self._counters(interfaces, zeros), ("INDEX", "NUMBER"))

    def _counters(self, wanted: frozenset[str] | None, zeros: bool) -> Iterator[Row]:
        for one in sorted(self._lookups.all_counters(), key=lambda c: (c.ifindex, c.hook)):
            interface = self._interface_names.get(one.ifindex, f"interface {one.ifindex}")
            if wanted is not None and interface not in wanted:
                continue
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
                cells = (interface, direction, f"{name.category} {name.caption}", str(packets), pod or "-")
                yield Row(cells, document, (str(one.ifindex), str(index)))

    def attachments(self) -> Listing:
        """Every program at a hook of this node, Calico's or not."""
        headings = ("INTERFACE", "DIRECTION", "BY", "PROGRAM", "CALICO", "POD")
        return Listing(headings, self._attachments(), ("POSITION", "LINK"))

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
            cells = (place, direction, one.mechanism, program, "yes" if one in ours else "no", pod or "-")
            yield Row(cells, document, (str(one.position), "-" if one.link_id is None else str(one.link_id)))

    # ------------------------------------------------------------------------------------------------------- names

    @cached_property
    def _interface_names(self) -> Mapping[int, str]:
        return {state.ifindex: state.name for state in self._lookups.interfaces.values()}

    @cached_property
    def _pods(self) -> Mapping[int, str]:
        """Pods by their interface's index: the routes to their addresses say which it is."""
        numbers = {name: index for index, name in self._interface_names.items()}
        found = bpf_pods_by_interface(self._state, self._cluster)
        return {numbers[name]: "/".join(pod) for name, pod in found.items()}

    def _direction(self, ifindex: int, hook: str) -> str:
        """The pod's direction of a tc hook: what comes from its interface leaves the pod."""
        state = self._lookups.interfaces.get(ifindex)
        return OPPOSITE[hook] if state is not None and state.workload else hook


def _admits(wanted: ConnectionFilter, frontend: bpf_nat.Frontend) -> bool:
    return (
        (wanted.servers is None or frontend.address in wanted.servers)
        and wanted.port in (None, frontend.port)
        and wanted.protocol in (None, frontend.protocol)
    )


def _slot_words(slots: Mapping[str, int]) -> str:
    return ", ".join(f"{direction} {index}" for direction, index in slots.items()) or "-"
