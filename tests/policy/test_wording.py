from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.policy.wording import clauses, describe_rule, rule_count
from tests.policy.objects import (
    CLIENT_EGRESS,
    CUSTOMER,
    DATABASE,
    DEFAULT_DENY,
    MANAGEMENT,
    NODE_INGRESS,
    QUARANTINE,
    RECORDED,
    STARS_BACKEND,
    SUMMARY,
    ingress,
    policy,
)


@pytest.mark.parametrize(
    ("object_", "direction", "index", "text"),
    [
        (CLIENT_EGRESS, "egress", 0, "Allow TCP to namespace stars, ports 80, 6379"),
        (
            STARS_BACKEND,
            "ingress",
            0,
            "Allow TCP from pods with role in {'frontend','client'} in any namespace to port 6379",
        ),
        (MANAGEMENT, "ingress", 0, "Allow TCP from namespaces stars, client, management-ui to port 9001"),
        (NODE_INGRESS, "ingress", 0, "Allow ICMP"),
        (NODE_INGRESS, "ingress", 1, "Allow all traffic from 172.30.0.0/28"),
        (NODE_INGRESS, "ingress", 2, "Deny all traffic"),
        (QUARANTINE, "ingress", 0, "Deny all traffic from pods with role == 'attacker' in any namespace"),
        (QUARANTINE, "egress", 0, "Deny all traffic to anything with threat == 'yes'"),
        (QUARANTINE, "egress", 1, "Pass all traffic"),
        (CUSTOMER, "egress", 0, "Allow TCP to pods with app == 'summary' in namespace yaobank, port http"),
        (CUSTOMER, "egress", 2, "Allow ICMP type 8 (echo request)"),
        (SUMMARY, "ingress", 0, "Allow TCP from pods with service account customer in namespace yaobank to port 80"),
        (SUMMARY, "egress", 0, "Allow TCP to service yaobank/database"),
        (DATABASE, "ingress", 0, "Allow TCP from pods with app == 'summary' in namespace yaobank to port 2379"),
        (DATABASE, "egress", 0, "Allow all traffic to 10.0.0.0/8 except 10.244.0.0/16"),
        (DEFAULT_DENY, "ingress", 0, "Log all traffic"),
        (DEFAULT_DENY, "ingress", 2, "ingress rule 2, which the object does not have"),
        (DEFAULT_DENY, "ingress", -1, "ingress rule -1, which the object does not have"),
    ],
)
def test_recorded_rules(object_: Any, direction: str, index: int, text: str) -> None:
    assert describe_rule(object_, direction, index) == text


@pytest.mark.parametrize(
    ("namespace", "rule", "text"),
    [
        ("a", {"source": {"selector": "all()"}}, "Allow all traffic from namespace a"),
        ("", {"source": {"selector": "all()"}}, "Allow all traffic from any endpoint or network set"),
        (
            "a",
            {"source": {"notSelector": "x == 'y'"}},
            "Allow all traffic from namespace a, not endpoints with x == 'y'",
        ),
        ("", {"source": {"namespaceSelector": "global()"}}, "Allow all traffic from no namespace"),
        ("", {"source": {"namespaceSelector": "has(projectcalico.org/name)"}}, "Allow all traffic from any namespace"),
        ("", {"source": {"namespaceSelector": "team == 'a'"}}, "Allow all traffic from namespaces with team == 'a'"),
        (
            "",
            {"source": {"selector": "a == 'b'", "namespaceSelector": 'projectcalico.org/name == "x"'}},
            "Allow all traffic from pods with a == 'b' in namespace x",
        ),
        (
            "",
            {"source": {"nets": ["10.0.0.0/8"], "notNets": ["10.1.0.0/16"], "ports": ["1024:65535"]}},
            "Allow all traffic from 10.0.0.0/8, not 10.1.0.0/16, source port 1024-65535",
        ),
        (
            "",
            {"protocol": "UDP", "destination": {"notPorts": [53], "selector": "a == 'b'", "nets": ["10.0.0.1"]}},
            "Allow UDP to anything with a == 'b' and 10.0.0.1, not port 53",
        ),
        ("", {"notProtocol": "TCP", "ipVersion": 6}, "Allow any protocol but TCP over IPv6"),
        ("", {"protocol": 47}, "Allow protocol 47"),
        (
            "",
            {"protocol": "ICMPv6", "icmp": {"type": 1, "code": 4}},
            "Allow ICMPv6 type 1 (destination unreachable) code 4",
        ),
        ("", {"protocol": "ICMP", "notICMP": {"type": 8}}, "Allow ICMP, not ICMP type 8 (echo request)"),
        ("a", {"destination": {"services": {"name": "db"}}}, "Allow all traffic to service a/db"),
        (
            "",
            {"source": {"serviceAccounts": {"names": ["x", "y"], "selector": "a == 'b'"}}},
            "Allow all traffic from anything with service accounts x, y and service account labels a == 'b'",
        ),
        ("", {"http": {"methods": ["GET"]}}, "Allow all traffic, HTTP match, not checked in the dataplane"),
        ("", {"source": {"domains": ["a.example"]}}, "Allow all traffic, unknown field source.domains"),
        (
            "",
            {"destination": {"ports": list(range(14))}},
            "Allow all traffic to ports 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 2 more",
        ),
    ],
)
def test_calico_rules(namespace: str, rule: dict[str, Any], text: str) -> None:
    object_ = ingress(
        {"action": "Allow", **rule}, kind="NetworkPolicy" if namespace else "GlobalNetworkPolicy", namespace=namespace
    )
    assert describe_rule(object_, "ingress", 0) == text


