"""What the API alone decides for a flow: every endpoint on its way, in the order in which the packet meets them.

Which endpoint polices what: felix/rules/static.go, felix/rules/dispatch.go and felix/calc/event_sequencer.go (v3.32.1).
A node's traffic to its own pods is never policed.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from calico_debug.intent.applies import Applicability, Traffic
from calico_debug.intent.evaluate import Decision, evaluate
from calico_debug.intent.matching import Matching
from calico_debug.intent.model import DIRECTIONS, Direction, Endpoint, PolicyFlow, PolicyKey, Verdict
from calico_debug.model.cluster import Address, Cluster

_CONTROL_PLANE: Final = frozenset((6, port) for port in (179, 2379, 2380, 5473, 6443, 6666, 6667))
FAILSAFES: Final = {
    "ingress": _CONTROL_PLANE | {(6, 22), (17, 68)},
    "egress": _CONTROL_PLANE | {(17, 53), (17, 67)},
}
"""(protocol, port) that host endpoints never police, unless Felix is configured otherwise (felix/config)."""

BEFORE_TRANSLATION: Final[tuple[Traffic, ...]] = ("untracked", "pre-dnat")
"""What of a host endpoint's policies sees the address that was asked for, not a service's backend."""

HOST_DEFAULT: Final = "what a node does with its own pods' traffic is Felix's setting DefaultEndpointToHostAction"


@dataclass(frozen=True, slots=True)
class FlowDecision:
    """What the API decides for a flow. ``stages`` are the endpoints' decisions, in the order of the packet.

    All of them must allow. ``decisive`` is the first that denies, else the first that is not determined, else the
    last; None where nothing on the way is policed. ``assumptions`` are what the answer takes for granted.
    """

    verdict: Verdict
    decisive: Decision | None
    stages: tuple[Decision, ...] = ()
    assumptions: tuple[str, ...] = ()


class Intent:
    """What a cluster's objects mean. Everything is worked out when it is asked for, and once."""

    applicability: Applicability

    def __init__(
        self,
        cluster: Cluster,
        enforce_staged: Collection[PolicyKey] | Literal["all"] = (),
        like: Intent | None = None,
    ) -> None:
        """``enforce_staged`` are staged policies (their keys, or "all") to be taken as enforced from the start. What
        ``like``, of a cluster with many of the same objects, has worked out is taken from there.
        """
        self.cluster = cluster
        self.applicability = Applicability(cluster, enforce_staged, like.applicability if like is not None else None)
        self.matching = Matching(self.applicability)
        self._nodes = {
            address: node.name for node in cluster.nodes for address in (*node.addresses, *node.tunnel_addresses)
        }
        self._hosts: dict[str, list[Endpoint]] = {}
        for endpoint in self.applicability.endpoints:
            if endpoint.kind == "host":
                self._hosts.setdefault(endpoint.node, []).append(endpoint)
        self._variants: dict[frozenset[PolicyKey] | Literal["all"], Intent] = {}

    def with_staged(self, which: Collection[PolicyKey] | Literal["all"]) -> Intent:
        """The same cluster with staged policies enforced: their keys, or "all"."""
        key: frozenset[PolicyKey] | Literal["all"] = "all" if which == "all" else frozenset(which)
        if not key:
            return self
        if key not in self._variants:
            self._variants[key] = Intent(self.cluster, key)
        return self._variants[key]

    def decide(
        self, flow: PolicyFlow, via: str = "", enforce_staged: Collection[PolicyKey] | Literal["all"] = ()
    ) -> FlowDecision:
        """What the API decides for the flow. ``via`` is the node by which a source outside the cluster arrives.

        With ``enforce_staged`` it is what would be decided if those staged policies were enforced.
        """
        if enforce_staged:
            return self.with_staged(enforce_staged).decide(flow, via)
        assumptions = {
            f"there is nothing that matters in what could not be read: {one}": None for one in self.cluster.problems
        }
        stages = tuple(self._stages(flow, via, assumptions))
        decisive = next((stage for stage in stages if stage.verdict == "denied"), None)
        decisive = decisive or next((stage for stage in stages if stage.verdict == "undetermined"), None)
        decisive = decisive or (stages[-1] if stages else None)
        return FlowDecision(decisive.verdict if decisive else "allowed", decisive, stages, tuple(assumptions))

    def polices_forwarding(self) -> bool:
        """Whether a host endpoint has policies for what its node forwards, so that nodes on the way count."""
        kinds: tuple[Traffic, ...] = ("forward", *BEFORE_TRANSLATION)
        return any(
            tier.enforced
            for endpoints in self._hosts.values()
            for endpoint in endpoints
            for direction in DIRECTIONS
            for traffic in kinds
            for tier in self.applicability.tiers_of(endpoint, direction, traffic)
        )

    def pod_decision(self, pod: Endpoint, direction: Direction, flow: PolicyFlow) -> Decision:
        """What one pod's policies decide in one direction."""
        doubt = flow.source_doubt if direction == "ingress" else ""
        return evaluate(self.applicability, self.matching, pod, direction, flow, source_doubt=doubt)

    def node_of(self, address: Address) -> str:
        """The node that has the address itself or by one of its pods; "" if none has."""
        pod = self.applicability.owners.pod(address)
        return pod.node if pod else self._nodes.get(address, "")

    # ------------------------------------------------------------------------------------------- stages of the way

    def _stages(self, flow: PolicyFlow, via: str, assumptions: dict[str, None]) -> Iterator[Decision]:
        sender = self.applicability.owners.pod(flow.source)
        receiver = self.applicability.owners.pod(flow.destination)
        start, end = self.node_of(flow.source), self.node_of(flow.destination)
        if sender:
            yield self.pod_decision(sender, "egress", flow)
        if start and start != end:
            yield from self._hosts_stage(start, "egress", "forward" if sender else "normal", flow, assumptions)
        if start != end or not start:
            entry = end if start else via or end
            accepted = False
            if entry:
                arriving = receiver if entry == end else None
                accepted = yield from self._arrival(entry, flow, arriving, entry == end, assumptions)
            if end and entry != end:
                if not accepted:
                    yield from self._hosts_stage(entry, "egress", "forward", flow, assumptions)
                yield from self._arrival(end, flow, receiver, True, assumptions)
        if receiver:
            if start == end and start and not sender:
                yield Decision("allowed", "host-to-own-pod", "ingress", receiver)
            else:
                yield self.pod_decision(receiver, "ingress", flow)
        elif sender and end == start and end:
            yield Decision("undetermined", "host-default", "ingress", doubts=(HOST_DEFAULT,))

    def _arrival(
        self, node: str, flow: PolicyFlow, receiver: Endpoint | None, is_end: bool, assumptions: dict[str, None]
    ) -> Generator[Decision, None, bool]:
        """The host endpoints of a node that the packet comes to.

        Returns whether untracked or pre-DNAT policy accepted it: no other policy of host endpoints is asked then
        (acceptAlreadyAccepted in felix/rules/static.go).
        """
        address, port = flow.asked_for or (flow.destination, flow.destination_port)
        before = replace(flow, destination=address, destination_port=port)
        for traffic in BEFORE_TRANSLATION:
            for decision in self._hosts_stage(node, "ingress", traffic, before, assumptions):
                yield decision
                if (decision.verdict, decision.reason) == ("allowed", "rule"):
                    return True
        last: Traffic = "normal" if is_end and receiver is None else "forward"
        yield from self._hosts_stage(node, "ingress", last, flow, assumptions)
        return False

    def _hosts_stage(
        self, node: str, direction: Direction, traffic: Traffic, flow: PolicyFlow, assumptions: dict[str, None]
    ) -> Iterator[Decision]:
        for endpoint in self._hosts.get(node, ()):
            if traffic != "normal" and not any(
                tier.enforced for tier in self.applicability.tiers_of(endpoint, direction, traffic)
            ):
                continue
            service = flow.protocol, flow.destination_port
            if traffic in ("normal", "untracked") and service in FAILSAFES[direction]:
                assumptions.setdefault("the failsafe ports of host endpoints are Felix's defaults")
                yield Decision("allowed", "failsafe", direction, endpoint, traffic)
                continue
            if endpoint.interface != "*":
                where = f"interface {endpoint.interface}" if endpoint.interface else "the interface with its addresses"
                assumptions.setdefault(f"traffic passes {endpoint} by {where}")
            doubt = flow.source_doubt if direction == "ingress" else ""
            yield evaluate(self.applicability, self.matching, endpoint, direction, flow, traffic, doubt)
