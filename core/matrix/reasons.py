"""Reasons of cells: from an explanation, or from what the API's objects decide."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from calico_debug.explain.phrases import end_of_tier
from calico_debug.intent.model import DIRECTIONS
from calico_debug.intent.nearest import nearest_rule
from calico_debug.matrix.model import Reason
from calico_debug.model.explanation import Decision, FlowExplanation, PolicyRef, RuleRef, Step
from calico_debug.policy.wording import describe_rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.intent import evaluate
    from calico_debug.intent.matching import Matching
    from calico_debug.intent.model import PolicyFlow, PolicyKey
    from calico_debug.state.cluster import ClusterState

BY_POLICY: Final = frozenset({"rule", "end-of-tier", "profile", "no-profile", "no-policy"})
"""Reasons of decisions that are the same on every node."""


def of_explanation(explanation: FlowExplanation, cluster: ClusterState) -> Reason:
    """The reason of what a walk found."""
    verdict, decision = explanation.verdict, explanation.decision
    if verdict == "allowed":
        ends = tuple(_of_step(step) for step in explanation.steps if _lets_through(step))
        return Reason(verdict, ends or ((_anywhere(decision),) if decision else ()))
    near = next((step for step in explanation.steps if step.action == "closest" and not step.hypothetical), None)
    return Reason(verdict, (_anywhere(decision),) if decision else (), _closest_step(near, cluster) if near else "")


def _lets_through(step: Step) -> bool:
    """Whether the step is one end's decision, or a rule's of a host endpoint: those without a say are left out."""
    ended = step.action == "allowed" and not step.hypothetical and bool(step.direction)
    return ended and (step.stage in DIRECTIONS or step.rule is not None)


def _of_step(step: Step) -> Decision:
    if step.policy is not None and step.policy.kind == "Profile":
        return Decision("", "", "profile", step.direction)
    reason = "rule" if step.rule is not None else "no-policy"
    return Decision("", "", reason, step.direction, step.tier, step.policy, step.rule, step.detail)


def _anywhere(decision: Decision) -> Decision:
    """Without what tells one pod from its equals."""
    if decision.reason in BY_POLICY:
        return replace(decision, node="", dataplane="", evidence=None)
    return replace(decision, evidence=None)


def _closest_step(step: Step, cluster: ClusterState) -> str:
    """The rule alone: what kept it from matching names addresses, which differ from cell to cell."""
    if step.policy is None or step.rule is None or step.rule.index is None:
        return ""
    for policy in cluster.policies(step.policy.kind):
        if (policy.namespace, policy.name) == (step.policy.namespace, step.policy.name):
            rule = describe_rule(policy, step.direction, step.rule.index)
            return f"{_short(step.policy)}, rule {step.rule.index} ({rule})"
    return f"{_short(step.policy)}, rule {step.rule.index}"


def of_intent(decisions: Sequence[evaluate.Decision], matching: Matching, flow: PolicyFlow) -> Reason:
    """The reason of what policy decides at each place in turn: the first that denies, else the first that is open."""
    by_verdict = {one.verdict: one for one in reversed(decisions)}
    settling = by_verdict.get("denied") or by_verdict.get("undetermined")
    if settling is None:
        heard = [one for one in decisions if one.rule is not None or _is_pod(one)]
        return Reason("allowed", tuple(intent_decision(one) for one in heard))
    closest = ""
    if settling.reason == "end-of-tier" and (near := nearest_rule(matching, settling, flow)) is not None:
        policy, rule = near
        text = describe_rule(policy.source, settling.direction, rule.index)
        closest = f"{_short(policy_ref(policy.key))}, rule {rule.index} ({text})"
    return Reason(settling.verdict, (intent_decision(settling),), closest)


def intent_decision(one: evaluate.Decision) -> Decision:
    """What policy decides at one place, as an explanation's decision; without node, since no node was asked."""
    detail = "; ".join(one.doubts)
    if one.reason == "end-of-tier":
        detail = end_of_tier(one.traffic == "normal" and _is_pod(one), [policy_ref(p.key) for p in one.selecting])
    return Decision(
        node="",
        dataplane="",
        reason=one.reason,
        direction=one.direction,
        tier=one.tier,
        policy=policy_ref(one.policy.key) if one.policy is not None else None,
        rule=RuleRef(one.rule.action, one.rule.index) if one.rule is not None else None,
        detail=detail,
    )


def _is_pod(one: evaluate.Decision) -> bool:
    return one.endpoint is not None and one.endpoint.kind == "pod"


def policy_ref(key: PolicyKey) -> PolicyRef:
    """The policy's name as explanations have it."""
    return PolicyRef(key.kind, key.name, key.namespace)


def _short(policy: PolicyRef) -> str:
    return f"{policy.namespace}/{policy.name}" if policy.namespace else policy.name
