"""Small clusters of API objects to be advised on."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from calico_debug.intent.flows import AskedFlow
from calico_debug.intent.model import PolicyFlow
from calico_debug.model.cluster import Cluster, Pod, PolicyObject

BASELINE = "baselineadminnetworkpolicy"
ADDRESSES = {"a/one": "10.0.0.1", "a/two": "10.0.0.2", "b/one": "10.0.1.1", "b/two": "10.0.1.2", "c/bare": "10.0.2.1"}


def pods() -> tuple[Pod, ...]:
    found = []
    for name, address in ADDRESSES.items():
        namespace, own = name.split("/")
        labels = {} if own == "bare" else {"app": own, "pod-template-hash": f"{own}123"}
        found.append(Pod(namespace, own, "node1", (ip_address(address),), phase="Running", labels=labels))
    return tuple(found)


def cluster(*policies: PolicyObject) -> Cluster:
    names = {"a", "b", "c"}
    namespaces = {name: {"kubernetes.io/metadata.name": name} for name in names}
    accounts = {(name, "default"): {} for name in names}
    return Cluster(pods=pods(), policies=policies, namespaces=namespaces, service_accounts=accounts)


def calico(namespace: str, name: str, order: float = 100, **spec: Any) -> PolicyObject:
    kind = "NetworkPolicy" if namespace else "GlobalNetworkPolicy"
    return PolicyObject(kind, namespace, name, "default", order, {"selector": "all()", "order": order, **spec})


def kubernetes(namespace: str, name: str, **spec: Any) -> PolicyObject:
    return PolicyObject("KubernetesNetworkPolicy", namespace, name, "default", 1000.0, {"podSelector": {}, **spec})


def cluster_policy(kind: str, name: str = "wide", **spec: Any) -> PolicyObject:
    """Of one of Kubernetes' kinds for whole clusters."""
    admin = kind != "BaselineAdminNetworkPolicy"
    tier = {"ClusterNetworkPolicy": "kube-admin", "AdminNetworkPolicy": "adminnetworkpolicy"}.get(kind, BASELINE)
    given = {"subject": {"namespaces": {}}, **({"priority": 5} if admin else {}), **spec}
    if kind == "ClusterNetworkPolicy":
        given["tier"] = "Admin"
    return PolicyObject(kind, "", name if admin else "default", tier, 5.0 if admin else None, given)


def flow(source: str, destination: str, port: int | None = 80, protocol: int = 6) -> AskedFlow:
    addresses = [ip_address(ADDRESSES.get(end, end)) for end in (source, destination)]
    icmp = (8, 0) if protocol == 1 else None
    return AskedFlow(PolicyFlow(addresses[0], addresses[1], protocol, None, port, icmp))


def texts(edits: Sequence[Any]) -> list[str]:
    return [edit.text for edit in edits]
