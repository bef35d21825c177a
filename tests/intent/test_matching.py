from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from calico_debug.intent.applies import Applicability
from calico_debug.intent.convert import convert
from calico_debug.intent.matching import Doubts, Matching
from calico_debug.intent.model import PolicyFlow, Rule
from tests.intent.clusters import cluster, flow, network_set, policy, service

SETS = (network_set("bad", ["198.51.100.0/24", "2001:db8::/32"], threat="yes"),)
SERVICES = (service("api", ("10.0.0.2", 8080)),)


def matches(
    rule: dict[str, Any], given: PolicyFlow, namespace: str = "", source_doubt: str = "", **more: Any
) -> bool | list[str]:
    """The answer, or why there is none."""
    kind = "NetworkPolicy" if namespace else "GlobalNetworkPolicy"
    made = policy(kind, "p", namespace, ingress=[{"action": "Allow", **rule}])
    applicability = Applicability(cluster(made, **{"network_sets": SETS, "services": SERVICES, **more}))
    doubts: Doubts = {}
    answer = Matching(applicability).matches(applicability.policies[0].ingress[0], given, doubts, source_doubt)
    return list(doubts) if answer is None else answer


WEB_DB = flow("web", "db", 8080)


@pytest.mark.parametrize(
    ("rule", "given", "answer"),
    [
        ({}, WEB_DB, True),
        ({"protocol": "TCP"}, WEB_DB, True),
        ({"protocol": 17}, WEB_DB, False),
        ({"notProtocol": "TCP"}, WEB_DB, False),
        ({"notProtocol": "UDP"}, WEB_DB, True),
        ({"ipVersion": 6}, WEB_DB, False),
        ({"ipVersion": 6}, flow("fd00::1", "fd00::2"), True),
        ({"source": {"nets": ["10.0.0.0/8"]}}, WEB_DB, True),
        ({"source": {"nets": ["fd00::/8"]}}, WEB_DB, False),
        ({"source": {"notNets": ["10.0.0.2/32"]}}, WEB_DB, True),
        ({"source": {"notNets": ["10.0.0.0/8"]}}, WEB_DB, False),
        ({"source": {"notNets": ["fd00::/8"]}}, WEB_DB, False),
        ({"source": {"selector": "app == 'web'"}, "destination": {"selector": "app == 'db'"}}, WEB_DB, True),
        ({"source": {"selector": "app == 'db'"}}, WEB_DB, False),
        ({"source": {"notSelector": "app == 'web'"}}, WEB_DB, False),
        ({"source": {"notSelector": "app == 'db'"}}, WEB_DB, True),
        ({"source": {"selector": "threat == 'yes'"}}, flow("198.51.100.7", "db"), True),
        ({"source": {"selector": "threat == 'yes'"}}, flow("2001:db8::7", "fd00::2"), True),
        ({"source": {"selector": "all()"}}, flow("192.0.2.1", "db"), False),
        ({"source": {"notSelector": "all()"}}, flow("192.0.2.1", "db"), True),
        ({"source": {"namespaceSelector": "team == 'a'"}}, WEB_DB, True),
        ({"source": {"namespaceSelector": "global()"}}, WEB_DB, False),
        ({"source": {"namespaceSelector": "global()"}}, flow("198.51.100.7", "db"), True),
        ({"source": {"serviceAccounts": {"names": ["web"]}}}, WEB_DB, True),
        ({"source": {"serviceAccounts": {"selector": "level == 'high'"}}}, WEB_DB, True),
        ({"source": {"serviceAccounts": {"selector": "level == 'high'", "names": ["x"]}}}, WEB_DB, False),
        ({"protocol": "TCP", "destination": {"ports": [80, "8000:8100"]}}, WEB_DB, True),
        ({"protocol": "TCP", "destination": {"ports": [80]}}, WEB_DB, False),
        ({"protocol": "TCP", "destination": {"notPorts": [8080]}}, WEB_DB, False),
        ({"protocol": "TCP", "source": {"ports": [40000]}}, WEB_DB, True),
        ({"destination": {"ports": [80]}}, flow("web", "db", None, 1, icmp=(8, 0)), False),
        ({"destination": {"notPorts": [80]}}, flow("web", "db", None, 1, icmp=(8, 0)), True),
        ({"protocol": "TCP", "destination": {"ports": ["http"]}}, WEB_DB, True),
        ({"protocol": "TCP", "destination": {"ports": ["http"]}}, flow("web", "db", 80), False),
        ({"protocol": "TCP", "destination": {"ports": ["http", 80]}}, flow("web", "db", 80), True),
        ({"protocol": "TCP", "destination": {"notPorts": ["http"]}}, WEB_DB, False),
        ({"protocol": "TCP", "destination": {"ports": ["http"], "selector": "app == 'db'"}}, WEB_DB, True),
        ({"protocol": "TCP", "destination": {"ports": ["http"], "selector": "app == 'web'"}}, WEB_DB, False),
        ({"protocol": "TCP", "destination": {"ports": ["http"]}}, flow("web", "192.0.2.1", 8080), False),
        ({"protocol": "ICMP", "icmp": {"type": 8}}, flow("web", "db", None, 1, icmp=(8, 0)), True),
        ({"protocol": "ICMP", "icmp": {"type": 8, "code": 1}}, flow("web", "db", None, 1, icmp=(8, 0)), False),
        ({"protocol": "ICMP", "notICMP": {"type": 8, "code": 1}}, flow("web", "db", None, 1, icmp=(8, 0)), True),
        ({"protocol": "ICMP", "notICMP": {"type": 8}}, flow("web", "db", None, 1, icmp=(8, 0)), False),
        ({"destination": {"services": {"name": "api", "namespace": "shop"}}}, WEB_DB, True),
        ({"destination": {"services": {"name": "api", "namespace": "shop"}}}, flow("web", "db", 80), False),
        ({"destination": {"services": {"name": "api", "namespace": "shop"}}}, flow("web", "db", None, 1), False),
        ({"destination": {"services": {"name": "api", "namespace": "shop"}}}, flow("web", "db", 8080, 17), False),
        ({"destination": {"services": {"name": "none", "namespace": "shop"}}}, WEB_DB, False),
        ({"source": {"services": {"name": "api", "namespace": "shop"}}}, flow("db", "web", 1), True),
        ({"source": {"services": {"name": "api", "namespace": "shop"}}}, WEB_DB, False),
        ({"http": {"methods": ["GET"]}}, WEB_DB, True),
    ],
)
def test_clauses(rule: dict[str, Any], given: PolicyFlow, answer: bool) -> None:
    assert matches(rule, given) is answer


