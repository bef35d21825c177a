from __future__ import annotations

import pytest

from calico_debug.cli.render import words
from calico_debug.model.explanation import REASONS, Decision, Evidence, FlowEnd, PolicyRef, RuleRef, Step

POLICY = PolicyRef("NetworkPolicy", "p", "ns")


@pytest.mark.parametrize(
    ("ip", "port", "shown"),
    [
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", 0, "10.0.0.1:0"),
        ("fd00::1", None, "fd00::1"),
        ("fd00::1", 80, "[fd00::1]:80"),
    ],
)
def test_address(ip: str, port: int | None, shown: str) -> None:
    assert words.address(ip, port) == shown


@pytest.mark.parametrize(
    ("policy", "rule", "detail", "shown"),
    [
        (POLICY, RuleRef("Pass", 1), "", "NetworkPolicy ns/p, rule 1 (Pass)"),
        (POLICY, RuleRef("Pass", 1), "why", "NetworkPolicy ns/p, rule 1 (Pass): why"),
        (POLICY, RuleRef("Pass", 1), "NetworkPolicy ns/p, rule 1 passed", "NetworkPolicy ns/p, rule 1 passed"),
        (POLICY, RuleRef("Deny"), "", "NetworkPolicy ns/p, a rule (Deny)"),
        (POLICY, None, "", "NetworkPolicy ns/p"),
        (POLICY, None, "end of tier", "end of tier"),
        (PolicyRef("Profile", "kns.a"), None, "", "Profile kns.a"),
        (None, None, "", ""),
    ],
)
def test_step_text(policy: PolicyRef | None, rule: RuleRef | None, detail: str, shown: str) -> None:
    assert words.step_text(Step("n", "egress", "passed", detail, policy=policy, rule=rule)) == shown


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_has_words(reason: str) -> None:
    assert words.because(Decision("n", "nftables", reason)) == REASONS[reason]


def test_an_unknown_reason_is_shown_as_it_is() -> None:
    assert words.outcome("denied", Decision("n", "nftables", "new-reason")) == "DENIED on n: new-reason"


def test_the_end_of_a_tier_names_tier_and_policy() -> None:
    decision = Decision("n", "nftables", "end-of-tier", tier="t", policy=POLICY, detail="end of tier")
    assert words.because(decision) == "end of tier (tier t, NetworkPolicy ns/p)"


def test_evidence() -> None:
    assert words.evidence_text(None) == words.evidence_text(Evidence(comment="only a comment")) == ""
    evidence = Evidence("ip calico", "c", 0, "", "id", 1)
    assert words.evidence_text(evidence) == "table ip calico, chain c, handle 0, rule id id, counter at 1 packet"


def test_service_name() -> None:
    service = {"namespace": "ns", "name": "s"}
    assert words.service_name(FlowEnd("10.0.0.1", service={**service, "port": None})) == "ns/s"
    assert words.service_name(FlowEnd("10.0.0.1", service={**service, "port": 80})) == "ns/s:80"
    assert words.service_name(FlowEnd("10.0.0.1")) == ""
