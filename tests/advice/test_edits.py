"""Edits leave the object that they start from alone, and say what they do."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from ipaddress import ip_address

from calico_debug.advice.edits import Peer, additions, lasting, more_ports
from calico_debug.intent.endpoints import endpoints
from calico_debug.intent.model import PolicyFlow
from tests.advice.clusters import calico, cluster, flow, kubernetes

POD = endpoints(cluster())[0]


def rules(edits: object) -> list[object]:
    return [edit.policy.spec[edit.direction][-1] for edit in edits]  # type: ignore[attr-defined]


def test_the_object_is_left_alone() -> None:
    policy = calico("a", "p", egress=[{"action": "Allow", "destination": {"ports": [80]}}])
    before = deepcopy(policy)
    edits = [
        *more_ports(policy, "egress", flow("a/one", "b/one", 81).flow),
        *additions(policy, "egress", flow("a/one", "b/one").flow, Peer("10.0.1.1", POD), "Deny", 0),
    ]
    assert len(edits) == 3
    assert policy == before


def test_labels_of_single_pods_and_of_calico_are_not_used() -> None:
    assert lasting(POD) == {"app": "one"}


def test_a_namespace_without_its_own_label_is_called_by_calicos() -> None:
    bare = endpoints(replace(cluster(), namespaces={"a": {"team": "x"}}))[0]
    edits = additions(calico("b", "p"), "ingress", flow("a/one", "b/one").flow, Peer("", bare), "Allow", None)
    assert next(edits).policy.spec["ingress"][0]["source"] == {"namespaceSelector": "projectcalico.org/name == 'a'"}


def test_rules_for_addresses_and_protocols() -> None:
    six = PolicyFlow(ip_address("fd00::1"), ip_address("fd00::2"), 58, None, None, (128, 0))
    assert rules(additions(calico("a", "p"), "ingress", six, Peer("fd00::1", None), "Allow", None)) == [
        {"action": "Allow", "protocol": 58, "icmp": {"type": 128}, "source": {"nets": ["fd00::1/128"]}}
    ]
    odd = PolicyFlow(ip_address("10.0.0.1"), ip_address("10.0.0.2"), 47)
    assert rules(additions(calico("a", "p"), "egress", odd, Peer("10.0.0.2", None), "Allow", None)) == [
        {"action": "Allow", "protocol": 47, "destination": {"nets": ["10.0.0.2/32"]}}
    ]


def test_kubernetes_rules() -> None:
    policy = kubernetes("a", "k")
    assert rules(additions(policy, "egress", flow("a/one", "b/one").flow, Peer("10.0.1.1", POD), "Allow", None)) == [
        {
            "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "a"}}}],
            "ports": [{"protocol": "TCP", "port": 80}],
        },
        {
            "to": [
                {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "a"}},
                    "podSelector": {"matchLabels": {"app": "one"}},
                }
            ],
            "ports": [{"protocol": "TCP", "port": 80}],
        },
    ]
    assert not rules(additions(policy, "egress", flow("a/one", "b/one").flow, Peer("10.0.1.1", POD), "Deny", None))


def test_ports_are_added_only_where_there_are_some() -> None:
    entries = [{"ports": [{"port": 80}]}, {"to": []}, {"ports": [{"port": "web"}]}]
    found = list(more_ports(kubernetes("a", "k", egress=entries), "egress", flow("a/one", "b/one", 81).flow))
    assert [edit.text for edit in found] == [
        "add port 81 to egress rule 0 of a/k",
        "add port 81 to egress rule 2 of a/k",
    ]
    assert found[0].policy.spec["egress"][0]["ports"] == [{"port": 80}, {"protocol": "TCP", "port": 81}]