def test_namespaced_rules_see_their_own_namespace() -> None:
    rule = {"source": {"selector": "has(app)"}}
    assert matches(rule, flow("web", "db"), "shop") is True
    assert matches(rule, flow("cli", "db"), "shop") is False
    negative = {"source": {"notSelector": "app == 'web'"}}
    assert matches(negative, flow("cli", "db"), "shop") is False
    assert matches(negative, flow("192.0.2.1", "db"), "shop") is False


@pytest.mark.parametrize(
    ("rule", "given", "doubt"),
    [
        ({"destination": {"ports": [80]}}, flow("web", "db", None), "the destination port is not given"),
        ({"source": {"ports": [80]}}, flow("web", "db", 80, source_port=None), "the source port is not given"),
        ({"icmp": {"type": 8}}, flow("web", "db", None, 1), "the ICMP type is not given"),
        ({"notICMP": {"type": 8}}, flow("web", "db", None, 1), "the ICMP type is not given"),
        (
            {"destination": {"services": {"name": "api", "namespace": "shop"}}},
            flow("web", "db", None),
            "the destination port is not given",
        ),
    ],
)
def test_what_the_flow_does_not_say(rule: dict[str, Any], given: PolicyFlow, doubt: str) -> None:
    assert matches(rule, given) == [doubt]
    assert matches({**rule, "protocol": "SCTP"}, given) is False  # another clause settles it


def test_what_evidence_does_not_have() -> None:
    rule = {"source": {"namespaceSelector": "team == 'a'"}}
    (doubt,) = as_list(matches(rule, WEB_DB, namespaces={}))
    assert "labels of namespaces" in doubt
    (doubt,) = as_list(
        matches({"destination": {"services": {"name": "api", "namespace": "shop"}}}, WEB_DB, services=())
    )
    assert doubt == "evidence does not have the backends of service shop/api"


def as_list(answer: bool | list[str]) -> list[str]:
    assert isinstance(answer, list)
    return answer


def test_doubt_of_the_source() -> None:
    assert matches({"source": {"selector": "app == 'web'"}}, WEB_DB, source_doubt="masquerading") == ["masquerading"]
    assert matches({"destination": {"ports": [8080]}}, WEB_DB, source_doubt="masquerading") is True
    other = {"source": {"selector": "app == 'web'"}, "destination": {"ports": [1]}}
    assert matches(other, WEB_DB, source_doubt="masquerading") is False


def test_rules_that_are_not_understood() -> None:
    applicability = Applicability(cluster())
    doubts: Doubts = {}
    assert Matching(applicability).matches(Rule(0, "Allow", problem="so odd"), WEB_DB, doubts) is None
    assert list(doubts) == ["a rule is not understood: so odd"]


def test_a_named_port_is_of_what_the_selector_selects() -> None:
    """As Felix has it: an address that only a network set brings in has no named ports, even if a pod has it too."""
    nets = (network_set("own", ["10.0.0.2/32"], kind="set"),)
    rule = {"protocol": "TCP", "destination": {"selector": "kind == 'set'", "ports": ["http"]}}
    assert matches(rule, WEB_DB, network_sets=nets) is False
    both = {"protocol": "TCP", "destination": {"selector": "kind == 'set'", "ports": ["http", 8080]}}
    assert matches(both, WEB_DB, network_sets=nets) is True


def test_ports_with_names_of_any_protocol() -> None:
    made = policy(
        "ClusterNetworkPolicy",
        "p",
        tier="Admin",
        priority=1,
        subject={"namespaces": {}},
        ingress=[{"action": "Accept", "from": [{"namespaces": {}}], "protocols": [{"destinationNamedPort": "http"}]}],
    )
    applicability = Applicability(cluster(made))
    (rule,) = convert(made).ingress
    assert Matching(applicability).matches(rule, WEB_DB, {}) is True
    assert Matching(applicability).matches(rule, flow("web", "db", 8080, 17), {}) is False
    assert ip_address("10.0.0.2") == WEB_DB.destination
