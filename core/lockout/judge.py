"""What a node's host endpoints decide for one of its own flows: untracked, pre-DNAT and normal policy, and failsafes.

Order: felix/rules/static.go of v3.32.1: what untracked or pre-DNAT policy accepts is not asked again; packets of
tunnels between nodes are let through before normal policy; failsafes are at the start of each of these chains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from calico_debug.intent.decide import BEFORE_TRANSLATION, Intent
from calico_debug.intent.evaluate import Decision, evaluate
from calico_debug.intent.model import Direction, Endpoint, PolicyFlow, Side

if TYPE_CHECKING:
    from calico_debug.intent.applies import Traffic
    from calico_debug.lockout.failsafes import Failsafes
    from calico_debug.lockout.vitals import NodeFlow
    from calico_debug.model.cluster import Address, Cluster

STAYS, SAVED, CUT, CUT_BEFORE, OPEN = "stays", "saved by a failsafe", "cut", "cut already", "undetermined"
RANK: Final = (STAYS, SAVED, CUT_BEFORE, OPEN, CUT)
"""From the best to the worst."""

_OPPOSITE: Final[Mapping[Direction, Direction]] = {"ingress": "egress", "egress": "ingress"}


@dataclass(frozen=True, slots=True)
class Judgement:
    """``standing`` is `STAYS`, `SAVED`, `CUT` or `OPEN`; ``why`` one sentence without a full stop, "" for `STAYS`."""

    standing: str
    why: str = ""


class Judge:
    """Judges flows of nodes, for one state of the cluster's objects."""

    def __init__(
        self,
        cluster: Cluster,
        failsafes: Callable[[str], Failsafes],
        interfaces: Mapping[str, Mapping[Address, str]],
    ) -> None:
        """``failsafes`` gives those of a node; ``interfaces`` name those with a node's addresses, where known."""
        self.intent = Intent(cluster)
        self._failsafes = failsafes
        self._interfaces = interfaces
        self._hosts: dict[str, list[Endpoint]] = {}
        for endpoint in self.intent.applicability.endpoints:
            if endpoint.kind == "host":
                self._hosts.setdefault(endpoint.node, []).append(endpoint)

    def host_endpoints(self, node: str) -> Sequence[Endpoint]:
        """Those of a node."""
        return self._hosts.get(node, ())

    def judge(self, node: str, one: NodeFlow) -> Judgement:
        """What becomes of a flow."""
        mine = one.flow.destination if one.vital.direction == "ingress" else one.flow.source
        found = [self._by(endpoint, node, one) for endpoint in self._passed(node, mine)]
        if not found:
            return Judgement(STAYS)
        if len({judged.standing for judged in found}) > 1:
            names = ", ".join(endpoint.name for endpoint in self._passed(node, mine))
            return Judgement(OPEN, f"which interface has {mine} is not known, so any of these may police it: {names}")
        return found[0]

    # ----------------------------------------------------------------------------------------------------- internals

    def _passed(self, node: str, address: Address) -> Sequence[Endpoint]:
        """The host endpoints that may police packets of the address: those named before the one for all interfaces."""
        own = self._hosts.get(node, ())
        everywhere = [one for one in own if one.interface == "*"]
        named = [one for one in own if one.interface != "*"]
        interface = self._interfaces.get(node, {}).get(address)
        if interface is not None:
            by_name = [one for one in named if one.interface == interface]
            return by_name or [one for one in named if not one.interface and address in one.addresses] or everywhere
        return [one for one in named if address in one.addresses] or [*named, *everywhere]

    def _by(self, endpoint: Endpoint, node: str, one: NodeFlow) -> Judgement:
        direction, flow = one.vital.direction, one.flow
        judged = self._policy(endpoint, one)
        if judged.standing == STAYS:
            return judged
        failsafes = self._failsafes(node)
        if failsafes.covers(direction, flow.protocol, flow.destination_port, one.peer_address):
            return Judgement(SAVED, f"{judged.why}; {failsafes.origin} keep the port open")
        return judged

    def _policy(self, endpoint: Endpoint, one: NodeFlow) -> Judgement:
        direction, flow = one.vital.direction, one.flow
        early = BEFORE_TRANSLATION if direction == "ingress" else BEFORE_TRANSLATION[:1]
        for traffic in early:
            if not self._is_policed(endpoint, direction, traffic):
                continue
            decision = self._decide(endpoint, direction, flow, traffic)
            if decision.verdict != "allowed":
                return self._told(endpoint, one, decision)
            if decision.reason == "rule":
                return self._answers(endpoint, one, tracked=traffic != "untracked")
        if not one.vital.tunnel:
            decision = self._decide(endpoint, direction, flow, "normal")
            if decision.verdict != "allowed":
                return self._told(endpoint, one, decision)
        return self._answers(endpoint, one, tracked=True)

    def _answers(self, endpoint: Endpoint, one: NodeFlow, *, tracked: bool) -> Judgement:
        """Untracked policy meets answers, too, as it comes before conntrack; and nothing remembers what it accepted, so
        answers to that meet normal policy.
        """
        back, flow = _OPPOSITE[one.vital.direction], one.flow
        answer = PolicyFlow(
            flow.destination, flow.source, flow.protocol, flow.destination_port, flow.source_port, flow.icmp
        )
        stages: tuple[Traffic, ...] = ("untracked",) if tracked else ("untracked", "normal")
        for traffic in stages:
            if traffic == "untracked" and not self._is_policed(endpoint, back, traffic):
                continue
            decision = self._decide(endpoint, back, answer, traffic)
            if decision.verdict != "allowed":
                told = self._told(endpoint, replace(one, flow=answer), decision)
                return replace(told, why=f"its answers meet policy that comes before conntrack: {told.why}")
            if decision.reason == "rule":
                break
        return Judgement(STAYS)

    def _is_policed(self, endpoint: Endpoint, direction: Direction, traffic: Traffic) -> bool:
        tiers = self.intent.applicability.tiers_of(endpoint, direction, traffic)
        return any(tier.enforced for tier in tiers)

    def _decide(self, endpoint: Endpoint, direction: Direction, flow: PolicyFlow, traffic: Traffic) -> Decision:
        return evaluate(self.intent.applicability, self.intent.matching, endpoint, direction, flow, traffic)

    def _told(self, endpoint: Endpoint, one: NodeFlow, decision: Decision) -> Judgement:
        if decision.verdict == "undetermined":
            return Judgement(OPEN, f"{endpoint}: {'; '.join(decision.doubts) or 'not all rules are understood'}")
        elsewhere = next(self._elsewhere(endpoint, one, decision), "") if one.unknown else ""
        why = f"{endpoint}: {denied_by(decision)}"
        if elsewhere:
            return Judgement(OPEN, f"{elsewhere} lets it through for some addresses; for others, {why}")
        return Judgement(CUT, why)

    def _elsewhere(self, endpoint: Endpoint, one: NodeFlow, decision: Decision) -> Iterator[str]:
        """Rules that may let the flow through for another peer than the one that stands for those not known."""
        direction = decision.direction
        stages: tuple[Traffic, ...] = (*BEFORE_TRANSLATION, "normal")
        tiers = [self.intent.applicability.tiers_of(endpoint, direction, traffic) for traffic in stages]
        for applied in (applied for found in tiers for tier in found for applied in tier.enforced):
            for rule in applied.policy.rules(direction):
                side = rule.source if direction == "ingress" else rule.destination
                open_side = Side(ports=side.ports, not_ports=side.not_ports)
                if rule.action not in ("Allow", "Pass") or side == open_side:
                    continue
                ingress = direction == "ingress"
                any_peer = replace(rule, source=open_side) if ingress else replace(rule, destination=open_side)
                if self.intent.matching.matches(any_peer, one.flow, {}) is not False:
                    yield f"{applied.policy.key}, {direction} rule {rule.index} ({rule.action})"


def denied_by(decision: Decision) -> str:
    """What denies, for messages."""
    if decision.policy is not None and decision.rule is not None:
        return f"{decision.policy.key}, {decision.direction} rule {decision.rule.index} ({decision.rule.action})"
    if decision.reason == "end-of-tier":
        names = ", ".join(str(policy.key) for policy in decision.selecting)
        return f"end of tier {decision.tier}, {decision.direction}: {names} let none of it through"
    if decision.reason == "no-profile":
        return f"no policy and no profile lets {decision.direction} traffic through, so it is denied"
    return decision.reason
