"""The rule that came closest, by the objects."""

from __future__ import annotations

from calico_debug.intent.nearest import nearest_rule
from tests.intent.clusters import flow, intent, policy

FAR = {"action": "Allow", "protocol": "UDP", "source": {"selector": "app == 'cli'"}, "destination": {"ports": [53]}}
NEAR = {"action": "Allow", "protocol": "TCP", "source": {"selector": "app == 'web'"}, "destination": {"ports": [8080]}}


def near(*rules: dict[str, object]) -> tuple[str, int] | None:
    made = intent(policy("GlobalNetworkPolicy", "db", types=["Ingress"], selector="app == 'db'", ingress=list(rules)))
    asked = flow("web", "db", 80)
    decision = made.decide(asked).decisive
    assert decision is not None
    assert decision.reason == "end-of-tier"
    found = nearest_rule(made.matching, decision, asked)
    return found and (found[0].key.name, found[1].index)


def test_the_fewest_clauses_that_fail() -> None:
    assert near(FAR, NEAR) == ("db", 1)
    assert near(NEAR, FAR) == ("db", 0)
    assert near(NEAR, NEAR) == ("db", 0)


def test_only_rules_that_allow() -> None:
    assert near({**NEAR, "action": "Deny"}, {**NEAR, "action": "Pass"}) is None
    assert near() is None
