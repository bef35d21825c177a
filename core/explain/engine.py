"""The whole path for one flow: find its start, walk every alternative, tell what happened, put it together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from calico_debug.evidence.source import Reaching
from calico_debug.explain.alternatives import MAX_ALTERNATIVES, Told, combine, disagreement, outlived
from calico_debug.explain.attribution import Attributor
from calico_debug.explain.dataplane import Dataplanes, dataplane_on
from calico_debug.explain.narrative import narrate, service_backend
from calico_debug.explain.rule_names import RuleNames
from calico_debug.explain.serving import said_to_listen
from calico_debug.explain.xdp import unread_programs
from calico_debug.model.explanation import (
    BackendOutcome,
    Decision,
    Finding,
    FlowEnd,
    FlowExplanation,
    NewConnection,
    Witness,
)
from calico_debug.model.flow import protocol_name
from calico_debug.model.routing import address_from_int
from calico_debug.policy.chains import ChainKind, chain_role
from calico_debug.state.cluster import load_cluster
from calico_debug.state.node import NodeState
from calico_debug.state.resolve import Resolver
from calico_debug.walk.choices import Alternative, Chooser, Kind, explore
from calico_debug.walk.connections import live_connection
from calico_debug.walk.context import Onward, Undecided
from calico_debug.walk.journey import Journey, Opening, Traveller, opening_packet
from calico_debug.walk.node import NodeWalker
from calico_debug.walk.packet import PORT_PROTOCOLS
from calico_debug.walk.wiring import Place, Wiring

if TYPE_CHECKING:
    from calico_debug.evidence.source import EvidenceSource
    from calico_debug.model.flow import Endpoint, Flow
    from calico_debug.model.nft import Rule
    from calico_debug.model.routing import Address
    from calico_debug.state.cluster import ClusterState
    from calico_debug.walk.packet import Port


class Engine:
    """Explains flows from one source of evidence. Everything read or compiled is kept for the next flow."""

    def __init__(
        self,
        source: EvidenceSource,
        cluster: ClusterState | None = None,
        states: Mapping[str, NodeState] | None = None,
    ) -> None:
        """Nothing is read before a flow needs it. ``cluster`` is what is known of the source's cluster already,
        ``states`` what is known of nodes, which are then all the nodes there are.
        """
        self.source = source
        self.cluster = load_cluster(source) if cluster is None else cluster
        if states is None:
            states = {name: NodeState(source.node(name)) for name in source.nodes()}
        self.states: Mapping[str, NodeState] = states
        self.resolver = Resolver(self.cluster, self.states)
        self._walkers = {name: NodeWalker(state) for name, state in self.states.items()}
        self._attributor = Attributor(self.cluster)
        self._dataplanes = Dataplanes(source)
        self._wiring = Wiring(self._walkers, self._role, self._absence_at)
        serving = partial(said_to_listen, self.cluster)
        self._traveller = Traveller(self._walkers, self._wiring, self._go_on, self._dataplanes.admit, serving)
        self._names: dict[tuple[int, int], str] = {}

    def anew(self) -> Engine:
        """One that has read nothing yet of the nodes, and knows the cluster already."""
        return Engine(self.source, self.cluster, {name: NodeState(self.source.node(name)) for name in self.states})

    @property
    def rules_changed(self) -> bool:
        """Whether what it has read of a live node's rules is no longer, or never was, what the kernel holds."""
        return any(state.live and state.rules_changed for state in self.states.values())

    # --------------------------------------------------------------------------------------------------- the answer

    def explain(
        self, flow: Flow, *, as_new: bool = False, told_to: Callable[[Told], None] | None = None
    ) -> FlowExplanation:
        """The explanation of one flow. Raises `EvidenceError` when no node of the flow runs Calico or can be read.

        ``as_new`` leaves connections that exist out of account. ``told_to`` is given every alternative that was walked.
        """
        notes = list(flow.notes)
        if self._stays_in_its_pod(flow):
            node = flow.source.node or self._end(flow.source, None).node
            dataplane = dataplane_on(node, self._walkers)
            decision = Decision(node, dataplane, "no-policy", detail="a pod reaches its own address inside of the pod")
            return self._without_walk(flow, "allowed", decision, [], notes)
        try:
            opening = self._opening(flow, notes)
        except Undecided as stop:
            return self._unstarted(flow, str(stop), notes)
        existing = not as_new and self._existing(opening)
        told = self._alternatives(opening, join_existing=existing)
        if told_to is not None:
            for one in told:
                told_to(one)
        new = self._alternatives(opening, join_existing=False) if existing else None
        return self._assemble(flow, opening, told, new, notes)

    def _stays_in_its_pod(self, flow: Flow) -> bool:
        """Whether a pod talks to its own address: that goes through its own loopback device, unseen by the node."""
        address = flow.source.address
        if flow.via or address != flow.destination.address:
            return False
        place = self._wiring.place(address.version, int(address))
        return bool(place.interface) if place is not None else flow.source.pod is not None

    def _alternatives(self, opening: Opening, join_existing: bool) -> list[Told]:
        def run(chooser: Chooser) -> Journey:
            return self._traveller.travel(opening, chooser, join_existing)

        found: list[Told] = []
        for alternative in explore(run, MAX_ALTERNATIVES + 1):
            found.append(self._tell(alternative, with_steps=not found))
        return found

    def _tell(self, alternative: Alternative[Journey], with_steps: bool) -> Told:
        journey = alternative.result
        narrative = narrate(journey, self._walkers, self._attributor, self.name_of, with_steps)
        narrative.backend = service_backend(journey)
        kinds = frozenset(choice.kind for choice in alternative.choices)
        choices = tuple(choice for choice in alternative.choices if choice.kind is not Kind.BACKEND)
        return Told(narrative, journey, kinds, choices)

    # ------------------------------------------------------------------------------------------------ where it starts

    def _opening(self, flow: Flow, notes: list[str]) -> Opening:
        source, destination = flow.source, flow.destination
        family = source.address.version
        return Opening(
            family,
            flow.protocol,
            int(source.address),
            int(destination.address),
            source.port,
            destination.port,
            self._start(flow, family, notes),
            flow.icmp,
        )

    def _start(self, flow: Flow, family: int, notes: list[str]) -> Place:
        source = flow.source
        address = int(source.address)
        place = None if flow.via else self._wiring.place(family, address)
        if place is not None:
            return place
        if gap := self._gap(flow):
            beyond = self._beyond(flow, family)
            if beyond is None:
                raise Undecided(gap)
            return beyond
        via = flow.via or self._entrance(flow, family, notes)
        if via not in self._walkers:
            why = self._absence(via)
            raise Undecided(f"the flow arrives through {via}, and there is no evidence of that node{why}")
        return Place(via, self._wiring.arrival_interface(via, family, address))

    def _gap(self, flow: Flow) -> str:
        """What is missing where the flow starts: a pod or node whose node there is no evidence of; else ""."""
        source = flow.source
        if flow.via or (source.pod is None and source.node is None):
            return ""
        if self._wiring.place(source.address.version, int(source.address)) is not None:
            return ""
        what = f"pod {'/'.join(source.pod)}" if source.pod else f"node {source.node}"
        where = f"node {source.node}" if source.node else "its node"
        why = self._absence(source.node or "")
        return f"{what} ({source.address}) is not found in the evidence: it needs that of {where}{why}"

    def _beyond(self, flow: Flow, family: int) -> Place | None:
        """Where the flow comes in at the destination's node when its own node is missing.

        Between pods only: what goes elsewhere is translated on the node that is missing.
        """
        place = self._wiring.place(family, int(flow.destination.address))
        if flow.source.pod is None or flow.destination.service is not None or place is None or not place.interface:
            return None
        return Place(place.node, self._wiring.arrival_interface(place.node, family, int(flow.source.address)))

    def _entrance(self, flow: Flow, family: int, notes: list[str]) -> str:
        """The node through which traffic from outside comes when nobody said: an assumption, and stated."""
        destination = flow.destination
        owner = self._wiring.owner(family, int(destination.address))
        if owner is None:
            place = self._wiring.place(family, int(destination.address))
            owner = place.node if place is not None else destination.node
        why = "it owns the destination address or runs the destination pod"
        if owner is None:
            owner = self._backend_node(destination) or next(iter(self._walkers), "")
            why = "nothing says where it comes in"
        if not owner:
            raise Undecided("there is no evidence of any node")
        notes.append(f"{flow.source.address} is assumed to arrive through {owner}: {why}; --via names another node")
        return owner

    def _backend_node(self, destination: Endpoint) -> str | None:
        if destination.service is None:
            return None
        service = self.cluster.service(*destination.service[:2])
        nodes = {backend.node for backend in service.backends if backend.node} if service else set()
        node = nodes.pop() if len(nodes) == 1 else None
        return node if node in self._walkers else None

    def _existing(self, opening: Opening) -> bool:
        """Whether conntrack on the first node knows the very connection that was asked about."""
        if opening.source_port is None and opening.protocol in PORT_PROTOCOLS:
            return False
        return live_connection(self.states[opening.place.node], opening_packet(opening, mid_stream=True)) is not None

    def _go_on(self, walker: NodeWalker, rule: Rule | None, stack: Sequence[str]) -> Onward | None:
        """After a denial by policy: what the rest of the path would do if the endpoint's chain had accepted."""
        if rule is None:
            return None
        for chain in reversed(stack):
            role = chain_role(chain)
            if role is not None and role.kind in (ChainKind.WORKLOAD, ChainKind.HOST, ChainKind.HOST_FORWARD):
                accept = self._attributor.marks(walker, rule.family, rule.table, chain).accept
                return Onward(chain, accept) if accept else None
        return None

    # ----------------------------------------------------------------------------------------------------- assembly

    def _assemble(
        self, flow: Flow, opening: Opening, told: list[Told], new: list[Told] | None, notes: list[str]
    ) -> FlowExplanation:
        verdict, decision, findings = combine(told)
        if gap := self._gap(flow):
            findings.append(Finding("missing-evidence", "warning", gap))
            if verdict in ("allowed", "undetermined"):
                node = flow.source.node or ""
                entered = f"; {opening.place.node} would let it in" if told[0].journey.arrived else ""
                verdict = "undetermined"
                dataplane = dataplane_on(node, self._walkers)
                decision = Decision(node, dataplane, "missing-evidence", detail=f"{gap}{entered}")
        backends = self._backends(flow, told)
        if verdict == "undetermined" and len({backend.verdict for backend in backends}) > 1:
            findings.append(disagreement(backends))
        first = told[0]
        findings.extend(first.narrative.findings)
        if verdict == "allowed" and first.journey.arrived == "outside" and first.journey.place is not None:
            findings.append(_answer_assumed(first.journey.place.node))
        findings.extend(Finding("assumption", "info", note) for note in notes)
        findings.extend(self._evidence_findings(first.journey))
        new_connection = None
        if new is not None:
            new_verdict, new_decision, _ = combine(new)
            new_connection = NewConnection(new_verdict, new_decision)
            if new_verdict != verdict:
                findings.append(outlived(new_verdict))
        return FlowExplanation(
            protocol_name(flow.protocol),
            self._end(flow.source, opening.place),
            self._end(flow.destination, first.journey.place if not backends else None),
            verdict,
            decision,
            backends,
            new_connection,
            tuple(first.narrative.steps),
            {"predicted": self._predicted(verdict, decision, first.journey)},
            tuple(dict.fromkeys(findings)),
        )

    def _unstarted(self, flow: Flow, why: str, notes: list[str]) -> FlowExplanation:
        node = flow.source.node or ""
        decision = Decision(node, dataplane_on(node, self._walkers), "missing-evidence", detail=why)
        return self._without_walk(flow, "undetermined", decision, [Finding("missing-evidence", "warning", why)], notes)

    def _without_walk(
        self, flow: Flow, verdict: str, decision: Decision, findings: list[Finding], notes: list[str]
    ) -> FlowExplanation:
        findings.extend(Finding("assumption", "info", note) for note in notes)
        findings.extend(self._cluster_findings())
        return FlowExplanation(
            protocol_name(flow.protocol),
            self._end(flow.source, None),
            self._end(flow.destination, None),
            verdict,
            decision,
            witnesses={"predicted": Witness(verdict, "", decision.detail)},
            findings=tuple(findings),
        )

    def _predicted(self, verdict: str, decision: Decision | None, journey: Journey) -> Witness:
        node = decision.node if decision else ""
        nodes = dict.fromkeys(leg.made.node for leg in journey.legs)
        how = f"predicted from the rules in the kernel of {', '.join(nodes)}" if nodes else "no node could be walked"
        return Witness(verdict, node, how, self.states[node].taken_at if node in self.states else "")

    def _evidence_findings(self, journey: Journey) -> list[Finding]:
        found: list[Finding] = []
        for node in dict.fromkeys(leg.made.node for leg in journey.legs):
            found.extend(Finding("evidence", "info", f"{node}: {note}") for note in self.states[node].notes)
            if self.states[node].rules_changed:
                found.append(_rules_changed(node))
            found.extend(self._dataplanes.findings(self._walkers[node]))
        for node, interface in dict.fromkeys((leg.made.node, leg.made.arrived) for leg in journey.legs):
            found.extend(unread_programs(self._walkers[node], interface))
        return [*found, *self._cluster_findings()]

    def _cluster_findings(self) -> list[Finding]:
        """What could not be read or understood of the cluster's objects so far."""
        unreadable = self.cluster.problems
        return [Finding("evidence", "warning" if n in unreadable else "info", n) for n in self.cluster.notes]

    def _backends(self, flow: Flow, told: list[Told]) -> tuple[BackendOutcome, ...]:
        by_backend: dict[tuple[int, Port], list[Told]] = {}
        for alternative in told:
            if alternative.narrative.backend is not None:
                by_backend.setdefault(alternative.narrative.backend, []).append(alternative)
        family = flow.destination.address.version
        outcomes = []
        for (address, port), alternatives in by_backend.items():
            verdict, decision, _ = combine(alternatives)
            known = address_from_int(family, address)
            pod = self.cluster.pod_by_address(known)
            place = self._wiring.place(family, address)
            outcomes.append(
                BackendOutcome(
                    str(known),
                    port if isinstance(port, int) else None,
                    verdict,
                    {"namespace": pod.namespace, "name": pod.name} if pod else None,
                    (place.node if place else "") or (pod.node if pod else ""),
                    decision,
                )
            )
        return tuple(outcomes)

    # --------------------------------------------------------------------------------------------------------- names

    def _end(self, end: Endpoint, place: Place | None) -> FlowEnd:
        if place is None and end.service is None:
            place = self._wiring.place(end.address.version, int(end.address))
        pod = end.pod
        if pod is None and end.service is None:
            known = self.cluster.pod_by_address(end.address)
            pod = (known.namespace, known.name) if known else None
        service = None
        if end.service is not None:
            namespace, name, port_name = end.service
            service = {"namespace": namespace, "name": name, "port": end.port}
            if port_name:
                service["portName"] = port_name
        at_home = place is not None and not end.external and (end.service is None)
        outside = at_home and place is not None and self._wiring.place(end.address.version, int(end.address)) is None
        node = place.node if at_home and place is not None and not outside else end.node or ""
        interface = place.interface if at_home and place is not None and not outside else ""
        return FlowEnd(
            str(end.address),
            end.port,
            {"namespace": pod[0], "name": pod[1]} if pod else None,
            service,
            node,
            interface,
        )

    def rule_names(self, node: str) -> RuleNames:
        """Names the rules that packets met on a node."""
        return RuleNames(self._attributor, self._walkers[node])

    def name_of(self, family: int, address: int) -> str:
        """The pod, node or service with an address, for people; "" when the cluster's objects know none."""
        key = (family, address)
        if key not in self._names:
            known = address_from_int(family, address)
            pod = self.cluster.pod_by_address(known)
            node = None if pod else self.cluster.node_by_address(known)
            self._names[key] = f"{pod.namespace}/{pod.name}" if pod else f"node {node.name}" if node else ""
            if not self._names[key] and (service := self.cluster.service_by_address(known)) is not None:
                self._names[key] = f"service {service[0].namespace}/{service[0].name}"
        return self._names[key]

    def _absence(self, node: str) -> str:
        """Why a node is missing, in parentheses; "" when nobody knows."""
        why = self.source.absence(node) if node and isinstance(self.source, Reaching) else ""
        return f" ({why})" if why else ""

    def _absence_at(self, family: int, address: int) -> str:
        known = address_from_int(family, address)
        owner = self.cluster.pod_by_address(known)
        node = self.cluster.node_by_address(known)
        return self._absence(owner.node if owner else node.name if node else "")

    def _role(self, family: int, address: int) -> str:
        known = address_from_int(family, address)
        if pod := self.cluster.pod_by_address(known):
            return f"pod {pod.namespace}/{pod.name}"
        if node := self.cluster.node_by_address(known):
            return f"node {node.name}"
        return "outside" if self._is_outside(family, known) else ""

    def _is_outside(self, family: int, known: Address) -> bool:
        """Whether an address certainly belongs to nobody in the cluster: that takes its objects, or its pools."""
        if self.cluster.service_by_address(known):
            return False
        pools = [pool for pool in self.cluster.pools if pool.version == family]
        if not pools and not self.cluster.pods:
            return False
        return not any(known in pool for pool in pools)


def _rules_changed(node: str) -> Finding:
    return Finding(
        "rules-changed",
        "warning",
        f"the rules of {node} changed while they were read, and may not belong together: ask or record again",
    )


def _answer_assumed(node: str) -> Finding:
    return Finding(
        "answer-from-outside",
        "info",
        f"the answer is taken to come back to {node}; how it is routed outside of the cluster is not in the evidence",
    )
