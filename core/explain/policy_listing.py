"""Which policies apply to a pod and which endpoints a policy selects, as documents for every output."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from calico_debug.explain.policy_counts import PolicyCounts
from calico_debug.intent.model import DIRECTIONS
from calico_debug.policy.wording import describe_rule, rule_count

if TYPE_CHECKING:
    from calico_debug.intent.applies import AppliedPolicy, AppliedTier
    from calico_debug.intent.decide import Intent
    from calico_debug.intent.model import Direction, Endpoint, Policy
    from calico_debug.state.node import NodeState

API_VERSION: Final = "calico-debug/v1"
Document = dict[str, Any]


class PolicyListing:
    """Makes documents of what the objects mean and of what nodes have counted."""

    def __init__(self, intent: Intent, nodes: Mapping[str, NodeState]) -> None:
        """``nodes`` are those whose rules are in evidence, by name; they are read when counts are asked for."""
        self._intent = intent
        self._counts = {name: PolicyCounts(state) for name, state in nodes.items()}

    def of_pod(self, pod: Endpoint) -> Document:
        """The policies that apply to a pod: each direction's tiers and policies, in the order of evaluation."""
        document: Document = {"apiVersion": API_VERSION, "kind": "PodPolicies"}
        document["pod"] = {"namespace": pod.namespace, "name": pod.name}
        document["node"] = pod.node
        for direction in DIRECTIONS:
            tiers = self._intent.applicability.tiers_of(pod, direction)
            document[direction] = {
                "tiers": [self._tier(tier, direction, pod) for tier in tiers],
                "profiles": list(pod.profiles),
            }
        return document

    def of_all(self) -> Document:
        """Every policy in the order of evaluation, with how many endpoints it selects."""
        return {
            "apiVersion": API_VERSION,
            "kind": "PolicyList",
            "tiers": [
                {
                    **_tier(tier.name, tier.order, tier.default_action),
                    "policies": [self._summary(policy) for policy in policies],
                }
                for tier, policies in self._intent.applicability.tiers
            ],
        }

    def endpoints(self, policy: Policy) -> Document:
        """The endpoints that a policy selects, with the directions that it governs."""
        selected = self._intent.applicability.selected_by(policy)
        document: Document = {"apiVersion": API_VERSION, "kind": "PolicyEndpoints", "policy": _policy(policy)}
        document["types"] = _types(policy)
        document["selector"] = policy.selector.text if policy.selector else ""
        document |= {"problem": policy.problem} if policy.problem else {}
        document["endpoints"] = [
            {**_endpoint(endpoint), **({} if certain else {"certain": False})} for endpoint, certain in selected
        ]
        counts = {
            node: {way: count for way in _types(policy) if (count := _count(counter, policy, way)) is not None}
            for node, counter in sorted(self._counts.items())
        }
        document["hits"] = [
            {"node": node, "direction": way, **count} for node, found in counts.items() for way, count in found.items()
        ]
        return document

    def _tier(self, tier: AppliedTier, direction: Direction, pod: Endpoint) -> Document:
        return {
            **_tier(tier.name, tier.order, tier.default_action),
            **({} if tier.enforced else {"onlyStaged": True}),
            "policies": [self._applied(applied, direction, pod) for applied in tier.policies],
        }

    def _applied(self, applied: AppliedPolicy, direction: Direction, pod: Endpoint) -> Document:
        policy = applied.policy
        counter = self._counts.get(pod.node)
        hits = _count(counter, policy, direction) if counter and not policy.staged else None
        document = {**_policy(policy), "rules": _rules(policy, direction)}
        document |= {} if applied.certain else {"certain": False, "doubt": applied.doubt}
        return {**document, **({"hits": {"node": pod.node, **hits}} if hits else {})}

    def _summary(self, policy: Policy) -> Document:
        selected = self._intent.applicability.selected_by(policy)
        certain = sum(sure for _, sure in selected)
        document = {**_policy(policy), "types": _types(policy), "endpoints": certain}
        if len(selected) > certain:
            document["perhaps"] = len(selected) - certain
        return {**document, **({"problem": policy.problem} if policy.problem else {})}


def _tier(name: str, order: float | None, default_action: str) -> Document:
    return {"tier": name, **({} if order is None else {"order": _number(order)}), "defaultAction": default_action}


def _number(order: float) -> float:
    return int(order) if order.is_integer() else order


def _policy(policy: Policy) -> Document:
    key = policy.key
    document: Document = {"kind": key.kind, **({"namespace": key.namespace} if key.namespace else {}), "name": key.name}
    document["tier"] = policy.tier
    if math.isfinite(policy.order):
        document["order"] = _number(policy.order)
    if policy.staged:
        document["stagedAction"] = policy.staged_action
    flags = {
        "applyOnForward": policy.apply_on_forward,
        "preDNAT": policy.pre_dnat,
        "doNotTrack": policy.do_not_track,
    }
    return {**document, **{name: True for name, given in flags.items() if given}}


def _types(policy: Policy) -> list[Direction]:
    return [way for way in DIRECTIONS if way in policy.types]


def _endpoint(endpoint: Endpoint) -> Document:
    if endpoint.kind == "pod":
        return {"kind": "Pod", "namespace": endpoint.namespace, "name": endpoint.name, "node": endpoint.node}
    return {"kind": "HostEndpoint", "name": endpoint.name, "node": endpoint.node, "interface": endpoint.interface}


def _rules(policy: Policy, direction: Direction) -> Sequence[Document]:
    source = policy.source
    return [
        {"index": index, "text": describe_rule(source, direction, index)}
        for index in range(rule_count(source, direction))
    ]


def _count(counter: PolicyCounts, policy: Policy, direction: Direction) -> Document | None:
    count = None if policy.staged else counter.count(policy.source, direction)
    if count is None:
        return None
    rules = [
        {**({} if rule.index is None else {"index": rule.index}), "action": rule.action, "count": rule.packets}
        for rule in count.rules
    ]
    return {"count": count.packets, "unit": count.unit, "rules": rules}
