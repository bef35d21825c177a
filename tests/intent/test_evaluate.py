from __future__ import annotations

from typing import Any

from calico_debug.intent.evaluate import Decision
from calico_debug.intent.model import Direction
from calico_debug.model.cluster import PolicyObject
from tests.intent.clusters import flow, intent, pod, policy

ALLOW, DENY, PASS, LOG = ({"action": action} for action in ("Allow", "Deny", "Pass", "Log"))
OPEN = {"destination": {"ports": [80]}}
"""A match that hangs on a port that a flow need not give."""


def gnp(name: str, *rules: dict[str, Any], tier: str = "default", **spec: Any) -> PolicyObject:
    return policy("GlobalNetworkPolicy", name, tier=tier, types=["Ingress"], ingress=list(rules), **spec)


def decide(*policies: PolicyObject, direction: Direction = "ingress", port: int | None = 80, **more: Any) -> Decision:
    made = intent(*policies, **more)
    web = made.applicability.pod("shop", "web")
    assert web is not None
    return made.pod_decision(web, direction, flow("cli", "web", port))


def told(decision: Decision) -> tuple[str, str, str, str, int | None]:
    policy = decision.policy.key.name if decision.policy else ""
    return decision.verdict, decision.reason, decision.tier, policy, decision.rule.index if decision.rule else None


def test_first_matching_rule_decides() -> None:
    other = {"action": "Deny", "protocol": "UDP"}
    assert told(decide(gnp("p", other, LOG, ALLOW, DENY))) == ("allowed", "rule", "default", "p", 2)
    assert told(decide(gnp("p", other, DENY, ALLOW))) == ("denied", "rule", "default", "p", 1)


def test_end_of_tier() -> None:
    decision = decide(gnp("p"), gnp("q", {"action": "Allow", "protocol": "UDP"}))
    assert told(decision) == ("denied", "end-of-tier", "default", "", None)
    assert [one.key.name for one in decision.selecting] == ["p", "q"]


def test_tiers_that_pass() -> None:
    decision = decide(gnp("a", PASS, tier="early"), gnp("b", tier="passing"), gnp("c", ALLOW))
    assert told(decision) == ("allowed", "rule", "default", "c", 0)
    assert [(one.tier, one.policy.key.name if one.policy else "") for one in decision.passed] == [
        ("early", "a"),
        ("passing", ""),
    ]


def test_profiles() -> None:
    assert told(decide()) == ("allowed", "profile", "", "", None)
    assert told(decide(gnp("a", PASS))) == ("allowed", "profile", "", "", None)
    assert told(decide(gnp("a"), direction="egress")) == ("allowed", "profile", "", "", None)


def test_staged_policies_decide_nothing() -> None:
    staged = policy("StagedGlobalNetworkPolicy", "s", types=["Ingress"], ingress=[DENY])
    assert told(decide(staged)) == ("allowed", "profile", "", "", None)
    assert decide(staged).passed == ()


def test_doubtful_rules_that_do_not_matter() -> None:
    decision = decide(gnp("p", {**DENY, **OPEN}, DENY), port=None)
    assert told(decision) == ("denied", "rule", "default", "p", 1)
    assert decision.doubts == ("the destination port is not given",)
    assert decide(gnp("p", {**ALLOW, **OPEN}, ALLOW), port=None).verdict == "allowed"


def test_doubtful_rules_that_matter() -> None:
    decision = decide(gnp("p", {**ALLOW, **OPEN}), port=None)
    assert (decision.verdict, decision.reason) == ("undetermined", "not-understood")
    assert decision.doubts == ("the destination port is not given",)
    assert [told(one)[:2] for one in decision.possible] == [("allowed", "rule"), ("denied", "end-of-tier")]
    passing = decide(gnp("p", {**PASS, **OPEN}, DENY, tier="early"), port=None)
    assert [told(one)[:2] for one in passing.possible] == [("allowed", "profile"), ("denied", "rule")]


def test_doubts_behind_a_decision_are_not_told() -> None:
    assert decide(gnp("p", ALLOW, {**DENY, **OPEN}), port=None).doubts == ()


def test_policies_that_may_apply() -> None:
    unknown = gnp("u", ALLOW, namespaceSelector="team == 'a'")
    decision = decide(unknown, namespaces={})
    # without it, or with it: allowed both ways
    assert (decision.verdict, len(decision.doubts)) == ("allowed", 1)
    denying = decide(gnp("u", DENY, namespaceSelector="team == 'a'"), namespaces={})
    assert denying.verdict == "undetermined"
    assert "evidence does not have" in denying.doubts[0]
    ending = decide(gnp("u", namespaceSelector="team == 'a'"), namespaces={})
    assert [told(one)[:2] for one in ending.possible] == [("denied", "end-of-tier"), ("allowed", "profile")]
    certain = decide(gnp("u", namespaceSelector="team == 'a'"), gnp("v"), namespaces={})
    assert told(certain) == ("denied", "end-of-tier", "default", "", None)


def test_rules_that_are_not_understood() -> None:
    assert decide(gnp("p", {"action": "Allow", "odd": 1}, DENY)).verdict == "undetermined"
    assert decide(gnp("p", {"action": "Deny", "odd": 1}, DENY)).verdict == "denied"


def test_many_doubts_stay_few_outcomes() -> None:
    tiers = [
        gnp(f"p{number}", *[{**PASS, **OPEN}] * 20, tier=("early", "passing", "default")[number % 3])
        for number in range(60)
    ]
    decision = decide(*tiers, port=None)
    assert decision.verdict == "undetermined"
    assert len(decision.possible) < 300


def test_pods_of_no_account() -> None:
    lone = pod("shop/web", 1, account="")
    assert decide(pods=(lone,)).verdict == "allowed"
