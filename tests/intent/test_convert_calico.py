from __future__ import annotations

import math
from typing import Any

import pytest

from calico_debug.intent.convert import convert
from calico_debug.intent.model import Rule
from tests.intent.clusters import policy

NS = 'projectcalico.org/namespace == "shop"'


@pytest.mark.parametrize(
    ("kind", "namespace", "spec", "selector"),
    [
        ("NetworkPolicy", "shop", {}, NS),
        ("NetworkPolicy", "shop", {"selector": "a == 'b'"}, f'(a == "b" && {NS})'),
        ("NetworkPolicy", "shop", {"selector": "a == 'b' || has(c)"}, f'((a == "b" || has(c)) && {NS})'),
        (
            "NetworkPolicy",
            "shop",
            {"selector": "all()", "serviceAccountSelector": "x == 'y' || has(z)"},
            f'((all() && {NS}) && (pcsa.x == "y" || has(pcsa.z)))',
        ),
        ("GlobalNetworkPolicy", "", {}, "all()"),
        ("GlobalNetworkPolicy", "", {"namespaceSelector": "all()"}, "has(projectcalico.org/namespace)"),
        (
            "GlobalNetworkPolicy",
            "",
            {"selector": "all()", "namespaceSelector": "team == 'a'"},
            '(has(projectcalico.org/namespace) && pcns.team == "a")',
        ),
        (
            "GlobalNetworkPolicy",
            "",
            {"selector": "a == 'b'", "serviceAccountSelector": "all()"},
            '(a == "b" && has(projectcalico.org/serviceaccount))',
        ),
    ],
)
def test_selectors_of_policies(kind: str, namespace: str, spec: dict[str, Any], selector: str) -> None:
    converted = convert(policy(kind, "p", namespace, **spec))
    assert converted.selector is not None
    assert converted.selector.text == selector
    assert converted.problem == ""


@pytest.mark.parametrize(
    ("namespace", "side", "selector"),
    [
        ("shop", {}, None),
        ("shop", {"nets": ["10.0.0.0/8"]}, None),
        ("shop", {"selector": "a == 'b'"}, f'({NS} && a == "b")'),
        ("shop", {"notSelector": "a == 'b'"}, NS),
        ("shop", {"namespaceSelector": "team == 'a'"}, 'pcns.team == "a"'),
        ("shop", {"namespaceSelector": "all()", "selector": "has(c)"}, "(has(projectcalico.org/namespace) && has(c))"),
        (
            "shop",
            {"namespaceSelector": "global()", "selector": "all()"},
            "(!has(projectcalico.org/namespace) && all())",
        ),
        (
            "shop",
            {"serviceAccounts": {"names": ["x", "a"]}},
            f'({NS} && projectcalico.org/serviceaccount in {{"a", "x"}})',
        ),
        (
            "",
            {"serviceAccounts": {"names": ["x"], "selector": "k == 'v'"}, "selector": "has(c)"},
            '((pcsa.k == "v" && projectcalico.org/serviceaccount in {"x"}) && has(c))',
        ),
        ("", {"selector": "a == 'b'"}, 'a == "b"'),
        ("", {"notSelector": "a == 'b'"}, None),
    ],
)
def test_selectors_of_rules(namespace: str, side: dict[str, Any], selector: str | None) -> None:
    kind = "NetworkPolicy" if namespace else "GlobalNetworkPolicy"
    rule = convert(policy(kind, "p", namespace, ingress=[{"action": "Allow", "source": side}])).ingress[0]
    assert rule.problem == ""
    assert (rule.source.selector.text if rule.source.selector else None) == selector


