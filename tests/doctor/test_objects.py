"""Services, and rules of policies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.doctor.patients import codes, report, seen, why
from tests.explain.world import Node, objects, policy_object

ONE = Node(1, pods=[1])


def service(kind: str = "ClusterIP", **endpoint: Any) -> dict[str, str]:
    lists: dict[str, Any] = {
        "services": [
            {
                "metadata": {"namespace": "shop", "name": "web"},
                "spec": {"type": kind, "clusterIP": "10.96.0.9", "ports": [{"port": 80, "protocol": "TCP"}]},
            }
        ],
        "endpointslices_discovery_k8s_io": [
            {
                "metadata": {"namespace": "shop", "name": "w", "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4",
                "ports": [{"port": 80, "protocol": "TCP"}],
                "endpoints": [{"addresses": ["10.244.1.1"], **endpoint}] if endpoint else [],
            }
        ],
    }
    return objects([ONE], **lists)


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        (service(conditions={"ready": True}), []),
        (service(conditions={"ready": False}), ["service shop/web: none of its 1 backends is ready"]),
        (service(), ["service shop/web: it has no backends"]),
        (service("ExternalName"), []),
    ],
)
def test_services(cluster: dict[str, str], expected: list[str]) -> None:
    found = report(ONE, cluster=cluster)
    assert seen(found, "service-without-endpoints") == expected
    assert len(found.findings) == len(expected)


def test_services_without_slices() -> None:
    cluster = {key: text for key, text in service().items() if not key.startswith("endpointslices")}
    found = report(ONE, cluster=cluster)
    assert codes(found) == []
    assert "backends of services are not known" in why(found, "services")[0]


ALLOW_TCP = {"action": "Allow", "protocol": "TCP"}


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([ALLOW_TCP, {"action": "Deny"}], ""),
        ([{"action": "Deny"}, ALLOW_TCP], "rule 1 is never reached, rule 0 (Deny)"),
        (
            [
                ALLOW_TCP,
                {"action": "Pass", "source": {}, "metadata": {"annotations": {"a": "b"}}},
                ALLOW_TCP,
                ALLOW_TCP,
            ],
            "rules 2 to 3 are never reached, rule 1 (Pass)",
        ),
        ([{"action": ["Allow"]}, "odd", ALLOW_TCP], ""),
        ([{"action": "Log"}, ALLOW_TCP], ""),
        ([{"action": "Allow", "ipVersion": 4}, ALLOW_TCP], ""),
        ([{"action": "Allow", "source": {"selector": "all()"}}, ALLOW_TCP], ""),
        ([{"action": "Allow", "somethingNew": {"x": [1]}}, ALLOW_TCP], ""),
    ],
)
def test_rules_behind_the_last_one(rules: list[Any], expected: str) -> None:
    policy = policy_object("p", namespace="shop", selector="all()", ingress=rules, types=["Ingress"])
    found = report(ONE, cluster=objects([ONE], networkpolicies_crd_projectcalico_org=[policy]))
    texts = seen(found, "rule-unreachable")
    assert bool(texts) is bool(expected)
    if expected:
        assert texts == [f"NetworkPolicy shop/p, ingress: {expected} matches everything"]


def test_staged_rules_are_only_noted() -> None:
    policy = policy_object("p", selector="all()", egress=[{"action": "Deny"}, ALLOW_TCP])
    found = report(ONE, cluster=objects([ONE], stagedglobalnetworkpolicies_crd_projectcalico_org=[policy]))
    assert [one.severity for one in found.findings if one.code == "rule-unreachable"] == ["info"]


def test_missing_and_damaged_lists_are_told() -> None:
    cluster = objects([ONE])
    cluster["namespaces.json"] = json.dumps({"kind": "List"})
    found = report(ONE, cluster={**cluster, "tiers.crd.projectcalico.org.json": "{"})
    assert any("services.json" in text for text in why(found, "evidence"))
