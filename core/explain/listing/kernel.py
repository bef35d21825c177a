"""What the kernel of a node in nftables or iptables mode holds for Calico, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from calico_debug.explain.listing.endpoints import FAMILIES, EndpointChain, endpoint_chains, targets
from calico_debug.explain.listing.names import Names, label
from calico_debug.explain.listing.rows import Listing, Row
from calico_debug.explain.listing.rule_text import members
from calico_debug.model.nft import Interval, Lookup
from calico_debug.model.routing import address_from_int
from calico_debug.policy.chains import ChainKind, chain_role
from calico_debug.state.dataplane import CALICO_TABLES
from calico_debug.state.workloads import workload_prefixes

if TYPE_CHECKING:
    from calico_debug.explain.listing.policy_view import EndpointView
    from calico_debug.model.nft import Expression
    from calico_debug.model.routing import Address, NextHop, Route
    from calico_debug.state.cluster import ClusterState
    from calico_debug.state.node import NodeState

CALICO_DEVICES = ("tunl0", "vxlan.calico", "vxlan-v6.calico", "wireguard.cali", "wg-v6.cali")
"""Felix's tunnel devices (felix/dataplane/linux, ipam and vxlan managers; felix/config, Wireguard…InterfaceName)."""
NO_CHAIN = "none: dropped as an unknown interface"


@dataclass(slots=True)
class _Use:
    """A set that rules look into: what they look up there, from which table first, and from which chains."""

    key: Expression
    table: str
    chains: list[str] = field(default_factory=list)