@pytest.mark.parametrize(
    ("kind", "entry", "text"),
    [
        ("KubernetesNetworkPolicy", {}, "Allow all traffic"),
        (
            "KubernetesNetworkPolicy",
            {
                "from": [
                    {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "stars"}}},
                    {
                        "namespaceSelector": {},
                        "podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
                    },
                    {"podSelector": {}},
                    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.2.0.0/16"]}},
                ],
                "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}, {"port": 8000, "endPort": 8010}],
            },
            (
                "Allow UDP or TCP from namespace stars or pods with has(a) in any namespace or namespace a"
                " or 10.0.0.0/8 except 10.1.0.0/16, 10.2.0.0/16 to UDP 53 or TCP 53 or TCP 8000-8010"
            ),
        ),
        ("KubernetesNetworkPolicy", {"ports": [{"port": 80}, {"protocol": "TCP"}]}, "Allow TCP"),
        (
            "KubernetesNetworkPolicy",
            {
                "from": [
                    {"podSelector": {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b", "c"]}]}}
                ]
            },
            "Allow all traffic from pods with a not in {'b', 'c'} in namespace a",
        ),
        ("KubernetesNetworkPolicy", {"ports": ["http"]}, "Allow all traffic, ports: http"),
        ("KubernetesNetworkPolicy", {"from": "x"}, "Allow all traffic, from: x"),
        (
            "ClusterNetworkPolicy",
            {
                "action": "Accept",
                "name": "monitoring",
                "from": [{"namespaces": {"matchLabels": {"team": "sre"}}}],
                "protocols": [{"tcp": {"destinationPort": {"number": 80}}}],
            },
            "Allow TCP from namespaces with team == 'sre' to port 80 (\"monitoring\")",
        ),
        (
            "ClusterNetworkPolicy",
            {
                "action": "Deny",
                "from": [{"pods": {"podSelector": {"matchLabels": {"a": "b"}}}}, {"nodes": {}}],
                "protocols": [
                    {"udp": {"destinationPort": {"range": {"start": 1, "end": 9}}}},
                    {"destinationNamedPort": "http"},
                ],
            },
            (
                "Deny all traffic from pods with a == 'b' in any namespace or nodes (not supported by Calico)"
                " to UDP 1-9 or http"
            ),
        ),
        (
            "ClusterNetworkPolicy",
            {"action": "Pass", "from": [{"namespaces": {}}], "protocols": [{}]},
            "Pass all traffic from any namespace",
        ),
        (
            "AdminNetworkPolicy",
            {
                "action": "Deny",
                "from": [{"namespaces": {}}],
                "ports": [
                    {"portNumber": {"protocol": "UDP", "port": 53}},
                    {"portRange": {"protocol": "UDP", "start": 1, "end": 2}},
                ],
            },
            "Deny UDP from any namespace to ports 53, 1-2",
        ),
    ],
)
def test_entries_of_kubernetes_kinds(kind: str, entry: dict[str, Any], text: str) -> None:
    assert describe_rule(ingress(entry, kind=kind, namespace="a"), "ingress", 0) == text


