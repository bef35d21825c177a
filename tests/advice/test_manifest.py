"""Manifests: what kubectl would apply."""

from __future__ import annotations

from dataclasses import replace

from calico_debug.advice.edits import CLUSTER_ALLOWS
from calico_debug.advice.manifest import KINDS, STAGED, manifest
from calico_debug.decode.policies import POLICY_SOURCES, decode_policy
from tests.advice.clusters import calico, cluster_policy, kubernetes

POLICIES = (calico("a", "p", types=["Egress"]), calico("", "g"), kubernetes("a", "k", ingress=[{}]))
WIDE = [cluster_policy(kind, ingress=[{"action": "Deny", "from": [{"namespaces": {}}]}]) for kind in CLUSTER_ALLOWS]


def test_enforced_ones_are_read_back_as_they_were() -> None:
    for policy in (*POLICIES, *WIDE):
        document = manifest(policy, staged=False)
        assert document is not None
        source = next(one for one in POLICY_SOURCES if one.kind == policy.kind)
        read = decode_policy(document, source)
        assert (read.namespace, read.name, read.spec) == (policy.namespace, policy.name, policy.spec)


def test_staged_ones_change_nothing_yet() -> None:
    for policy in POLICIES:
        document = manifest(policy, staged=True)
        assert document is not None
        assert (document["kind"], document["spec"]["stagedAction"]) == (STAGED[policy.kind], "Set")
        assert document["apiVersion"] == "projectcalico.org/v3"
        assert "stagedAction" not in policy.spec


def test_other_kinds_have_none() -> None:
    assert manifest(replace(POLICIES[0], kind="Profile"), staged=False) is None
    assert KINDS.keys() == STAGED.keys() | CLUSTER_ALLOWS.keys()
