"""What a rule that a packet met stands for: the policy and its rule, or whose rule it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.explain.kube_proxy import is_kube_proxy, reason_and_detail
from calico_debug.policy.chains import ChainKind, chain_role, parse_comment

if TYPE_CHECKING:
    from calico_debug.explain.attribution import Attributor
    from calico_debug.model.nft import Rule
    from calico_debug.model.observation import TracedPacket, TraceEvent
    from calico_debug.walk.node import NodeWalker

_ENDPOINTS = (ChainKind.WORKLOAD, ChainKind.HOST, ChainKind.HOST_FORWARD)


class RuleNames:
    """Names the rules of one node, as they were read for the prediction."""

    def __init__(self, attributor: Attributor, walker: NodeWalker) -> None:
        """Nothing is read before a rule is asked for."""
        self._attributor = attributor
        self._walker = walker

    def __call__(self, packet: TracedPacket, event: TraceEvent) -> str:
        """The rule of ``event`` in words, with its place."""
        if event.kind == "policy":
            return f"the policy of chain {event.chain} of table {event.family} {event.table}"
        place = f"table {event.family} {event.table}, chain {event.chain}, handle {event.handle}"
        rules = self._walker.program.ruleset.rules(event.family, event.table, event.chain) or ()
        rule = next((rule for rule in rules if rule.handle == event.handle), None)
        if rule is None:
            return f"{place} (no such rule was there when the rules were read)"
        told = self._told(packet, event, rule)
        return f"{told} ({place})" if told else place

    def _told(self, packet: TracedPacket, event: TraceEvent, rule: Rule) -> str:
        if is_kube_proxy(rule):
            before = packet.events[: packet.events.index(event)]
            chains = [passed.chain for passed in reversed(before) if passed.table == event.table]
            return f"kube-proxy: {reason_and_detail(rule, chains)[1]}"
        role = chain_role(event.chain)
        if role is None:
            return f"a rule that is not Calico's{f', {rule.comment!r}' if rule.comment else ''}"
        if role.kind is ChainKind.POLICY:
            return self._policy(packet, event, rule)
        return parse_comment(rule.comment).text

    def _policy(self, packet: TracedPacket, event: TraceEvent, rule: Rule) -> str:
        """The policy of a policy chain. The endpoint's chain, which was met before, tells what the marks mean."""
        endpoint = next(
            (
                passed.chain
                for passed in reversed(packet.events[: packet.events.index(event)])
                if (role := chain_role(passed.chain)) is not None and role.kind in _ENDPOINTS
            ),
            None,
        )
        if endpoint is None:
            return ""
        marks = self._attributor.marks(self._walker, event.family, event.table, endpoint)
        named = self._attributor.policy(self._walker, event.family, event.table, event.chain, marks)
        scope = f"{named.ref.namespace}/" if named.ref.namespace else ""
        ref = named.rule_ref(rule)
        number = f", rule {ref.index}" if ref is not None and ref.index is not None else ""
        return f"{named.ref.kind} {scope}{named.ref.name}{number}".strip()
