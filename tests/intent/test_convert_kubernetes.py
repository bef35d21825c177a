from __future__ import annotations

from typing import Any

import pytest

from calico_debug.intent.convert import convert
from calico_debug.intent.model import Direction, Policy, Rule
from calico_debug.policy.programmed import programmed_rules
from tests.intent.clusters import policy

K8S = 'projectcalico.org/orchestrator == "k8s"'
NS = 'projectcalico.org/namespace == "shop"'


def network_policy(**spec: Any) -> Policy:
    return convert(policy("KubernetesNetworkPolicy", "p", "shop", podSelector={}, **spec))


def test_selector_and_defaults() -> None:
    converted = network_policy()
    assert converted.selector is not None
    assert converted.selector.text == f"({K8S} && {NS})"
    assert (converted.tier, converted.order, converted.types) == ("default", 1000.0, {"ingress"})
    assert network_policy(egress=[{}]).types == {"ingress", "egress"}
    assert network_policy(policyTypes=["Egress"]).types == {"egress"}


def test_label_selectors() -> None:
    given = {
        "matchLabels": {"b": "2", "a": "1"},
        "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["y", "x"]},
            {"key": "d", "operator": "NotIn", "values": ["z"]},
            {"key": "e", "operator": "Exists"},
            {"key": "f", "operator": "DoesNotExist"},
        ],
    }
    converted = convert(policy("KubernetesNetworkPolicy", "p", "shop", podSelector=given))
    assert converted.selector is not None
    assert converted.selector.text == (
        f'(({K8S} && a == "1" && b == "2" && c in {{"x", "y"}} && d not in {{"z"}} && has(e) && !has(f)) && {NS})'
    )
    labels = {"projectcalico.org/orchestrator": "k8s", "projectcalico.org/namespace": "shop"}
    assert converted.selector.evaluate({**labels, "a": "1", "b": "2", "c": "x", "e": ""})
    assert not converted.selector.evaluate({**labels, "a": "1", "b": "2", "c": "x", "e": "", "f": ""})


def shape(rules: tuple[Rule, ...]) -> list[tuple[Any, ...]]:
    return [
        (
            rule.index,
            rule.action,
            rule.protocol,
            [str(net) for net in (*rule.source.nets, *rule.destination.nets)],
            rule.destination.ports,
            rule.destination.named_ports,
        )
        for rule in rules
    ]


def test_an_entry_becomes_a_rule_a_protocol_and_peer() -> None:
    blocks = [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}, {"ipBlock": {"cidr": "11.0.0.0/8"}}]
    ports = [{"port": 53, "protocol": "UDP"}, {"port": 80}, {"port": "http"}, {"port": 90, "endPort": 99}]
    rules = network_policy(ingress=[{}, {"from": blocks, "ports": ports}]).ingress
    tcp, udp = (((80, 80), (90, 99)), ("http",)), (((53, 53),), ())
    assert shape(rules) == [
        (0, "Allow", None, [], (), ()),
        (1, "Allow", 6, ["10.0.0.0/8"], *tcp),
        (1, "Allow", 6, ["11.0.0.0/8"], *tcp),
        (1, "Allow", 17, ["10.0.0.0/8"], *udp),
        (1, "Allow", 17, ["11.0.0.0/8"], *udp),
    ]
    assert [str(net) for net in rules[1].source.not_nets] == ["10.1.0.0/16"]


def test_every_port_wins() -> None:
    assert shape(network_policy(egress=[{"ports": [{"port": 80}, {"protocol": "TCP"}]}]).egress) == [
        (0, "Allow", 6, [], (), ())
    ]
    assert shape(network_policy(egress=[{"ports": [{}]}]).egress) == [(0, "Allow", 6, [], (), ())]


@pytest.mark.parametrize(
    ("peer", "selector"),
    [
        ({"podSelector": {}}, f"({NS} && {K8S})"),
        ({"podSelector": {"matchLabels": {"a": "1"}}}, f'({NS} && ({K8S} && a == "1"))'),
        ({"namespaceSelector": {}}, f"(has(projectcalico.org/namespace) && {K8S})"),
        ({"namespaceSelector": {"matchLabels": {"team": "a"}}}, f'(pcns.team == "a" && {K8S})'),
    ],
)
def test_peers(peer: dict[str, Any], selector: str) -> None:
    for direction, key in (("ingress", "from"), ("egress", "to")):
        rule = network_policy(**{direction: [{key: [peer]}]}).rules("ingress" if direction == "ingress" else "egress")[
            0
        ]
        side = rule.source if direction == "ingress" else rule.destination
        assert side.selector is not None
        assert side.selector.text == selector