def test_clauses() -> None:
    given = {
        "action": "Pass",
        "protocol": "tcp",
        "notProtocol": 17,
        "icmp": {"type": 8, "code": 0},
        "notICMP": {"type": 3},
        "source": {"nets": ["10.0.0.1"], "notNets": ["fd00::/8"], "ports": [80, "90:99", "http"], "notPorts": ["53"]},
        "destination": {"services": {"name": "s", "namespace": "bank"}},
        "http": {"methods": ["GET"]},
        "metadata": {"annotations": {"name": "mine"}},
    }
    rule = convert(policy("GlobalNetworkPolicy", "p", ingress=[given])).ingress[0]
    assert (rule.action, rule.protocol, rule.not_protocol, rule.icmp, rule.not_icmp, rule.name, rule.problem) == (
        *("Pass", 6, 17, (8, 0), (3, None), "mine", ""),
    )
    source = rule.source
    assert [str(net) for net in (*source.nets, *source.not_nets)] == ["10.0.0.1/32", "fd00::/8"]
    assert (source.ports, source.named_ports, source.not_ports) == (((80, 80), (90, 99)), ("http",), ((53, 53),))
    assert rule.destination.service == ("bank", "s")


@pytest.mark.parametrize(
    ("rule", "version"),
    [({"protocol": "ICMP"}, 4), ({"protocol": "ICMPv6"}, 6), ({"protocol": 58}, 0), ({"ipVersion": 6}, 6), ({}, 0)],
)
def test_families_of_rules(rule: dict[str, Any], version: int) -> None:
    assert (
        convert(policy("GlobalNetworkPolicy", "p", egress=[{"action": "Deny", **rule}])).egress[0].ip_version == version
    )


@pytest.mark.parametrize(
    "rule",
    [
        {},
        "nonsense",
        {"action": "Drop"},
        {"action": "Allow", "protocol": "tpc"},
        {"action": "Allow", "ipVersion": 5},
        {"action": "Allow", "source": {"nets": ["10.0.0.0/33"]}},
        {"action": "Allow", "source": {"ports": ["9:1"]}},
        {"action": "Allow", "source": {"ports": [{}]}},
        {"action": "Allow", "source": {"selector": "a ="}},
        {"action": "Allow", "source": {"selector": "has(a)) || (has(b)"}},
        {"action": "Allow", "source": {"serviceAccounts": {"names": ["it's"]}}},
        {"action": "Allow", "source": {"domains": ["example.com"]}},
        {"action": "Allow", "source": []},
        {"action": "Allow", "icmp": {"type": 999}},
        {"action": "Allow", "newField": 1},
    ],
)
def test_what_is_not_understood_stays_visible(rule: Any) -> None:
    converted = convert(policy("GlobalNetworkPolicy", "p", ingress=[{"action": "Allow"}, rule]))
    assert converted.ingress[0] == Rule(0, "Allow")
    assert converted.ingress[1].problem
    assert converted.problem == ""


def test_policies_that_are_not_understood() -> None:
    for spec in ({"selector": "(("}, {"namespaceSelector": "x"}, {"types": "Ingress"}):
        converted = convert(policy("GlobalNetworkPolicy", "p", **spec))
        assert converted.selector is None or spec.keys() == {"types"}
        assert converted.problem
    assert convert(policy("GlobalNetworkPolicy", "p", ingress={})).ingress[0].problem


def test_order_types_and_flags() -> None:
    plain = convert(policy("GlobalNetworkPolicy", "p"))
    assert (plain.order, plain.types, plain.staged) == (math.inf, {"ingress", "egress"}, False)
    spec = {"order": 5, "types": ["Egress"], "preDNAT": True, "applyOnForward": True, "doNotTrack": False}
    other = convert(policy("GlobalNetworkPolicy", "p", **spec))
    assert (other.order, other.types) == (5.0, {"egress"})
    assert (other.pre_dnat, other.apply_on_forward, other.do_not_track) == (True, True, False)


@pytest.mark.parametrize(
    ("spec", "action"),
    [
        ({}, "Set"),
        ({"stagedAction": "Delete"}, "Delete"),
        ({"stagedAction": "Learn"}, "Learn"),
        ({"stagedAction": "?"}, "Ignore"),
    ],
)
def test_staged_policies(spec: dict[str, Any], action: str) -> None:
    for kind in ("StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy"):
        namespace = "" if "Global" in kind else "shop"
        converted = convert(policy(kind, "p", namespace, **spec))
        assert (converted.staged, converted.staged_action) == (True, action)