class KernelListings:
    """Lists of one node. Reading raises `EvidenceError`."""

    def __init__(self, state: NodeState, cluster: ClusterState, pods: Mapping[str, tuple[str, str]]) -> None:
        """``pods`` are by their interface."""
        self._state, self._cluster, self._pods = state, cluster, pods
        self._names = Names(cluster)

    # ------------------------------------------------------------------------------------------------------- routes

    def routes(self, covering: frozenset[Address] | None = None) -> Listing:
        """Calico's routes by prefix: to workloads, through its tunnels, and within its pools."""
        return Listing(("PREFIX", "FLAGS", "NEXT", "NAME"), self._routes(covering), ("TABLE", "TYPE", "METRIC"))

    def _routes(self, covering: frozenset[Address] | None) -> Iterator[Row]:
        for family in FAMILIES.values():
            tables = self._state.routing(family).tables
            found = [(table, route) for table, routes in tables.items() for route in routes if table != "local"]
            for table, route in sorted(found, key=lambda one: _route_order(one[1])):
                flags = self._flags(route)
                if not flags or (covering is not None and not any(one in route.destination for one in covering)):
                    continue
                yield self._route(table, route, flags)

    def _route(self, table: str, route: Route, flags: list[str]) -> Row:
        name = self._names.of(route.destination.network_address) if _is_host(route) else {}
        document: dict[str, Any] = {
            "prefix": str(route.destination),
            "flags": flags,
            "type": route.type,
            "table": table,
            **(_hop(route.hops[0]) if len(route.hops) == 1 else {}),
            **({"hops": [_hop(hop) for hop in route.hops]} if len(route.hops) > 1 else {}),
            **({"metric": route.metric} if route.metric else {}),
            **name,
        }
        following = ", ".join(_hop_words(hop) for hop in route.hops) or "-"
        cells = (str(route.destination), " ".join(flags), following, label(name) or "-")
        return Row(cells, document, (table, route.type, str(route.metric or "-")))

    def _flags(self, route: Route) -> list[str]:
        """Words as the eBPF dataplane has them; none for a route that is not Calico's business."""
        flags: list[str] = []
        interfaces = [hop.interface for hop in route.hops]
        if any(self._is_workload(name) for name in interfaces):
            flags += ["local", "workload"] if _is_host(route) else []
        elif any(name in CALICO_DEVICES for name in interfaces):
            flags += ["remote", "tunneled"]
        pool = any(
            pool.version == route.destination.version and route.destination.subnet_of(pool)  # type: ignore[arg-type]
            for pool in self._cluster.pools
        )
        if route.type == "blackhole" and (pool or not self._cluster.pools):
            flags.append("blackhole")
        if pool:
            if not flags and any(hop.gateway is not None for hop in route.hops):
                flags.append("remote")
            flags.append("in-pool")
        return flags

    def _is_workload(self, interface: str) -> bool:
        return interface.startswith(self._prefixes) and interface not in CALICO_DEVICES

    @cached_property
    def _prefixes(self) -> tuple[str, ...]:
        return workload_prefixes(self._state)

    # --------------------------------------------------------------------------------------------------------- sets

    def ipsets(self, holding: frozenset[Address] | None = None) -> Listing:
        """Members of the sets that Calico's rules look into, by set."""
        return Listing(("SET", "MEMBER", "NAME"), self._members(holding), ("TABLE", "USED BY"))

    def _members(self, holding: frozenset[Address] | None) -> Iterator[Row]:
        ruleset = self._state.ruleset
        for (family, place, name), use in sorted(self._sets().items()):
            content = ruleset.elements(family, use.table, name)
            if content is None:
                continue
            elements = list(members(content, use.key, family))
            if holding is not None and not any(_covers(span, one, family) for span, _ in elements for one in holding):
                continue
            where, used = f"{family} {place}".strip(), ", ".join(use.chains)
            base = {"set": name, "family": family, **({"table": place} if place else {}), "usedBy": use.chains}
            for span, text in elements:
                known = self._who(span, family)
                yield Row((name, text, label(known) or "-"), {**base, "member": text, **known}, (where, used))
            if not elements:
                yield Row((name, "empty", "-"), {**base, "member": None}, (where, used))

    def _who(self, span: Interval | None, family: str) -> Mapping[str, str]:
        if span is None or span.low != span.high:
            return {}
        return self._names.of(address_from_int(FAMILIES[family], span.low))

    def _sets(self) -> dict[tuple[str, str, str], _Use]:
        found: dict[tuple[str, str, str], _Use] = {}
        ruleset = self._state.ruleset
        for family, table, chain in self._chains():
            for rule in ruleset.rules(family, table, chain) or ():
                for statement in rule.statements:
                    if isinstance(statement, Lookup) and isinstance(statement.source, str):
                        # ipsets are not of a table: all of them ask the same one.
                        place = table if (family, table) in CALICO_TABLES else ""
                        use = found.setdefault((family, place, statement.source), _Use(statement.key, table))
                        if chain not in use.chains:
                            use.chains.append(chain)
        return found

    def _chains(self) -> Iterator[tuple[str, str, str]]:
        """Every chain of Calico's that the node's hooks lead to."""
        ruleset = self._state.ruleset
        seen: set[tuple[str, str, str]] = set()
        for base in ruleset.base_chains():
            if base.family not in FAMILIES:
                continue
            waiting = [base.name]
            while waiting:
                place = (base.family, base.table, waiting.pop())
                calico = chain_role(place[2]) is not None
                if place in seen or not (calico or place[2] == base.name):
                    continue
                seen.add(place)
                if calico:
                    yield place
                waiting += targets(ruleset, ruleset.rules(*place) or ())

    # --------------------------------------------------------------------------------------------------- interfaces

    def ifstate(self, interfaces: frozenset[str] | None = None) -> Listing:
        """Workloads' and host endpoints' interfaces, with the chains of their policy."""
        headings = ("INTERFACE", "INDEX", "FLAGS", "INGRESS POLICY", "EGRESS POLICY", "POD")
        return Listing(headings, self._interfaces(interfaces), ("MTU", "LINK"))

    def _interfaces(self, wanted: frozenset[str] | None) -> Iterator[Row]:
        chains: dict[str, list[EndpointChain]] = {}
        for chain in endpoint_chains(self._state.ruleset):
            chains.setdefault(chain.role.subject, []).append(chain)
        links = self._state.interfaces
        workloads = {name for name in links if self._is_workload(name)} | set(self._pods)
        names = sorted({*chains, *workloads}, key=lambda name: (links[name].index if name in links else 1 << 31, name))
        for name in names:
            if wanted is not None and name not in wanted:
                continue
            link = links.get(name)
            own = chains.get(name, [])
            workload = name in workloads or any(one.role.kind is ChainKind.WORKLOAD for one in own)
            flags = ["workload" if workload else "host", "up" if link and link.up else "down"] if link else ["gone"]
            policies = {way: _chain_words(own, way, workload) for way in ("ingress", "egress")}
            pod = "/".join(self._pods.get(name, ()))
            document = {
                "interface": name,
                **({"ifindex": link.index} if link else {}),
                "flags": flags,
                "policies": policies,
                **({"pod": pod} if pod else {}),
            }
            cells = (
                name,
                str(link.index) if link else "-",
                " ".join(flags),
                *(", ".join(dict.fromkeys(policies[way].values())) or "-" for way in ("ingress", "egress")),
                pod or "-",
            )
            more = (str(link.mtu) if link and link.mtu else "-", (link.kind if link else "") or "-")
            yield Row(cells, document, more)


