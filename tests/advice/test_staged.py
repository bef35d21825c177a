"""Staged policies: exactly what enforcing each of them changes between pods."""

from __future__ import annotations

import pytest

from calico_debug.advice.staged import Effect, Ports, StagedEffects, staged_effects
from calico_debug.intent.decide import Intent
from calico_debug.intent.model import PolicyKey
from calico_debug.model.cluster import PolicyObject
from tests.advice.clusters import calico, cluster


def staged(name: str, action: str = "Set", **spec: object) -> PolicyObject:
    order = {"selector": "all()", "order": 10, "stagedAction": action}
    return PolicyObject("StagedNetworkPolicy", "a", name, "default", 10.0, {**order, **spec})


def effects(*policies: PolicyObject) -> list[StagedEffects]:
    return list(staged_effects(Intent(cluster(*policies))))


LOCK = staged(
    "lock", types=["Ingress"], ingress=[{"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}}]
)


def test_an_isolation_that_is_new() -> None:
    (one,) = effects(LOCK)
    assert (one.policy, one.action, one.endpoints) == (PolicyKey("StagedNetworkPolicy", "a", "lock"), "Set", 2)
    (effect,) = one.effects
    assert (effect.version, effect.was, effect.becomes) == (4, "allowed", "denied")
    # To each of two pods from the four others.
    assert effect.count == 8
    assert effect.services == (Ports(1), Ports(6, (80,), but=True), Ports(17, (), but=True))
    assert len(effect.examples) == 3


def test_services_in_words() -> None:
    assert [str(ports) for ports in (Ports(1), Ports(6, (80,)), Ports(17, (53, 80)))] == [
        "icmp",
        "tcp port 80",
        "udp ports 53, 80",
    ]
    assert [str(Ports(6, listed, but=True)) for listed in ((), (80, 443))] == [
        "tcp, all ports",
        "tcp, all ports but 80, 443",
    ]


def test_nothing_changes_where_the_policy_is_enforced_already() -> None:
    enforced = calico("a", "lock", 10, **{key: LOCK.spec[key] for key in ("types", "ingress")})
    (one,) = effects(LOCK, enforced)
    assert one.effects == ()


def test_a_deletion_that_is_staged_opens() -> None:
    (one,) = effects(staged("shut", "Delete", types=["Ingress"]), calico("a", "shut", 10, types=["Ingress"]))
    (effect,) = one.effects
    assert (effect.was, effect.becomes, effect.count) == ("denied", "allowed", 8)
    assert effect.services == (Ports(1), Ports(6, (), but=True), Ports(17, (), but=True))


def test_what_is_to_be_ignored_is() -> None:
    (one,) = effects(staged("lock", "Ignore", types=["Ingress"]))
    assert (one.action, one.effects) == ("Ignore", ())


def test_one_that_cannot_be_read_says_so() -> None:
    (one,) = effects(staged("odd", selector="!!"))
    assert one.problem
    assert one.effects == ()


def test_only_those_that_are_asked_for() -> None:
    intent = Intent(cluster(LOCK, staged("other")))
    assert len(list(staged_effects(intent))) == 2
    assert [one.policy.name for one in staged_effects(intent, [PolicyKey("StagedNetworkPolicy", "a", "other")])] == [
        "other"
    ]


def test_too_many_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calico_debug.advice.staged.MOST_PODS", 3)
    (one,) = effects(LOCK)
    assert one.problem == "there are more than 3 pods, pairs of them are not compared"


def test_documents() -> None:
    effect = Effect(6, "allowed", "denied", (Ports(58), Ports(6, (80,), but=True)), 1, (("a/b", "c/d"),))
    one = StagedEffects(PolicyKey("StagedGlobalNetworkPolicy", "", "g"), "Set", 1, (effect,))
    assert one.to_dict() == {
        "apiVersion": "calico-debug/v1",
        "kind": "StagedEffect",
        "policy": {"kind": "StagedGlobalNetworkPolicy", "name": "g"},
        "stagedAction": "Set",
        "endpoints": 1,
        "effects": [
            {
                "ipVersion": 6,
                "services": [{"protocol": "icmpv6"}, {"protocol": "tcp", "allPortsBut": [80]}],
                "was": "allowed",
                "becomes": "denied",
                "pairs": 1,
                "examples": [["a/b", "c/d"]],
            }
        ],
    }
