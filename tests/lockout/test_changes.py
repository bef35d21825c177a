"""Manifests, and clusters as they would be."""

from __future__ import annotations

import pytest

from calico_debug.errors import UsageError
from calico_debug.lockout.changes import LARGEST, decode_change
from calico_debug.model.cluster import Cluster, FelixConfiguration, HostEndpoint, PolicyObject

HOST = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: all}
spec: {node: node1, interfaceName: "*"}
"""
POLICY = """
apiVersion: crd.projectcalico.org/v1
kind: GlobalNetworkPolicy
metadata: {name: lock}
spec: {selector: all(), types: [Ingress], tier: security, order: 5}
"""
KUBERNETES = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}}
"""


def test_every_kind_takes_its_place() -> None:
    change = decode_change(f"{HOST}---{POLICY}---{KUBERNETES}---\n".encode(), "f")
    old = PolicyObject("GlobalNetworkPolicy", "", "lock", "default", None, {})
    after = change.applied(Cluster(policies=(old,), host_endpoints=(HostEndpoint("other", "node2", "eth0"),)))
    assert [(one.kind, one.namespace, one.name, one.tier) for one in after.policies] == [
        ("GlobalNetworkPolicy", "", "lock", "security"),
        ("KubernetesNetworkPolicy", "default", "deny", "default"),
    ]
    assert [one.name for one in after.host_endpoints] == ["other", "all"]
    assert change.skipped == ()


def test_lists_and_felix_configuration() -> None:
    text = """
    {"kind": "List", "items": [
      {"apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration", "metadata": {"name": "default"},
       "spec": {"vxlanPort": 4790}},
      {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}]}
    """
    change = decode_change(text.encode(), "f")
    assert change.settings([FelixConfiguration("default", {})]) == (FelixConfiguration("default", {"vxlanPort": 4790}),)
    assert change.skipped == ("ConfigMap x",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no object"),
        ("{", "is not YAML"),
        ("- 1", "no object"),
        ("!!python/object:os.system {}", "is not YAML"),
        (HOST.replace("name: all", "nome: all"), "HostEndpoint without a name is not understood"),
        (POLICY.replace("order: 5", "order: high"), "order 'high' is not a number"),
        ("x" * (LARGEST + 1), "more than 16 MiB"),
    ],
)
def test_what_is_no_manifest(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        decode_change(text.encode(), "f")
