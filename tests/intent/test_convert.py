"""Conversions against those of Calico itself: ``conversions.json`` holds what its own code made of generated policies.

Made with libcalico-go/lib/backend/k8s/conversion and lib/backend/syncersv1/updateprocessors of v3.32.1: facts only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from calico_debug.intent.convert import convert
from calico_debug.intent.fields import PROTOCOLS, ports
from calico_debug.intent.model import DIRECTIONS, Rule, Side
from calico_debug.intent.selectors import Selector, parse
from calico_debug.model.cluster import PolicyObject
from tests.intent.clusters import policy

CASES = json.loads((Path(__file__).parent / "conversions.json").read_text())
ACTIONS = {"allow": "Allow", "deny": "Deny", "next-tier": "Pass", "log": "Log"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["kind"])
def test_as_calico_converts(case: Mapping[str, Any]) -> None:
    made = convert(policy(case["kind"], "p", case["namespace"], **case["spec"]))
    expected = case["converted"]
    assert made.problem == ""
    assert made.selector == parse(expected["selector"])
    assert made.order == (math.inf if expected["order"] is None else expected["order"])
    assert sorted(made.types) == sorted(expected["types"] or DIRECTIONS)
    for direction in DIRECTIONS:
        assert [shape(rule) for rule in made.rules(direction)] == [calicos(rule) for rule in expected[direction]]


Shape = tuple[object, ...]


def shape(rule: Rule) -> Shape:
    assert rule.problem == ""
    head = (rule.action, rule.ip_version, rule.protocol, rule.not_protocol, rule.icmp, rule.not_icmp)
    return *head, side(rule.source), side(rule.destination)


def side(one: Side) -> Shape:
    return (
        one.selector,
        one.not_selector,
        one.nets,
        one.not_nets,
        numbers(one.ports),
        set(one.named_ports),
        numbers(one.not_ports),
        set(one.not_named_ports),
        one.service,
    )


def numbers(ranges: Iterable[tuple[int, int]]) -> set[int]:
    """Calico joins ranges that touch; what they hold is the same."""
    return {number for first, last in ranges for number in range(first, last + 1)}


def calicos(rule: Mapping[str, Any]) -> Shape:
    by_name = {"icmp": 4, "icmpv6": 6}.get(str(rule.get("protocol")).lower(), 0)
    return (
        ACTIONS[rule["action"]],
        rule.get("ip_version") or by_name,
        number(rule.get("protocol")),
        number(rule.get("!protocol")),
        icmp(rule, ""),
        icmp(rule, "!"),
        calicos_side(rule, "src"),
        calicos_side(rule, "dst"),
    )


def number(protocol: int | str | None) -> int | None:
    return PROTOCOLS[protocol.lower()] if isinstance(protocol, str) else protocol


def icmp(rule: Mapping[str, Any], negated: str) -> tuple[int, int | None] | None:
    kind = rule.get(f"{negated}icmp_type")
    return None if kind is None else (kind, rule.get(f"{negated}icmp_code"))


def calicos_side(rule: Mapping[str, Any], which: str) -> Shape:
    found: list[object] = [selector(rule.get(f"{sign}{which}_selector")) for sign in ("", "!")]
    given = (rule.get(f"{sign}{which}_nets") or () for sign in ("", "!"))
    found += [tuple(ip_network(net, strict=False) for net in nets) for nets in given]
    for sign in ("", "!"):
        numeric, named = ports(rule.get(f"{sign}{which}_ports"))
        found += [numbers(numeric), set(named)]
    service = rule.get(f"{which}_service")
    return *found, (rule.get(f"{which}_service_ns"), service) if service else None


def selector(text: str | None) -> Selector | None:
    return parse(text) if text else None


def test_there_are_cases_of_every_kind() -> None:
    kinds = {case["kind"] for case in CASES}
    assert kinds == {"NetworkPolicy", "GlobalNetworkPolicy", "KubernetesNetworkPolicy", "ClusterNetworkPolicy"}
    assert len(CASES) == 48


def test_kinds_that_are_not_known() -> None:
    made = convert(PolicyObject("FuturePolicy", "shop", "p", "default", None, {}))
    assert made.selector is None
    assert made.problem == "policies of kind FuturePolicy are not known here"


def test_staged_kubernetes_policies_without_types() -> None:
    """Kubernetes' API server fills types in for its own; nobody does for Calico's staged form."""
    spec = {"podSelector": {}, "egress": [{}]}
    assert convert(policy("KubernetesNetworkPolicy", "p", "shop", **spec)).types == {"ingress", "egress"}
    assert convert(policy("StagedKubernetesNetworkPolicy", "p", "shop", **spec)).types == {"ingress"}
