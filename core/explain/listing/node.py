"""One node's listings, whichever dataplane it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from calico_debug.errors import EvidenceError, UsageError
from calico_debug.explain.listing.names import Names
from calico_debug.explain.listing.rows import Listing
from calico_debug.model.explanation import Finding
from calico_debug.state.cluster import load_cluster
from calico_debug.state.connection_filter import BPF_STATES, STATES
from calico_debug.state.dataplane import EBPF
from calico_debug.state.node import NodeState
from calico_debug.state.resolve import Resolver

if TYPE_CHECKING:
    from calico_debug.evidence.source import EvidenceSource
    from calico_debug.explain.listing.bpf import BpfListings
    from calico_debug.explain.listing.kernel import KernelListings
    from calico_debug.explain.listing.policy_view import EndpointView
    from calico_debug.explain.listing.rows import Row
    from calico_debug.model.conntrack import Address
    from calico_debug.state.cluster import ClusterState
    from calico_debug.state.connection_filter import ConnectionFilter

Interfaces = frozenset[str] | None
"""Interfaces to list, None for all."""


class NodeListings:
    """Lists what one node holds. Everything raises `EvidenceError` where evidence is missing, also while rows are read.

    `findings` grow as parts are read.
    """

    def __init__(
        self,
        source: EvidenceSource,
        node: str,
        now: int | None = None,
        namespace: str | None = None,
        state: NodeState | None = None,
        cluster: ClusterState | None = None,
    ) -> None:
        """``now`` is CLOCK_MONOTONIC of the node in nanoseconds, None for a recording; ``namespace`` is that of names
        without one. ``state`` and ``cluster`` are what has been read already of the node and its cluster.
        """
        self.namespace = namespace
        self._states = {name: NodeState(source.node(name)) for name in source.nodes()}
        if state is not None:
            self._states[node] = state
        self.state = self._states[node]
        self.cluster = cluster or load_cluster(source)
        self.names = Names(self.cluster)
        self.resolver = Resolver(self.cluster, self._states)
        self._now = now
        self._findings: dict[Finding, None] = {}

    @property
    def findings(self) -> Sequence[Finding]:
        """What is missing, stale or odd among the parts read so far."""
        of_bpf = self.state.bpf.findings if self.dataplane == EBPF else ()
        return tuple(dict.fromkeys((*self._findings, *of_bpf)))

    @cached_property
    def dataplane(self) -> str:
        """The node's dataplane. Raises `EvidenceError` for a node without Calico, or where it cannot be told."""
        try:
            found = self.state.dataplane
        except EvidenceError as error:
            if self._has_bpf_maps():
                return EBPF
            raise EvidenceError(f"which dataplane {self.state.name} runs is not known: {error}") from error
        if found or not self._has_bpf_maps():
            if found:
                return found
            raise EvidenceError(
                f"{self.state.name} of {self.state.origin} has no rules and no eBPF programs of Calico: name a node "
                f"that runs Calico{self.state.cni_hint() and f' ({self.state.cni_hint()})'}"
            )
        return EBPF

    def _has_bpf_maps(self) -> bool:
        from calico_debug.decode.bpf_layouts import is_calico

        try:
            return any(is_calico(info.name) for info in self.state.bpf.maps.values())
        except EvidenceError:
            return False

    # ---------------------------------------------------------------------------------------------------- endpoints

    @cached_property
    def pods(self) -> Mapping[str, tuple[str, str]]:
        """The pod behind each interface, as the node's routes tell: Calico's own in the eBPF dataplane."""
        from calico_debug.explain.listing.endpoints import bpf_pods_by_interface, pods_by_interface

        if self.dataplane == EBPF:
            return bpf_pods_by_interface(self.state.bpf, self.cluster)
        return pods_by_interface(self.state, self.cluster)

    def interfaces_of(self, text: str, namespace: str | None = None) -> frozenset[str]:
        """The interfaces of an endpoint as typed: an interface, a pod, an address of one, or this node.

        Raises `UsageError` for what is not on this node.
        """
        if text in self._known_interfaces:
            return frozenset({text})
        end = self.resolver.find_end(text, namespace)
        if end.service is not None or end.external:
            raise UsageError(f"{text!r} has no policy of its own: name a pod, an interface or a node")
        if end.pod is not None and end.pod.host_network:
            raise UsageError(
                f"pod {end.pod.namespace}/{end.pod.name} is in its host's network and has no policy of its own: name "
                f"an interface of node {end.pod.node}"
            )
        if end.node not in (None, self.state.name):
            raise UsageError(f"{text!r} is on node {end.node}: ask with --node {end.node}")
        if end.pod is not None or end.node is None:
            found = frozenset(name for address in end.addresses for name in self._behind(address))
        else:
            found = self._known_interfaces - frozenset(self.pods)
        if not found:
            raise EvidenceError(
                f"no interface of {self.state.name} leads to {text}: look at `ip route` on the node, or name the "
                "interface"
            )
        return found

    def _behind(self, address: Address) -> Iterator[str]:
        if self.dataplane == EBPF:
            from calico_debug.state.bpf_lookups import BpfLookups

            lookups = BpfLookups(self.state.bpf)
            target = lookups.route(address)
            if target is not None and target.ifindex is not None and target.ifindex in lookups.interfaces:
                yield lookups.interfaces[target.ifindex].name
            return
        for family in (4, 6):
            for route in self.state.routing(family).tables.get("main", ()):
                network = route.destination
                if network.prefixlen == network.max_prefixlen and network.network_address == address:
                    yield from (hop.interface for hop in route.hops if hop.gateway is None)

    @cached_property
    def _known_interfaces(self) -> frozenset[str]:
        try:
            names = frozenset(self.state.interfaces)
        except EvidenceError:
            names = frozenset()
        if self.dataplane == EBPF:
            from calico_debug.state.bpf_lookups import BpfLookups

            return names | {one.name for one in BpfLookups(self.state.bpf).interfaces.values()}
        return names

    def policies(self, interfaces: Interfaces = None) -> Iterator[EndpointView]:
        """Policy of endpoints: pods in the order of the node, egress first, then hosts' interfaces."""
        views = self._bpf_policies(interfaces) if self.dataplane == EBPF else self._chain_policies(interfaces)
        yield from sorted(views, key=_order)

    def _bpf_policies(self, interfaces: Interfaces) -> Iterator[EndpointView]:
        from calico_debug.explain.attribution import Attributor
        from calico_debug.explain.listing.policy_programs import ProgramPolicies
        from calico_debug.state.bpf_checks import check_interfaces
        from calico_debug.state.bpf_lookups import BpfLookups
        from calico_debug.walk.bpf_loaded import leftover_debug_files

        yield from ProgramPolicies(self.state, Attributor(self.cluster)).views(interfaces, self.pods)
        for finding in check_interfaces(self.state.bpf, BpfLookups(self.state.bpf)):
            self._findings.setdefault(finding)
        try:
            for finding in leftover_debug_files(self.state):
                self._findings.setdefault(finding)
        except EvidenceError:
            return  # without a list of interfaces nothing can be said to be left over

    def _chain_policies(self, interfaces: Interfaces) -> Iterator[EndpointView]:
        from calico_debug.explain.attribution import Attributor
        from calico_debug.explain.listing.endpoints import endpoint_chains
        from calico_debug.explain.listing.policy_chains import chain_view
        from calico_debug.walk.node import NodeWalker

        walker, attributor = NodeWalker(self.state), Attributor(self.cluster)
        for chain in endpoint_chains(self.state.ruleset):
            name = chain.role.subject
            if interfaces is None or name in interfaces:
                yield chain_view(walker, attributor, chain, self.dataplane, self.pods.get(name))

    # ----------------------------------------------------------------------------------------------------- listings

    def conntrack(self, wanted: ConnectionFilter) -> Listing:
        """Connections. Raises `UsageError` for a state that the node's dataplane does not tell."""
        states = BPF_STATES if self.dataplane == EBPF else [word for word in STATES if word != "reset"]
        if wanted.state and wanted.state not in states:
            raise UsageError(
                f"{self.state.name} runs {self.dataplane}, whose connections are never {wanted.state}: give one of "
                f"{', '.join(states)}"
            )
        if self.dataplane == EBPF:
            from calico_debug.explain.listing.bpf_connections import bpf_connections

            return bpf_connections(self.state.bpf, self.names, wanted, self._now)
        from calico_debug.explain.listing.connections import kernel_connections

        listing = kernel_connections(self.state, self.names, wanted)
        return Listing(listing.headings, self._noting(listing.rows), listing.more)

    def _noting(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows; what could not be read of the listing is then among the findings."""
        yield from rows
        for note in self.state.notes:
            self._findings.setdefault(Finding("evidence", "warning", note))

    def nat(self, wanted: ConnectionFilter) -> Listing:
        """Services with their backends, Calico's or kube-proxy's."""
        if self.dataplane == EBPF:
            return self._bpf.nat(wanted)
        from calico_debug.explain.listing.services import services

        return services(self.state.ruleset, self.names, wanted, self.state.name)

    def routes(self, covering: frozenset[Address] | None = None) -> Listing:
        """Calico's routes."""
        return self._bpf.routes(covering) if self.dataplane == EBPF else self._kernel.routes(covering)

    def ipsets(self, holding: frozenset[Address] | None = None) -> Listing:
        """IP sets and their members."""
        if self.dataplane == EBPF:
            return self._bpf.ipsets(holding, self.set_ids())
        return self._kernel.ipsets(holding)

    def ifstate(self, interfaces: Interfaces = None) -> Listing:
        """Interfaces and where their policy is."""
        return self._bpf.ifstate(interfaces) if self.dataplane == EBPF else self._kernel.ifstate(interfaces)

    def counters(self, interfaces: Interfaces = None, *, zeros: bool = False) -> Listing:
        """Counters of interfaces, or of endpoints' chains."""
        if self.dataplane == EBPF:
            return self._bpf.counters(interfaces, zeros=zeros)
        from calico_debug.explain.listing.kernel import rule_counters

        return rule_counters(self.policies(interfaces), zeros=zeros)

    def attachments(self) -> Listing:
        """Programs at hooks. Raises `UsageError` for a node of another dataplane."""
        if self.dataplane != EBPF:
            raise UsageError(
                f"{self.state.name} runs {self.dataplane}, and attachments are of the eBPF dataplane alone: ifstate "
                "and policy show where the policy of its interfaces is"
            )
        return self._bpf.attachments()

    @cached_property
    def _bpf(self) -> BpfListings:
        from calico_debug.explain.listing.bpf import BpfListings

        return BpfListings(self.state.bpf, self.cluster)

    def set_ids(self) -> Mapping[int, str]:
        """Felix's ids of the IP sets that policies look into, by number: its debug files tell them."""
        found: dict[int, str] = {}
        for file in self.state.policy_debug_files:
            try:
                found |= self.state.policy_debug(file).ip_sets
            except EvidenceError:
                continue  # `policies` tells of it
        return found

    @cached_property
    def _kernel(self) -> KernelListings:
        from calico_debug.explain.listing.kernel import KernelListings

        return KernelListings(self.state, self.cluster, self.pods)


def node_of(source: EvidenceSource, text: str, namespace: str | None = None) -> str:
    """The node of a pod or of an address as typed, "" where that does not tell. Raises as `Resolver.find_end`."""
    states = {name: NodeState(source.node(name)) for name in source.nodes()}
    for name, state in states.items():
        try:
            if text in state.interfaces and sum(text in other.interfaces for other in states.values()) == 1:
                return name
        except EvidenceError:
            continue
    end = Resolver(load_cluster(source), states).find_end(text, namespace)
    return end.node or ""


_DIRECTIONS = {"egress": 0, "ingress": 1}


def _order(view: EndpointView) -> tuple[bool, bool, str, int, int, str]:
    return (
        view.kind != "pod",
        view.pod is None,
        "/".join(view.pod) if view.pod else view.interface,
        _DIRECTIONS.get(view.direction, 2),
        view.family,
        view.stage,
    )