def rule_counters(views: Iterable[EndpointView], *, zeros: bool = False) -> Listing:
    """Counters of endpoints' own chains; those that are zero or not kept when asked for."""
    headings = ("INTERFACE", "DIRECTION", "TIER", "COUNTER", "PACKETS", "POD")
    return Listing(headings, _counters(views, zeros), ("IP", "PLACE", "HANDLE"))


def _counters(views: Iterable[EndpointView], zeros: bool) -> Iterator[Row]:
    for view in views:
        stage = f" ({view.stage})" if view.stage else ""
        pod = "/".join(view.pod or ())
        for count in view.counts:
            if not (count.packets or zeros):
                continue
            document = {
                "interface": view.interface,
                "direction": view.direction,
                "ipVersion": view.family,
                **({"stage": view.stage} if view.stage else {}),
                **({"tier": count.tier} if count.tier else {}),
                "counter": count.what,
                "packets": count.packets,
                "place": view.place,
                **({"handle": count.handle} if count.handle else {}),
                **({"pod": pod} if pod else {}),
            }
            cells = (
                view.interface,
                f"{view.direction}{stage}",
                count.tier or "-",
                count.what,
                "-" if count.packets is None else str(count.packets),
                pod or "-",
            )
            yield Row(cells, document, (f"IPv{view.family}", view.place, str(count.handle or "-")))


def _chain_words(chains: list[EndpointChain], direction: str, workload: bool) -> dict[str, str]:
    """The chains of a direction, by family and layer where there are several."""
    found: dict[str, str] = {}
    for chain in chains:
        if chain.role.direction == direction:
            usual = chain.layer == "filter" and chain.role.kind is not ChainKind.HOST_FORWARD
            key = f"ipv{chain.ip_version}" + ("" if usual else f" {chain.layer} {chain.role.kind.value}")
            found[key] = chain.name
    return found or ({"any": NO_CHAIN} if workload else {})


def _covers(span: Interval | None, address: Address, family: str) -> bool:
    return span is not None and address.version == FAMILIES[family] and span.low <= int(address) <= span.high


def _is_host(route: Route) -> bool:
    return route.destination.prefixlen == route.destination.max_prefixlen


def _route_order(route: Route) -> tuple[int, int]:
    return int(route.destination.network_address), route.destination.prefixlen


def _hop(hop: NextHop) -> dict[str, Any]:
    return {
        **({"nextHop": str(hop.gateway)} if hop.gateway is not None else {}),
        **({"interface": hop.interface} if hop.interface else {}),
    }


def _hop_words(hop: NextHop) -> str:
    through = f" through {hop.interface}" if hop.interface else ""
    return f"{hop.gateway}{through}" if hop.gateway is not None else hop.interface
