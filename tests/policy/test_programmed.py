from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.policy.programmed import ProgrammedRule, programmed_rules
from tests.policy.objects import CUSTOMER, DATABASE, DEFAULT_DENY, NODE_INGRESS, QUARANTINE, STAGED, ingress, policy


def _indices(object_: Any, direction: str, family: int) -> list[int] | None:
    rules = programmed_rules(object_, direction, family)
    return None if rules is None else [rule.index for rule in rules]


@pytest.mark.parametrize(
    ("object_", "direction", "family", "indices"),
    [
        (CUSTOMER, "egress", 4, [0, 1, 2]),
        (CUSTOMER, "egress", 6, [0, 1]),  # the last is ICMP, by name
        (NODE_INGRESS, "ingress", 4, [0, 1, 2]),
        (NODE_INGRESS, "ingress", 6, [2]),
        (DATABASE, "ingress", 6, [0]),
        (DATABASE, "egress", 4, [0]),
        (DATABASE, "egress", 6, []),
        (STAGED, "ingress", 4, []),
        (CUSTOMER, "nowhere", 4, []),
    ],
)
def test_recorded_policies(object_: Any, direction: str, family: int, indices: list[int]) -> None:
    assert _indices(object_, direction, family) == indices


def test_felix_numbers_rules_before_it_leaves_out_a_family() -> None:
    assert _indices(NODE_INGRESS, "ingress", 0) == [0, 1, 2]
    assert _indices(CUSTOMER, "egress", 0) == [0, 1, 2]
    assert _indices(DATABASE, "egress", 0) == [0]


def test_actions() -> None:
    assert programmed_rules(DEFAULT_DENY, "egress", 4) == (ProgrammedRule(0, "Log"), ProgrammedRule(1, "Deny"))
    rules = programmed_rules(QUARANTINE, "ingress", 6)
    assert rules is not None
    assert [rule.action for rule in rules] == ["Deny", "Deny", "Pass"]


@pytest.mark.parametrize(
    ("rule", "families"),
    [
        ({}, [4, 6]),
        ({"ipVersion": 4}, [4]),
        ({"ipVersion": 6}, [6]),
        ({"protocol": "ICMP"}, [4]),
        ({"protocol": "ICMPv6"}, [6]),
        ({"protocol": 1}, [4, 6]),
        ({"ipVersion": 6, "protocol": "ICMP"}, [6]),
        ({"source": {"nets": ["10.0.0.0/8", "fd00::/8"]}}, [4, 6]),
        ({"source": {"nets": ["10.0.0.1"]}}, [4]),
        ({"source": {"nets": ["10.0.0.0/8", "fd00::/8"]}, "destination": {"nets": ["10.0.0.1"]}}, [4]),
        ({"source": {"nets": ["10.0.0.0/8"]}, "destination": {"nets": ["fd00::1"]}}, []),
        ({"source": {"notNets": ["10.0.0.0/8"]}}, [4]),
        ({"source": {"notNets": ["10.0.0.0/8", "::/0"]}}, [4]),
        ({"destination": {"notNets": ["0.0.0.0/0", "fd00::/8"]}}, [6]),
        ({"destination": {"notNets": ["1.2.3.4/0"]}}, []),
        ({"source": None, "destination": {"nets": []}}, [4, 6]),
    ],
)
def test_families_of_calico_rules(rule: dict[str, Any], families: list[int]) -> None:
    object_ = ingress({"action": "Allow", **rule})
    assert [family for family in (4, 6) if _indices(object_, "ingress", family) == [0]] == families
    assert all(_indices(object_, "ingress", family) in ([], [0]) for family in (4, 6))


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, {4: 1, 6: 1}),
        ({"from": [], "ports": []}, {4: 1, 6: 1}),
        ({"from": [{"podSelector": {}}, {"namespaceSelector": {}}]}, {4: 2, 6: 2}),
        ({"ports": [{"port": 80}, {"port": "http", "protocol": "TCP"}, {"protocol": "UDP"}]}, {4: 2, 6: 2}),
        (
            {
                "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}],
                "from": [
                    {"podSelector": {}},
                    {"ipBlock": {"cidr": "10.0.0.0/8"}},
                    {"ipBlock": {"cidr": "fd00::/8", "except": ["fd00:1::/32"]}},
                ],
            },
            {4: 4, 6: 4},
        ),
        ({"ports": [{"port": 8000, "endPort": 8010}]}, {4: 1, 6: 1}),
        ({"ports": [{"port": 8010, "endPort": 8000}]}, None),
        ({"ports": [{"port": "http", "endPort": 8000}]}, None),
        ({"ports": [{"port": 65536}]}, None),
        ({"from": [{"ipBlock": {"cidr": "ten"}}]}, None),
        ({"from": [{"ipBlock": {"cidr": "10.0.0.0/255.0.0.0"}}]}, None),
        ({"from": "anybody"}, None),
    ],
)
def test_expansion_of_kubernetes_entries(entry: dict[str, Any], expected: dict[int, int] | None) -> None:
    object_ = ingress({"from": [{"podSelector": {}}]}, entry, kind="KubernetesNetworkPolicy", namespace="a")
    for family in (4, 6):
        wanted = None if expected is None else [0] + [1] * expected[family]
        assert _indices(object_, "ingress", family) == wanted


