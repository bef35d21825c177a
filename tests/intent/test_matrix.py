"""Matrices; that they say what every single flow would get is held in test_generated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from calico_debug.intent.decide import Intent
from calico_debug.intent.matrix import Matrix, matrix
from tests.intent.clusters import PODS, intent, pod, policy

WEB_ONLY = {"action": "Allow", "protocol": "TCP", "source": {"selector": "app == 'web'"}}


def gnp(name: str, **spec: Any) -> Any:
    return policy("GlobalNetworkPolicy", name, **{"types": ["Ingress"], **spec})


def whole(made: Intent, protocol: int = 6, port: int | None = 80, version: int = 4) -> Matrix:
    pods = made.applicability.endpoints
    return matrix(made, pods, pods, protocol, port, version)


def test_rows_are_sources() -> None:
    made = whole(intent(gnp("db", selector="app == 'db'", ingress=[WEB_ONLY])))
    assert [one.name for one in made.sources] == ["web", "db", "cli"]
    assert made.rows == (
        ("allowed", "allowed", "allowed"),
        ("allowed", "denied", "allowed"),
        ("allowed", "denied", "allowed"),
    )


def test_equals_are_decided_once() -> None:
    replicas = tuple(pod(f"shop/web-{n}", n, app="web", unique=str(n)) for n in range(10, 60))
    made = whole(intent(gnp("web", selector="app == 'web'", ingress=[WEB_ONLY]), pods=(*PODS, *replicas)))
    assert len(made.rows) == 53
    assert made.groups < 8
    assert made.decisions < 16
    assert made.rows[3] is made.rows[52]


def test_pods_without_an_address_of_the_family_are_left_out() -> None:
    single = replace(PODS[0], addresses=PODS[0].addresses[:1])
    made = whole(intent(pods=(single, *PODS[1:])), version=6)
    assert [one.name for one in made.destinations] == ["db", "cli"]


def test_what_is_not_determined() -> None:
    open_rule = {"action": "Allow", "destination": {"ports": [80]}}
    made = intent(gnp("db", selector="app == 'db'", ingress=[open_rule]))
    assert whole(made, port=None).rows[0] == ("allowed", "undetermined", "allowed")
    assert whole(made, protocol=1, port=None).rows[0] == ("allowed", "denied", "allowed")


def test_rules_that_look_at_the_pod_itself() -> None:
    named = {"action": "Allow", "protocol": "TCP", "destination": {"ports": ["http"]}}
    other = replace(PODS[1], named_ports=(("TCP", "http", 9),))
    made = whole(intent(gnp("all", ingress=[named]), pods=(PODS[0], other)), port=8080)
    assert made.rows[0] == ("allowed", "denied")
