"""The smallest edit of policies that gives a flow the wanted verdict, found by trying and evaluating."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal

from calico_debug.advice.edits import (
    CALICO_KINDS,
    CLUSTER_ALLOWS,
    KUBERNETES,
    Edit,
    Peer,
    additions,
    more_ports,
    new_denial,
)
from calico_debug.advice.flips import FlipCounter, Flips
from calico_debug.intent.convert import convert
from calico_debug.intent.decide import Intent
from calico_debug.intent.matching import Matching
from calico_debug.model.cluster import PolicyObject

if TYPE_CHECKING:
    from calico_debug.intent.evaluate import Decision
    from calico_debug.intent.flows import AskedFlow
    from calico_debug.intent.model import Policy, PolicyFlow
    from calico_debug.model.cluster import Cluster

Wanted = Literal["allowed", "denied"]

MOST_EDITS: Final = 6
"""Edits that a flow may need: at its two pods, at host endpoints, at each backend of a service."""

MOST_CANDIDATES: Final = 12
"""Edits that are tried at one place."""

DENIAL_ORDER: Final = 999.0
"""Before Kubernetes' policies, which are of order 1000 in tier default (libcalico-go/lib/backend/k8s/conversion)."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """Edits that together give the flow the wanted verdict, as evaluated; each with what else it would flip."""

    edits: tuple[Edit, ...]
    flips: tuple[Flips, ...]


def propose(intent: Intent, flows: Sequence[AskedFlow], wanted: Wanted) -> Proposal | None:
    """The smallest edits that give all the flows the wanted verdict; None if none of those that are tried do.

    At each place that decides otherwise, that edit is taken which flips the fewest other flows, then the simplest.
    """
    edits: list[Edit] = []
    changes: list[Flips] = []
    for _ in range(MOST_EDITS):
        decisions = [(asked, intent.decide(asked.flow, asked.via)) for asked in flows]
        asked, decision = next((one for one in decisions if one[1].verdict != wanted), (None, None))
        if asked is None or decision is None:
            return Proposal(tuple(edits), tuple(changes)) if edits else None
        if decision.verdict == "undetermined" or decision.decisive is None:
            return None
        stages = decision.stages if wanted == "denied" else (decision.decisive,)
        step = _best(intent, asked, stages, wanted)
        if step is None:
            return None
        edit, change, intent = step
        edits.append(edit)
        changes.append(change)
    return None


def _best(
    intent: Intent, asked: AskedFlow, stages: Sequence[Decision], wanted: Wanted
) -> tuple[Edit, Flips, Intent] | None:
    """The best edit at one of the places."""
    found = []
    counter = FlipCounter(intent, asked.flow)
    for place, stage in enumerate(stages):
        candidates = (
            _allowing(intent, stage, asked.flow) if wanted == "allowed" else _denying(intent, stage, asked.flow)
        )
        matching = Matching(intent.applicability)
        for number, edit in enumerate(islice(candidates, MOST_CANDIDATES)):
            # Quick to tell, other than what follows.
            rules = convert(edit.policy).rules(edit.direction)
            if not any(matching.matches(rule, asked.flow, {}) is not False for rule in rules):
                continue
            edited = Intent(_with(intent.cluster, edit), like=intent)
            if _helps(edited, asked, stage, wanted):
                change = counter.flips(edited, edit.policy, edit.direction)
                rank = (change.count is None, change.count or 0, _reach(edit, stage), edit.rank, place, number)
                found.append((rank, edit, change, edited))
    if not found:
        return None
    _, edit, change, edited = min(found, key=lambda one: one[0])
    return edit, change, edited


def _reach(edit: Edit, stage: Decision) -> int:
    """How far from the flow the policy is: its namespace's own, the one that decides, another one of the cluster."""
    if edit.policy.namespace:
        return 0
    return 1 if stage.policy is not None and edit.before is stage.policy.source else 2


def _allowing(intent: Intent, stage: Decision, flow: PolicyFlow) -> Iterator[Edit]:
    """Edits for a place that denies: rules at the end of a policy that is asked before, or in front of what denies."""
    peer = _peer(intent, stage, flow)
    for policy in _asked_before(intent, stage):
        if _is_editable(policy):
            yield from more_ports(policy.source, stage.direction, flow)
            yield from additions(policy.source, stage.direction, flow, peer, "Allow", None)
    # A policy for the whole cluster is touched only where it is the one that denies.
    if stage.policy is not None and stage.rule is not None and _is_editable(stage.policy, *CLUSTER_ALLOWS):
        yield from additions(stage.policy.source, stage.direction, flow, peer, "Allow", stage.rule.index)


def _asked_before(intent: Intent, stage: Decision) -> Sequence[Policy]:
    """The policies of the tier that do not match the flow, before the one that denies it or the tier's end."""
    if stage.reason == "end-of-tier" or stage.endpoint is None:
        return stage.selecting
    tiers = intent.applicability.tiers_of(stage.endpoint, stage.direction, stage.traffic)
    asked = [one.policy for tier in tiers if tier.name == stage.tier for one in tier.enforced]
    return asked[: asked.index(stage.policy)] if stage.policy in asked else ()


def _denying(intent: Intent, stage: Decision, flow: PolicyFlow) -> Iterator[Edit]:
    """Edits for a place that allows."""
    if stage.endpoint is None or stage.reason == "host-to-own-pod":
        return
    peer = _peer(intent, stage, flow)
    if stage.policy is not None and stage.rule is not None and stage.policy.key.kind in _DENYING:
        yield from additions(stage.policy.source, stage.direction, flow, peer, "Deny", stage.rule.index)
    elif stage.endpoint.kind == "pod":
        tiers = intent.applicability.tiers_of(stage.endpoint, stage.direction)
        default = next((tier for tier in tiers if tier.name == "default"), None)
        template = PolicyObject(
            "NetworkPolicy",
            stage.endpoint.namespace,
            f"deny-{stage.direction}-{stage.endpoint.name}"[:_LONGEST_NAME],
            "default",
            DENIAL_ORDER,
            {},
        )
        lets_others = default is None or not default.enforced
        yield from new_denial(template, stage.endpoint, stage.direction, flow, peer, lets_others=lets_others)


_LONGEST_NAME = 253
_DENYING: Final = CALICO_KINDS | CLUSTER_ALLOWS.keys()
"""Kinds of policies that can deny."""


def _is_editable(policy: Policy, *more: str) -> bool:
    return not policy.staged and not policy.problem and policy.key.kind in (*CALICO_KINDS, KUBERNETES, *more)


def _peer(intent: Intent, stage: Decision, flow: PolicyFlow) -> Peer:
    address = flow.destination if stage.direction == "egress" else flow.source
    return Peer(str(address), intent.applicability.owners.pod(address))


def _helps(edited: Intent, asked: AskedFlow, stage: Decision, wanted: Wanted) -> bool:
    """Whether the place decides as wanted now."""
    for one in edited.decide(asked.flow, asked.via).stages:
        if (one.direction, one.traffic, str(one.endpoint)) == (stage.direction, stage.traffic, str(stage.endpoint)):
            return one.verdict == wanted
    return False


def _with(cluster: Cluster, edit: Edit) -> Cluster:
    """The cluster with the edit made."""
    if edit.before is None:
        return replace(cluster, policies=(*cluster.policies, edit.policy))
    policies = [edit.policy if policy is edit.before else policy for policy in cluster.policies]
    return replace(cluster, policies=policies)
