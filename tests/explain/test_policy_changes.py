"""When a policy changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from calico_debug.explain.policy_changes import PolicyChange, PolicyChanges
from calico_debug.model.explanation import PolicyRef
from tests.evidence.memory import MemorySource

T1, T2, T3 = (f"2026-11-21T10:0{minute}:00Z" for minute in (1, 2, 3))


def change(kind: str = "GlobalNetworkPolicy", file: str = "globalnetworkpolicies", **meta: Any) -> PolicyChange | None:
    item = {"metadata": {"name": "p", **meta}, "spec": {}}
    source = MemorySource({f"{file}.crd.projectcalico.org.json": json.dumps({"items": [5, {}, item]})})
    return PolicyChanges(source).of(PolicyRef(kind, "p", meta.get("namespace", "")))


@pytest.mark.parametrize(
    ("meta", "exact", "words"),
    [
        ({"creationTimestamp": T1, "generation": 1}, True, f"created {T1} and not changed since"),
        ({"creationTimestamp": T1, "generation": 4}, False, f"created {T1} and changed since (generation 4)"),
        ({"creationTimestamp": T1}, False, f"created {T1}; whether it changed since is not in evidence"),
        ({}, False, "not known"),
        (
            {
                "creationTimestamp": T1,
                "generation": 2,
                "managedFields": [
                    {"time": T2, "fieldsV1": {"f:spec": {}}},
                    {"time": T3, "fieldsV1": {"f:metadata": {}}},
                    "odd",
                ],
            },
            False,
            f"last written {T2} (managedFields: a hint",
        ),
    ],
)
def test_what_an_object_tells(meta: dict[str, Any], exact: bool, words: str) -> None:
    found = change(**meta)
    assert found is not None
    assert found.exact is exact
    assert found.words.startswith(words)


def test_namespaces_and_kinds_are_told_apart() -> None:
    assert change("NetworkPolicy", "networkpolicies", namespace="shop", generation=1) is not None
    assert change("NetworkPolicy") is None
    assert PolicyChanges(MemorySource({})).of(None) is None


def test_a_damaged_list_is_no_obstacle() -> None:
    source = MemorySource({"globalnetworkpolicies.crd.projectcalico.org.json": "{"})
    assert PolicyChanges(source).of(PolicyRef("GlobalNetworkPolicy", "p")) is None
