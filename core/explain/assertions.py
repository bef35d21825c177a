"""Whether an explanation is what was expected of the flow."""

from __future__ import annotations

from collections.abc import Iterable

from calico_debug.model.assertion import Expectation, Outcome
from calico_debug.model.explanation import Decision, FlowExplanation, PolicyRef, Step


def judge(expectation: Expectation, explanation: FlowExplanation) -> Outcome:
    """Compare. Of a flow that is allowed, each end has decided, so a policy of either meets the expectation.

    Of a service with several backends that is to hold for each of them.
    """
    verdict = explanation.verdict
    if verdict == "undetermined":
        return Outcome(expectation, "undetermined", "", explanation)
    if verdict not in expectation.verdicts:
        return Outcome(expectation, "not-met", "", explanation)
    if why := _who_else(expectation, explanation):
        return Outcome(expectation, "not-met", why, explanation)
    return Outcome(expectation, "met", "", explanation)


def worst(outcomes: Iterable[Outcome]) -> str:
    """ "not-met" if anything is not met or in error, else "undetermined" if anything is, else "met"."""
    results = {outcome.result for outcome in outcomes}
    if results & {"not-met", "error"}:
        return "not-met"
    return "undetermined" if "undetermined" in results else "met"


def _who_else(expectation: Expectation, explanation: FlowExplanation) -> str:
    """What tier and policy decided instead of those expected; "" when it was them."""
    if not expectation.tier and not expectation.policy:
        return ""
    for deciders in _deciders(explanation):
        if not any(_is_meant(expectation, decider) for decider in deciders):
            return f"{_wanted(expectation)} was to decide, and it was {_met(deciders)}"
    return ""


def _deciders(explanation: FlowExplanation) -> list[list[Decision | Step]]:
    """Who decided: one list for each backend, or one for all. Steps are those of the first backend."""
    allowed = [s for s in explanation.steps if s.action == "allowed" and not s.hypothetical]
    if explanation.verdict != "allowed":
        allowed = []
    if len(explanation.backends) > 1:
        leaving = [step for step in allowed if step.direction == "egress"]
        return [[*leaving, *([backend.decision] if backend.decision else [])] for backend in explanation.backends]
    if allowed:
        return [[*allowed]]
    return [[explanation.decision]] if explanation.decision else [[]]


def _is_meant(expectation: Expectation, decider: Decision | Step) -> bool:
    if expectation.tier and decider.tier != expectation.tier:
        return False
    return not expectation.policy or (decider.policy is not None and _name(decider.policy) == expectation.policy)


def _wanted(expectation: Expectation) -> str:
    parts = (("tier", expectation.tier), ("policy", expectation.policy))
    return ", ".join(f"{word} {name}" for word, name in parts if name)


def _met(deciders: list[Decision | Step]) -> str:
    found = []
    for decider in deciders:
        parts = (("tier", decider.tier), ("policy", _name(decider.policy) if decider.policy else ""))
        words = ", ".join(f"{word} {name}" for word, name in parts if name)
        found.append(words or (decider.reason if isinstance(decider, Decision) else decider.detail))
    return " and ".join(dict.fromkeys(found)) or "nobody's decision"


def _name(policy: PolicyRef) -> str:
    return f"{policy.namespace}/{policy.name}" if policy.namespace else policy.name
