"""One answer from several walks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from calico_debug.explain.alternatives import MAX_ALTERNATIVES, Told, combine, disagreement, outlived
from calico_debug.explain.narrative import Narrative
from calico_debug.model.explanation import BackendOutcome, Decision
from calico_debug.walk.choices import Choice, Kind
from calico_debug.walk.journey import Journey

AT_RANDOM = "the kernel picks a backend at random, and the outcome depends on which"


def one(verdict: str, *kinds: Kind, questions: tuple[str, ...] = ()) -> Told:
    narrative = Narrative(verdict, Decision("n1", "nftables", "rule"))
    choices = tuple(Choice(Kind.UNKNOWN, question, 2, 0) for question in questions)
    return Told(narrative, Journey(), frozenset(kinds), choices)


def test_alternatives_that_agree_are_one_answer() -> None:
    first = one("denied", Kind.BACKEND)
    assert combine([first, one("denied", Kind.UNKNOWN, questions=("why",))]) == ("denied", first.narrative.decision, [])


@pytest.mark.parametrize(
    ("kinds", "questions", "reason", "detail"),
    [
        ((Kind.UNKNOWN,), ("a", "b"), "not-understood", "it depends: a; b"),
        ((Kind.RATE,), ("a",), "alternatives", "it depends: a"),
        (
            (Kind.BACKEND,),
            (),
            "alternatives",
            "the kernel picks a backend at random, and the outcome depends on which",
        ),
    ],
)
def test_alternatives_that_differ(
    kinds: tuple[Kind, ...], questions: tuple[str, ...], reason: str, detail: str
) -> None:
    verdict, decision, findings = combine(
        [one("denied", questions=questions), one("allowed", *kinds, questions=questions)]
    )
    assert decision is not None
    assert (verdict, decision.reason, decision.detail, decision.node) == ("undetermined", reason, detail, "n1")
    assert [finding.message for finding in findings] == list(questions)


def test_the_decision_may_depend_where_the_verdict_does_not() -> None:
    other = replace(
        one("denied", Kind.UNKNOWN, questions=("why",)), narrative=Narrative("denied", Decision("n1", "x", "profile"))
    )
    verdict, decision, findings = combine([one("denied"), other])
    assert (verdict, decision) == ("denied", one("denied").narrative.decision)
    assert [(f.code, f.severity) for f in findings] == [("depends-on", "info")]
    assert findings[0].message == "the verdict is certain, which rule decides is not: why"


def test_too_many_alternatives_are_no_answer() -> None:
    assert combine([one("denied")] * MAX_ALTERNATIVES)[0] == "denied"
    verdict, decision, _ = combine([one("denied")] * (MAX_ALTERNATIVES + 1))
    assert decision is not None
    assert (verdict, decision.detail) == ("undetermined", f"more than {MAX_ALTERNATIVES} alternatives are open")


def test_findings() -> None:
    backends = (BackendOutcome("10.0.0.1", 80, "allowed"), BackendOutcome("10.0.0.2", 80, "denied"))
    assert disagreement(backends).message.endswith("10.0.0.1:80 allowed, 10.0.0.2:80 denied")
    assert outlived("denied").message.endswith("would be denied")
