"""Which policies apply to which endpoints, in the order of evaluation.

Order: felix/calc/policy_sorter.go (TierLess, PolKVLess of v3.32.1); what of a host endpoint's policies is for which
traffic: tierInfoToProtoTierInfo in felix/calc/event_sequencer.go; built-in tiers: libcalico-go/lib/names. Policies of a
tier with the same order are sorted as v3.32 does; earlier releases compare names with the namespace in front.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final, Literal

from calico_debug.intent.convert import convert
from calico_debug.intent.endpoints import Owners, endpoints, named, network_sets
from calico_debug.intent.model import Direction, Endpoint, LabelledNets, Policy, PolicyKey
from calico_debug.intent.selectors import Selector
from calico_debug.model.cluster import Cluster, Tier

BUILT_IN_TIERS: Final = (
    Tier("default", 1_000_000.0),
    Tier("kube-admin", 1_000.0, "Pass"),  # v3.32
    Tier("kube-baseline", 10_000_000.0, "Pass"),  # v3.32
    Tier("adminnetworkpolicy", 1_000.0, "Pass"),  # v3.29 to v3.31
    Tier("baselineadminnetworkpolicy", 10_000_000.0, "Pass"),  # v3.30, v3.31
)
"""Tiers that Calico makes itself; an object of the same name in evidence goes before."""

_BUILT_IN_NAMES: Final = frozenset(tier.name for tier in BUILT_IN_TIERS)

Traffic = Literal["normal", "forward", "pre-dnat", "untracked"]
"""What a host endpoint polices: its host's own traffic, what is forwarded, all before DNAT, all before conntrack.

