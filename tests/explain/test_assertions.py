"""What meets an expectation and what does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from calico_debug.explain.assertions import judge, worst
from calico_debug.model.assertion import Expectation, Outcome
from calico_debug.model.explanation import BackendOutcome, Decision
from tests.cli.samples import CLIENT_EGRESS, MANAGEMENT, QUARANTINE, SAMPLES

DENIED, ALLOWED = SAMPLES["denied_end_of_tier"], SAMPLES["allowed_same_node"]
BACKENDS = SAMPLES["undetermined_backends"]


def expect(*verdicts: str, tier: str = "", policy: str = "") -> Expectation:
    return Expectation(1, "a", "b", verdicts, tier=tier, policy=policy)


@pytest.mark.parametrize(
    ("wanted", "result"),
    [
        (expect("denied"), "met"),
        (expect("rejected", "denied"), "met"),
        (expect("denied", tier="platform"), "met"),
        (expect("allowed"), "not-met"),
        (expect("rejected"), "not-met"),
        (expect("denied", tier="security"), "not-met"),
    ],
)
def test_a_denied_flow(wanted: Expectation, result: str) -> None:
    assert judge(wanted, DENIED).result == result


def test_who_was_to_decide_and_who_did() -> None:
    why = judge(expect("denied", tier="security", policy="x/y"), DENIED).why
    assert why.startswith("tier security, policy x/y was to decide, and it was tier platform")


def test_an_allowed_flow_was_allowed_at_both_ends() -> None:
    names = {
        f"{step.policy.namespace}/{step.policy.name}" if step.policy.namespace else step.policy.name
        for step in ALLOWED.steps
        if step.policy is not None and step.action == "allowed"
    }
    assert names
    for name in names:
        assert judge(expect("allowed", policy=name), ALLOWED).result == "met"
    assert judge(expect("allowed", policy="other"), ALLOWED).result == "not-met"


def test_what_would_have_happened_decides_nothing() -> None:
    assert any(step.hypothetical and step.policy == MANAGEMENT for step in DENIED.steps)
    assert judge(expect("denied", policy=MANAGEMENT.name), DENIED).result == "not-met"


def test_every_backend_must_meet_it() -> None:
    def backend(tier: str) -> BackendOutcome:
        return BackendOutcome("10.0.0.1", 1, "denied", decision=Decision("n", "nftables", "rule", tier=tier))

    same = replace(DENIED, backends=(backend("platform"), backend("platform")))
    other = replace(DENIED, backends=(backend("platform"), backend("security")))
    assert judge(expect("denied", tier="platform"), same).result == "met"
    assert judge(expect("denied", tier="platform"), other).result == "not-met"


def test_an_egress_policy_allows_to_every_backend() -> None:
    decision = Decision("n", "nftables", "rule", "ingress", "platform", QUARANTINE)
    backends = tuple(BackendOutcome(f"10.0.0.{n}", 1, "allowed", decision=decision) for n in (1, 2))
    flow = replace(ALLOWED, backends=backends)
    egress = next(s.policy for s in flow.steps if s.direction == "egress" and s.action == "allowed" and s.policy)
    assert egress is not None
    assert judge(expect("allowed", policy=egress.name), flow).result == "met"
    assert judge(expect("allowed", policy=QUARANTINE.name), flow).result == "met"
    assert judge(expect("allowed", policy=CLIENT_EGRESS.name + "x"), flow).result == "not-met"


def test_undetermined_is_neither() -> None:
    assert judge(expect("allowed"), BACKENDS).result == "undetermined"


@pytest.mark.parametrize(
    ("results", "whole"),
    [
        ((), "met"),
        (("met", "met"), "met"),
        (("met", "undetermined"), "undetermined"),
        (("undetermined", "not-met"), "not-met"),
        (("undetermined", "error"), "not-met"),
    ],
)
def test_the_worst_counts(results: tuple[str, ...], whole: str) -> None:
    assert worst(Outcome(expect("allowed"), result) for result in results) == whole
