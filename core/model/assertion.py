"""What somebody expects of a flow, and whether it is so."""

from __future__ import annotations

from dataclasses import dataclass

from calico_debug.model.explanation import FlowExplanation

EXPECTABLE = ("allowed", "denied", "rejected")
"""Verdicts that can be expected; several may be good enough."""

RESULTS = ("met", "not-met", "undetermined", "error")
"""How an expectation can turn out: "undetermined" when evidence does not settle it, "error" when it is no question."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """One entry of a file of assertions. ``line`` counts its lines from 1.

    ``source``, ``destination``, ``protocol`` and ``via`` are those of ``calico-debug trace``. ``verdicts`` are the ones
    that meet it. ``tier`` and ``policy`` ("ns/name", or "name" for one without a namespace) are to decide; "" for any.
    """

    line: int
    source: str
    destination: str
    verdicts: tuple[str, ...]
    protocol: str | None = None
    via: str | None = None
    tier: str = ""
    policy: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an expectation turned out. ``why`` is what the explanation does not say by itself: who was to decide and did
    not, or the error; else "".
    """

    expectation: Expectation
    result: str
    why: str = ""
    explanation: FlowExplanation | None = None