_PODS = {"pods": {"namespaceSelector": {}, "podSelector": {}}}


@pytest.mark.parametrize(
    ("kind", "direction", "entry", "actions"),
    [
        ("ClusterNetworkPolicy", "ingress", {"action": "Accept", "from": [{"namespaces": {}}, _PODS]}, ["Allow"] * 2),
        (
            "ClusterNetworkPolicy",
            "ingress",
            {
                "action": "Pass",
                "from": [_PODS],
                "protocols": [
                    {"tcp": {"destinationPort": {"number": 80}}},
                    {"tcp": {"destinationPort": {"range": {"start": 1, "end": 2}}}},
                    {"udp": {}},
                    {"destinationNamedPort": "http"},
                ],
            },
            ["Pass"] * 3,
        ),
        (
            "ClusterNetworkPolicy",
            "ingress",
            {"action": "Deny", "from": [_PODS], "protocols": [{}, {"udp": {}}]},
            ["Deny"],
        ),
        (
            "ClusterNetworkPolicy",
            "egress",
            {"action": "Deny", "to": [{"networks": ["10.0.0.0/8"]}, _PODS]},
            ["Deny"] * 2,
        ),
        ("ClusterNetworkPolicy", "egress", {"action": "Deny", "to": [{"networks": ["fd00::/8"]}]}, []),
        # what Calico cannot convert fails closed
        ("ClusterNetworkPolicy", "egress", {"action": "Pass", "to": [_PODS, {"domainNames": ["a.example"]}]}, ["Deny"]),
        ("ClusterNetworkPolicy", "egress", {"action": "Accept", "to": [_PODS, {"nodes": {}}]}, []),
        ("ClusterNetworkPolicy", "ingress", {"action": "Deny", "from": [{"networks": ["10.0.0.0/8"]}]}, ["Deny"]),
        ("ClusterNetworkPolicy", "ingress", {"action": "Allow", "from": [_PODS]}, None),
        ("AdminNetworkPolicy", "ingress", {"action": "Allow", "from": [_PODS]}, ["Allow"]),
        (
            "AdminNetworkPolicy",
            "egress",
            {
                "action": "Deny",
                "to": [_PODS],
                "ports": [{"portNumber": {"port": 1}}, {"portRange": {"protocol": "UDP", "start": 1, "end": 2}}],
            },
            ["Deny"] * 2,
        ),
        (
            "AdminNetworkPolicy",
            "egress",
            {"action": "Deny", "to": [_PODS], "ports": [{"portNumber": {"port": 1}}, {"namedPort": "http"}]},
            ["Deny"],
        ),
        ("BaselineAdminNetworkPolicy", "egress", {"action": "Deny", "to": [{"nodes": {}}]}, ["Deny"]),
        ("BaselineAdminNetworkPolicy", "egress", {"action": "Pass", "to": [_PODS]}, None),
    ],
)
def test_expansion_of_cluster_entries(
    kind: str, direction: str, entry: dict[str, Any], actions: list[str] | None
) -> None:
    rules = programmed_rules(policy(kind, "", "some", "tier", **{direction: [entry]}), direction, 4)
    assert (None if rules is None else [rule.action for rule in rules]) == actions


@pytest.mark.parametrize(
    "spec",
    [
        {"ingress": "all"},
        {"ingress": ["all"]},
        {"ingress": [{}]},
        {"ingress": [{"action": "allow"}]},
        {"ingress": [{"action": "Allow", "ipVersion": "4"}]},
        {"ingress": [{"action": "Allow", "source": ["10.0.0.0/8"]}]},
        {"ingress": [{"action": "Allow", "source": {"nets": "10.0.0.0/8"}}]},
        {"ingress": [{"action": "Allow", "source": {"nets": ["ten"]}}]},
        {"ingress": [{"action": "Allow", "source": {"nets": [10]}}]},
    ],
)
def test_what_cannot_be_told(spec: dict[str, Any]) -> None:
    assert programmed_rules(policy("NetworkPolicy", "a", "b", **spec), "ingress", 4) is None


def test_unknown_kinds_cannot_be_told() -> None:
    assert programmed_rules(policy("FuturePolicy", "a", "b", ingress=[]), "ingress", 4) is None


_KEYS = {
    *("action", "source", "nets", "notNets", "from", "to", "ports", "port", "endPort", "ipBlock", "cidr", "except"),
    *("protocols", "tcp", "destinationPort", "range", "portNumber", "portRange", "networks", "pods", "protocol"),
}
_VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
_JSON = st.recursive(
    _VALUES | st.sampled_from(["Allow", "10.0.0.0/8", "fd00::1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(_KEYS)), inner, max_size=4),
    max_leaves=20,
)


@given(
    st.lists(_JSON, max_size=4),
    st.sampled_from(
        [
            "NetworkPolicy",
            "KubernetesNetworkPolicy",
            "ClusterNetworkPolicy",
            "AdminNetworkPolicy",
            "StagedNetworkPolicy",
        ]
    ),
    st.sampled_from(["ingress", "egress"]),
)
def test_garbage_is_no_rule(rules: list[Any], kind: str, direction: str) -> None:
    for family in (4, 6):
        made = programmed_rules(policy(kind, "", "some", **{direction: rules}), direction, family)
        assert made is None or all(0 <= rule.index < len(rules) for rule in made)
