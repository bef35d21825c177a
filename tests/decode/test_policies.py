"""Policies of every kind, named and ordered as Calico does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from calico_debug.decode.policies import POLICY_SOURCES, PolicySource, decode_policy

SOURCES = {source.kind: source for source in POLICY_SOURCES}


def policy(spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", **metadata}, "spec": spec}


@pytest.mark.parametrize(
    ("kind", "spec", "tier", "order"),
    [
        ("NetworkPolicy", {}, "default", None),
        ("NetworkPolicy", {"tier": "security", "order": 10.5}, "security", 10.5),
        ("GlobalNetworkPolicy", {"tier": "default", "order": 0}, "default", 0.0),
        ("GlobalNetworkPolicy", {"order": None}, "default", None),
        ("StagedGlobalNetworkPolicy", {"tier": "a", "order": 1}, "a", 1.0),
        ("StagedKubernetesNetworkPolicy", {}, "default", 1000.0),
        ("KubernetesNetworkPolicy", {"podSelector": {}}, "default", 1000.0),
        ("ClusterNetworkPolicy", {"tier": "Admin", "priority": 7}, "kube-admin", 7.0),
        ("ClusterNetworkPolicy", {"tier": "Baseline", "priority": 8}, "kube-baseline", 8.0),
        ("AdminNetworkPolicy", {"priority": 5}, "adminnetworkpolicy", 5.0),
        ("BaselineAdminNetworkPolicy", {}, "baselineadminnetworkpolicy", 1000.0),
    ],
)
def test_tier_and_order(kind: str, spec: dict[str, Any], tier: str, order: float | None) -> None:
    decoded = decode_policy(policy(spec), SOURCES[kind])
    assert (decoded.kind, decoded.name, decoded.tier, decoded.order) == (kind, "p", tier, order)
    assert decoded.spec == spec


def test_names_are_those_of_the_v3_api() -> None:
    annotation = {"projectcalico.org/metadata": json.dumps({"name": "security.web"})}
    stored = policy({"tier": "security"}, name="security.web-stored", namespace="shop", annotations=annotation)
    decoded = decode_policy(stored, SOURCES["NetworkPolicy"])
    assert (decoded.namespace, decoded.name) == ("shop", "security.web")
    assert decoded.annotations == annotation


@pytest.mark.parametrize(
    ("kind", "entry"),
    [
        ("NetworkPolicy", {"spec": {}}),
        ("NetworkPolicy", policy({"order": "first"})),
        ("NetworkPolicy", policy({"order": True})),
        ("NetworkPolicy", policy({}, name=7)),
        ("NetworkPolicy", {"metadata": {"name": "p"}, "spec": [1]}),
        ("ClusterNetworkPolicy", policy({"tier": "Other", "priority": 1})),
    ],
)
def test_what_is_no_policy_is_refused(kind: str, entry: dict[str, Any]) -> None:
    with pytest.raises((KeyError, ValueError, TypeError)):
        decode_policy(entry, SOURCES[kind])


def test_files_of_both_groups() -> None:
    assert SOURCES["NetworkPolicy"].files == (
        "networkpolicies.projectcalico.org.json",
        "networkpolicies.crd.projectcalico.org.json",
    )
    files = [file for source in POLICY_SOURCES for file in source.files]
    assert len(files) == len(set(files))
    assert all(isinstance(source, PolicySource) for source in POLICY_SOURCES)