Pods have normal traffic only.
"""

ALL_STAGED: Final = "all"


@dataclass(frozen=True, slots=True)
class AppliedPolicy:
    """A policy that selects an endpoint. Not ``certain`` where that cannot be told; ``doubt`` says why."""

    policy: Policy
    doubt: str = ""

    @property
    def certain(self) -> bool:
        """Whether it is known to select the endpoint."""
        return not self.doubt


@dataclass(frozen=True, slots=True)
class AppliedTier:
    """A tier with the policies that apply, in order, staged ones among them.

    ``default_action`` is Deny or Pass, and of no effect in a tier whose policies are all staged.
    """

    name: str
    order: float | None
    default_action: str
    policies: tuple[AppliedPolicy, ...]

    @property
    def enforced(self) -> tuple[AppliedPolicy, ...]:
        """The policies that are not staged."""
        return tuple(applied for applied in self.policies if not applied.policy.staged)


class Applicability:
    """Policies and endpoints of a cluster, and which go together. Each selector meets each set of labels once."""

    endpoints: tuple[Endpoint, ...]
    network_sets: tuple[LabelledNets, ...]
    owners: Owners
    tiers: tuple[tuple[Tier, tuple[Policy, ...]], ...]
    policies: tuple[Policy, ...]

    def __init__(
        self,
        cluster: Cluster,
        enforce_staged: Collection[PolicyKey] | Literal["all"] = (),
        like: Applicability | None = None,
    ) -> None:
        """Convert everything. ``enforce_staged`` are staged policies (their keys, or "all") to take as enforced.

        What ``like`` has made of the same objects, without enforcing anything, is taken from there.
        """
        self.cluster = cluster
        known = {id(policy.source): policy for policy in like.policies} if like is not None else {}
        if like is not None and _differ_in_policies_alone(cluster, like.cluster):
            self.endpoints, self.network_sets, self.owners = like.endpoints, like.network_sets, like.owners
        else:
            self.endpoints = endpoints(cluster)
            self.network_sets = network_sets(cluster)
            self.owners = Owners(self.endpoints, self.network_sets)
        policies = enforced([known.get(id(policy)) or convert(policy) for policy in cluster.policies], enforce_staged)
        self.tiers, self.policies = _sorted(policies, cluster.tiers)
        self._by_name = named(self.endpoints)
        self._looked_at = frozenset(label for one in self._selectors() for label in one.labels)
        self._classes: dict[object, int] = {}
        self._class: dict[Endpoint | LabelledNets, int] = {}
        self._answers: dict[str, dict[int, bool | None]] = {}
        self._selected: dict[int, Sequence[tuple[Tier, Sequence[AppliedPolicy]]]] = {}
        self._applied: dict[tuple[int, Direction, Traffic], tuple[AppliedTier, ...]] = {}

    # ------------------------------------------------------------------------------------------------ questions

    def pod(self, namespace: str, name: str) -> Endpoint | None:
        """The pod of that name, if policy applies to it."""
        return self._by_name.get(("pod", namespace, name))

    def host_endpoint(self, name: str) -> Endpoint | None:
        """The host endpoint of that name."""
        return self._by_name.get(("host", "", name))

    def policy(self, key: PolicyKey) -> Policy | None:
        """The policy with that key."""
        return next((policy for policy in self.policies if policy.key == key), None)

    def tiers_of(
        self, endpoint: Endpoint, direction: Direction, traffic: Traffic = "normal"
    ) -> tuple[AppliedTier, ...]:
        """The tiers with a policy for the endpoint and direction, and those policies, in the order of evaluation."""
        key = (self.class_of(endpoint), direction, traffic if endpoint.kind == "host" else "normal")
        known = self._applied.get(key)
        if known is None:
            known = self._applied[key] = self._tiers_of(endpoint, direction, key[2])
        return known

    def selected_by(self, policy: Policy) -> tuple[tuple[Endpoint, bool], ...]:
        """The endpoints that a policy selects, each with whether that is certain."""
        answers = ((endpoint, self.selects(policy, endpoint)) for endpoint in self.endpoints)
        return tuple((endpoint, answer is True) for endpoint, answer in answers if answer is not False)

    def selects(self, policy: Policy, endpoint: Endpoint) -> bool | None:
        """Whether the policy selects the endpoint; None if that cannot be told."""
        return None if policy.selector is None else self.matches(policy.selector, endpoint)

    def matches(self, selector: Selector, one: Endpoint | LabelledNets) -> bool | None:
        """Whether a selector selects an endpoint or network set; None if that hangs on labels that are not known."""
        answers = self._answers.setdefault(selector.text, {})
        group = self.class_of(one)
        if group not in answers:
            answers[group] = _evaluate(selector, one)
        return answers[group]

    def class_of(self, one: Endpoint | LabelledNets) -> int:
        """A number that endpoints share which no selector can tell apart."""
        known = self._class.get(one)
        if known is None:
            seen = frozenset(item for item in one.labels.items() if item[0] in self._looked_at)
            kind = one.kind if isinstance(one, Endpoint) else ""
            known = self._class[one] = self._classes.setdefault((seen, one.unknown, kind), len(self._classes))
        return known

    # ------------------------------------------------------------------------------------------------- internals

    def _selectors(self) -> Iterable[Selector]:
        for policy in self.policies:
            if policy.selector is not None:
                yield policy.selector
            for rule in (*policy.ingress, *policy.egress):
                for side in (rule.source, rule.destination):
                    yield from (one for one in (side.selector, side.not_selector) if one is not None)

    def _tiers_of(self, endpoint: Endpoint, direction: Direction, traffic: Traffic) -> tuple[AppliedTier, ...]:
        found = []
        for tier, selecting in self._selecting(endpoint):
            applied = tuple(
                one
                for one in selecting
                if direction in one.policy.types and (endpoint.kind == "pod" or traffic in traffic_of(one.policy))
            )
            if applied:
                found.append(AppliedTier(tier.name, tier.order, tier.default_action, applied))
        return tuple(found)

    def _selecting(self, endpoint: Endpoint) -> Sequence[tuple[Tier, Sequence[AppliedPolicy]]]:
        """The policies that select an endpoint, of either direction, by tier."""
        group = self.class_of(endpoint)
        if group not in self._selected:
            self._selected[group] = [
                (
                    tier,
                    [
                        AppliedPolicy(policy, self._doubt(policy, endpoint, answer))
                        for policy in policies
                        if (answer := self.selects(policy, endpoint)) is not False
                    ],
                )
                for tier, policies in self.tiers
            ]
        return self._selected[group]

    def _doubt(self, policy: Policy, endpoint: Endpoint, answer: bool | None) -> str:
        if answer is None:
            return policy.problem or f"it selects by {missing_labels(endpoint)}, which evidence does not have"
        if not self.cluster.tiers and policy.tier not in _BUILT_IN_NAMES:
            return f"evidence does not have tier {policy.tier}, so its place among the tiers is not known"
        return ""


def missing_labels(one: Endpoint | LabelledNets) -> str:
    """The labels that evidence does not have, in words; "" if it has them all."""
    names = {"pcns.": "labels of namespaces", "pcsa.": "labels of service accounts"}
    return " and ".join(names[prefix] for prefix in one.unknown)


def _evaluate(selector: Selector, one: Endpoint | LabelledNets) -> bool | None:
    if one.unknown and any(label.startswith(one.unknown) for label in selector.labels):
        return selector.evaluate_partly(one.labels, lambda label: label.startswith(one.unknown))
    return selector.evaluate(one.labels)


def traffic_of(policy: Policy) -> tuple[Traffic, ...]:
    """The traffic of a host endpoint that a policy is for."""
    if policy.do_not_track:
        return ("untracked",)
    if policy.pre_dnat:
        return ("pre-dnat",)
    return ("forward", "normal") if policy.apply_on_forward else ("normal",)


def enforced(policies: Sequence[Policy], which: Collection[PolicyKey] | Literal["all"]) -> list[Policy]:
    """The policies as they would be, were those staged ones enforced: replaced, added or deleted as each says."""
    staged = [policy for policy in policies if policy.staged and (which == ALL_STAGED or policy.key in which)]
    result = {policy.key: policy for policy in policies}
    for policy in staged:
        target = policy.key._replace(kind=policy.key.kind.removeprefix("Staged"))
        if policy.staged_action == "Delete":
            result.pop(target, None)
        elif policy.staged_action != "Ignore":
            del result[policy.key]
            result[target] = replace(policy, key=target, staged_action="")
    return list(result.values())


def _differ_in_policies_alone(one: Cluster, other: Cluster) -> bool:
    names = (field.name for field in fields(one) if field.name != "policies")
    return all(getattr(one, name) is getattr(other, name) for name in names)


_Sorted = tuple[tuple[tuple[Tier, tuple[Policy, ...]], ...], tuple[Policy, ...]]


def _sorted(policies: Iterable[Policy], tiers: Sequence[Tier]) -> _Sorted:
    """Tiers in order with their policies in order, and all policies in that order.

    A tier that a policy names and nobody has made comes behind all others, and denies at its end.
    """
    known = {tier.name: tier for tier in (*BUILT_IN_TIERS, *tiers)}
    members: dict[str, list[Policy]] = {name: [] for name in known}
    for policy in policies:
        members.setdefault(policy.tier, []).append(policy)

    def place(name: str) -> tuple[bool, float, str]:
        tier = known.get(name)
        return tier is None, math.inf if tier is None or tier.order is None else tier.order, name

    ordered = tuple(
        (known.get(name) or Tier(name, None), tuple(sorted(members[name], key=_place)))
        for name in sorted(members, key=place)
        if members[name]
    )
    return ordered, tuple(policy for _, inside in ordered for policy in inside)


def _place(policy: Policy) -> tuple[float, str]:
    key = policy.key
    kind = FELIX_KINDS.get(key.kind, key.kind)
    return policy.order, f"{key.name}/{key.namespace}/{kind}"


FELIX_KINDS: Final[Mapping[str, str]] = {"ClusterNetworkPolicy": "KubernetesClusterNetworkPolicy"}
"""Kinds that Felix calls otherwise, where that counts for the order."""
