"""One answer from many walks: what the alternatives of one flow amount to together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.model.explanation import Decision, Finding
from calico_debug.walk.choices import Kind, in_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.explain.narrative import Narrative
    from calico_debug.model.explanation import BackendOutcome
    from calico_debug.walk.choices import Choice
    from calico_debug.walk.journey import Journey

MAX_ALTERNATIVES = 256
"""Combinations of open questions that are followed: enough for a service with that many backends."""


@dataclass(frozen=True, slots=True)
class Told:
    """One alternative: what it amounts to, and the choices that led there, but for backends that the kernel picks."""

    narrative: Narrative
    journey: Journey
    kinds: frozenset[Kind]
    choices: tuple[Choice, ...]


def combine(told: Sequence[Told]) -> tuple[str, Decision | None, list[Finding]]:
    """One verdict for all alternatives; different ones are undetermined, with the questions they depend on."""
    first = told[0].narrative
    verdicts = dict.fromkeys(alternative.narrative.verdict for alternative in told)
    complete = len(told) <= MAX_ALTERNATIVES
    if len(verdicts) == 1 and complete:
        return first.verdict, first.decision, _other_deciders(told)
    node = first.decision.node if first.decision else ""
    questions = in_words(choice for alternative in told for choice in alternative.choices)
    kinds = frozenset(kind for alternative in told for kind in alternative.kinds)
    if not complete:
        detail = f"more than {MAX_ALTERNATIVES} alternatives are open"
    elif questions:
        detail = f"it depends: {'; '.join(questions)}"
    else:
        detail = "the kernel picks a backend at random, and the outcome depends on which"
    reason = "not-understood" if Kind.UNKNOWN in kinds else "alternatives"
    findings = [Finding("depends-on", "warning", question) for question in questions]
    dataplane = first.decision.dataplane if first.decision else ""
    return "undetermined", Decision(node, dataplane, reason, detail=detail), findings


def _other_deciders(told: Sequence[Told]) -> list[Finding]:
    """The verdict is certain, but what makes it may not be: the open questions that choose between decisions."""
    if all(alternative.narrative.decision == told[0].narrative.decision for alternative in told):
        return []
    return [
        Finding("depends-on", "info", f"the verdict is certain, which rule decides is not: {question}")
        for question in in_words(choice for alternative in told for choice in alternative.choices)
    ]


def disagreement(backends: Sequence[BackendOutcome]) -> Finding:
    """What to say of backends with different verdicts."""
    each = ", ".join(f"{backend.ip}:{backend.port} {backend.verdict}" for backend in backends)
    return Finding("backends-differ", "warning", f"the outcome depends on the backend that the kernel picks: {each}")


def outlived(verdict: str) -> Finding:
    """What to say of a connection of which a new one would have this other verdict."""
    return Finding(
        "outlived-policy",
        "warning",
        f"this connection goes on because conntrack knows it; a new one between the same ends would be {verdict}",
    )
