"""The endpoints of a node: chains that are theirs, interfaces, and the pods behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.decode.bpf_layout_types import Role
from calico_debug.errors import EvidenceError
from calico_debug.explain.evaluation import ENDPOINT_CHAINS
from calico_debug.model.nft import SetContent, Verdict, VerdictMap
from calico_debug.policy.chains import ChainKind, ChainRole, chain_role
from calico_debug.state.dataplane import CALICO_TABLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.model.nft import Rule, Ruleset
    from calico_debug.state.bpf import BpfState
    from calico_debug.state.cluster import ClusterState
    from calico_debug.state.node import NodeState

FAMILIES = {"ip": 4, "ip6": 6}
LEAVES = frozenset({ChainKind.POLICY, ChainKind.PROFILE, ChainKind.POLICY_GROUP, ChainKind.FAILSAFE, *ENDPOINT_CHAINS})
"""Chains behind which no endpoint's chain is."""


@dataclass(frozen=True, slots=True)
class EndpointChain:
    """The chain of an endpoint in one direction. ``role.subject`` is the interface."""

    family: str
    table: str
    name: str
    role: ChainRole

    @property
    def layer(self) -> str:
        """What the packet passes there: filter, mangle or raw."""
        return self.role.layer or self.table.split(" ")[0]

    @property
    def ip_version(self) -> int:
        """4 or 6."""
        return FAMILIES[self.family]


def endpoint_chains(ruleset: Ruleset) -> Iterator[EndpointChain]:
    """Endpoints' chains that the node's hooks lead to, in the order of the dispatch. Raises `EvidenceError`."""
    seen: set[tuple[str, str, str]] = set()
    for base in ruleset.base_chains():
        if base.family not in FAMILIES:
            continue
        waiting = [base.name]
        while waiting:
            name = waiting.pop(0)
            if (base.family, base.table, name) in seen:
                continue
            seen.add((base.family, base.table, name))
            role = chain_role(name)
            if role is not None and role.kind in LEAVES:
                if role.kind in ENDPOINT_CHAINS:
                    yield EndpointChain(base.family, base.table, name, role)
                continue
            # Other tables' chains lead to none of Calico's; a base chain of iptables has a name of its own.
            if role is None and name != base.name:
                continue
            if role is None and (base.family, base.table) in CALICO_TABLES:
                continue
            waiting += targets(ruleset, ruleset.rules(base.family, base.table, name) or ())


def targets(ruleset: Ruleset, rules: Sequence[Rule]) -> Iterator[str]:
    """The chains that rules jump or go to, verdict maps included, in order. Raises `EvidenceError`."""
    for rule in rules:
        for statement in rule.statements:
            if isinstance(statement, Verdict) and statement.chain:
                yield statement.chain
            elif isinstance(statement, VerdictMap):
                source = statement.source
                content = source if isinstance(source, SetContent) else None
                if isinstance(source, str):
                    content = ruleset.elements(rule.family, rule.table, source)
                yield from _map_targets(content)


def _map_targets(content: SetContent | None) -> Iterator[str]:
    if content is None:
        return
    elements = [*content.exact.values(), *content.ranged, *([content.default] if content.default else [])]
    for element in elements:
        if isinstance(element.data, Verdict) and element.data.chain:
            yield element.data.chain


def bpf_pods_by_interface(state: BpfState, cluster: ClusterState) -> Mapping[str, tuple[str, str]]:
    """The same from the routes of the eBPF dataplane. Raises `EvidenceError`."""
    names = {one.ifindex: one.name for one in state.entries(Role.INTERFACES)}
    found: dict[str, tuple[str, str]] = {}
    for family in FAMILIES.values():
        for route in state.entries(Role.ROUTES, family):
            pod = cluster.pod_by_address(route.prefix.network_address)
            name = names.get(route.target.ifindex) if route.target.ifindex is not None else None
            if pod is not None and name is not None:
                found.setdefault(name, (pod.namespace, pod.name))
    return found


def pods_by_interface(state: NodeState, cluster: ClusterState) -> Mapping[str, tuple[str, str]]:
    """Namespace and name of the pod behind an interface: the node's host routes to pods' addresses say which it is."""
    found: dict[str, tuple[str, str]] = {}
    for family in FAMILIES.values():
        try:
            routes = state.routing(family).tables.get("main", ())
        except EvidenceError:
            continue
        for route in routes:
            if route.destination.prefixlen != route.destination.max_prefixlen or len(route.hops) != 1:
                continue
            hop = route.hops[0]
            pod = cluster.pod_by_address(route.destination.network_address) if hop.gateway is None else None
            if pod is not None and hop.interface:
                found.setdefault(hop.interface, (pod.namespace, pod.name))
    return found