def test_networks_of_a_cluster_policy() -> None:
    object_ = policy("ClusterNetworkPolicy", "", "c", egress=[{"action": "Deny", "to": [{"networks": ["10.0.0.0/8"]}]}])
    assert describe_rule(object_, "egress", 0) == "Deny all traffic to 10.0.0.0/8"


def test_clauses_by_what_the_dataplane_matches() -> None:
    assert dict(clauses(CLIENT_EGRESS, "egress", 0)) == {
        "protocol": "TCP",
        "destination": "namespace stars",
        "destination ports": "ports 80, 6379",
    }
    assert dict(clauses(DATABASE, "ingress", 0)) == {
        "protocol": "TCP",
        "source": "pods with app == 'summary' in namespace yaobank",
        "destination ports": "port 2379",
    }
    assert dict(clauses(CUSTOMER, "egress", 2)) == {"protocol": "ICMP", "icmp": "ICMP type 8 (echo request)"}
    everything = {"nets": ["10.0.0.0/8"], "notNets": ["10.1.0.0/16"], "ports": [1], "notPorts": [2]}
    object_ = ingress({"action": "Deny", "protocol": "TCP", "source": everything, "destination": everything})
    assert dict(clauses(object_, "ingress", 0)) == {
        "protocol": "TCP",
        "source": "10.0.0.0/8",
        "not source": "not 10.1.0.0/16",
        "source ports": "port 1",
        "not source ports": "not port 2",
        "destination": "10.0.0.0/8",
        "not destination": "not 10.1.0.0/16",
        "destination ports": "port 1",
        "not destination ports": "not port 2",
    }
    assert not clauses(DEFAULT_DENY, "ingress", 1)
    assert not clauses(DEFAULT_DENY, "ingress", 7)


def test_rule_count() -> None:
    assert [rule_count(QUARANTINE, direction) for direction in ("ingress", "egress")] == [3, 2]
    assert rule_count(policy("NetworkPolicy", "a", "b", ingress="all"), "ingress") == 0


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("allow", "ingress rule 0, which the object does not have"),
        ({"action": 7, "protocol": ["TCP"], "source": [1]}, "7 protocol ['TCP'] from [1]"),
        (
            {"action": "Allow", "source": {"nets": 5, "ports": "x", "selector": {"a": 1}}},
            "Allow all traffic from anything with {'a': 1} and 5, source ports x",
        ),
        ({"action": "Allow", "icmp": 8}, "Allow ICMP 8"),
    ],
)
def test_what_the_api_would_refuse_is_quoted(rule: Any, text: str) -> None:
    assert describe_rule(ingress(rule), "ingress", 0) == text


_KEYS = {
    *("action", "name", "protocol", "notProtocol", "ipVersion", "icmp", "notICMP", "type", "code", "http"),
    *("source", "destination", "nets", "notNets", "selector", "notSelector", "namespaceSelector", "namespace"),
    *("serviceAccounts", "names", "services", "ports", "notPorts", "port", "endPort", "from", "to", "podSelector"),
    *("ipBlock", "cidr", "except", "matchLabels", "matchExpressions", "key", "operator", "values", "protocols"),
    *("tcp", "destinationPort", "number", "range", "start", "end", "destinationNamedPort", "pods", "namespaces"),
    *("networks", "portNumber", "portRange"),
}
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["all()", "In", "TCP"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(_KEYS)), inner, max_size=5),
    max_leaves=25,
)


@given(
    st.lists(_JSON, max_size=3),
    st.sampled_from(
        ["NetworkPolicy", "KubernetesNetworkPolicy", "ClusterNetworkPolicy", "AdminNetworkPolicy", "Other"]
    ),
    st.sampled_from(["ingress", "egress"]),
)
def test_garbage_gets_an_honest_text(rules: list[Any], kind: str, direction: str) -> None:
    object_ = policy(kind, "a", "b", **{direction: rules})
    for index in range(-1, len(rules) + 1):
        assert describe_rule(object_, direction, index)
        assert all(text and isinstance(text, str) for text in clauses(object_, direction, index).values())


def test_every_recorded_rule_has_words() -> None:
    for object_ in RECORDED:
        for direction in ("ingress", "egress"):
            for index in range(rule_count(object_, direction)):
                assert "unknown" not in describe_rule(object_, direction, index)