@pytest.mark.parametrize(
    "entry",
    [
        {"ports": [{"port": 80, "endPort": 70}]},
        {"ports": [{"port": 70000}]},
        {"from": [{"ipBlock": {"cidr": "nonsense"}}]},
        {"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}]},
        {"from": [{"podSelector": {"matchLabels": {"a": "it's"}}}]},
        "nonsense",
    ],
)
def test_entries_that_are_not_understood(entry: Any) -> None:
    rules = network_policy(ingress=[entry, {}]).ingress
    assert [bool(rule.problem) for rule in rules] == [True, False]


def cluster_policy(kind: str = "ClusterNetworkPolicy", **spec: Any) -> Policy:
    given = {"tier": "Admin", "priority": 7, "subject": {"namespaces": {}}, **spec}
    return convert(policy(kind, "p", **given))


def test_cluster_policies() -> None:
    pods = {"pods": {"podSelector": {"matchLabels": {"a": "1"}}, "namespaceSelector": {"matchLabels": {"t": "x"}}}}
    entry = {"name": "mine", "action": "Accept", "from": [{"namespaces": {"matchLabels": {"t": "y"}}}, pods]}
    protocols = [{"tcp": {"destinationPort": {"number": 80}}}, {"destinationNamedPort": "http"}]
    converted = cluster_policy(subject=pods, ingress=[{**entry, "protocols": protocols}])
    assert converted.selector is not None
    assert converted.selector.text == f'(({K8S} && a == "1") && pcns.t == "x")'
    assert (converted.tier, converted.order, converted.types) == ("kube-admin", 7.0, {"ingress"})
    assert [(rule.protocol, rule.destination.ports, rule.destination.named_ports) for rule in converted.ingress] == [
        (None, (), ("http",)),
        (None, (), ("http",)),
        (6, ((80, 80),), ()),
        (6, ((80, 80),), ()),
    ]
    texts = [rule.source.selector.text for rule in converted.ingress if rule.source.selector]
    assert texts[:2] == ['pcns.t == "y"', f'(pcns.t == "x" && ({K8S} && a == "1"))']
    assert {rule.name for rule in converted.ingress} == {"mine"}


def test_cluster_policies_without_rules_govern_nothing() -> None:
    assert cluster_policy().types == frozenset()
    assert cluster_policy(tier="Baseline").tier == "kube-baseline"


@pytest.mark.parametrize(("action", "made"), [("Deny", ["Deny"]), ("Pass", ["Deny"]), ("Accept", [])])
def test_entries_without_a_calico_form_fail_closed(action: str, made: list[str]) -> None:
    converted = cluster_policy(egress=[{"action": action, "to": [{"domainNames": ["example.com"]}]}])
    assert [rule.action for rule in converted.egress] == made


def test_networks_and_ranges() -> None:
    entry = {
        "action": "Pass",
        "to": [{"networks": ["10.0.0.0/8", "fd00::/8"]}],
        "protocols": [{"udp": {"destinationPort": {"range": {"start": 1, "end": 9}}}}, {"sctp": {}}],
    }
    assert shape(cluster_policy(egress=[entry]).egress) == [
        (0, "Pass", 132, ["10.0.0.0/8", "fd00::/8"], (), ()),
        (0, "Pass", 17, ["10.0.0.0/8", "fd00::/8"], ((1, 9),), ()),
    ]


def test_admin_policies() -> None:
    ports = [
        {"portNumber": {"protocol": "UDP", "port": 53}},
        {"portRange": {"start": 80, "end": 81}},
    ]
    entry = {"action": "Allow", "to": [{"namespaces": {}}], "ports": ports}
    converted = cluster_policy("AdminNetworkPolicy", egress=[entry, {**entry, "ports": [{"namedPort": "http"}]}])
    assert converted.tier == "adminnetworkpolicy"
    assert shape(converted.egress) == [
        (0, "Allow", 6, [], ((80, 81),), ()),
        (0, "Allow", 17, [], ((53, 53),), ()),
        (1, "Allow", None, [], (), ()),
    ]
    baseline = cluster_policy("BaselineAdminNetworkPolicy", ingress=[{"action": "Pass", "from": [{"namespaces": {}}]}])
    assert baseline.ingress[0].problem


def test_subjects_that_are_not_understood() -> None:
    assert cluster_policy(subject={}).problem
    assert cluster_policy(subject={"namespaces": {"matchLabels": []}}).problem


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_as_many_rules_as_are_programmed(direction: Direction) -> None:
    """The conversion and what `programmed_rules` expects in the dataplane line up."""
    key = "from" if direction == "ingress" else "to"
    peers = [{"ipBlock": {"cidr": "10.0.0.0/8"}}, {"podSelector": {}}]
    entries = [{key: peers, "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}, {"port": 81}]}, {}, {key: peers}]
    source = policy("KubernetesNetworkPolicy", "p", "shop", podSelector={}, **{direction: entries})
    programmed = programmed_rules(source, direction, 4)
    assert programmed is not None
    rules = convert(source).rules(direction)
    assert [(rule.index, rule.action) for rule in rules] == [(rule.index, rule.action) for rule in programmed]
