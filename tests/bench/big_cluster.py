"""A large cluster's objects, made up: 5,000 pods in 100 namespaces, 1,000 policies of several kinds, 500 services."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calico_debug.evidence.bundle import open_bundle
from calico_debug.intent.decide import Intent
from calico_debug.intent.matrix import matrix
from calico_debug.state.cluster import load_cluster

Object = Mapping[str, Any]
NAMESPACES, APPS, REPLICAS, SERVICES = 100, 10, 5, 5
ENVS = ("prod", "test")
MATRIX = 1_000
"""Pods on either side of the matrix."""


def big_cluster(folder: Path) -> Path:
    """A bundle of cluster objects alone."""
    lists = {
        "namespaces": [
            _named(f"ns{n}", labels={"team": f"team{n % 20}", "env": ("prod", "test")[n % 2]}) for n in _ns()
        ],
        "serviceaccounts": [_named("default", f"ns{n}", {"owner": f"team{n % 20}"}) for n in _ns()],
        "pods": [_pod(n, app, number) for n in _ns() for app in range(APPS) for number in range(REPLICAS)],
        "services": [_service(n, app) for n in _ns() for app in range(SERVICES)],
        "endpointslices.discovery.k8s.io": [_slice(n, app) for n in _ns() for app in range(SERVICES)],
        "nodes": [_named(f"node{number}") for number in range(100)],
        "tiers.crd.projectcalico.org": [
            {**_named(name), "spec": {"order": order, "defaultAction": action}}
            for name, order, action in (("security", 100, "Pass"), ("platform", 200, "Deny"), ("default", 1e6, "Deny"))
        ],
        "globalnetworkpolicies.crd.projectcalico.org": [_global(number) for number in range(100)],
        "networkpolicies.crd.projectcalico.org": [_calico(n, app) for n in _ns() for app in range(6)],
        "networkpolicies.networking.k8s.io": [_kubernetes(n, app) for n in _ns() for app in range(6, 9)],
        "globalnetworksets.crd.projectcalico.org": [
            {**_named(f"set{n}", labels={"threat": f"t{n % 5}"}), "spec": {"nets": [f"198.51.{n}.0/24"]}} for n in _ns()
        ],
    }
    cluster = folder / "big" / "cluster"
    cluster.mkdir(parents=True)
    for name, items in lists.items():
        (cluster / f"{name}.json").write_text(json.dumps({"kind": "List", "items": items}))
    return cluster.parent


def _ns() -> range:
    return range(NAMESPACES)


def _named(name: str, namespace: str = "", labels: Mapping[str, str] | None = None) -> Object:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), "labels": labels or {}}
    return {"metadata": metadata}


def _address(n: int, app: int, number: int) -> str:
    return f"10.{n // 50}.{n % 50}.{app * REPLICAS + number + 1}"


def _pod(n: int, app: int, number: int) -> Object:
    labels = {"app": f"app{app}", "tier": ("web", "db")[app % 2], "pod-name": f"app{app}-{number}"}
    return {
        **_named(f"app{app}-{number}", f"ns{n}", labels),
        "spec": {
            "nodeName": f"node{(n + number) % 100}",
            "serviceAccountName": "default",
            "containers": [{"ports": [{"name": "http", "containerPort": 8080}]}],
        },
        "status": {"phase": "Running", "podIP": _address(n, app, number)},
    }


def _service(n: int, app: int) -> Object:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    return {**_named(f"app{app}", f"ns{n}"), "spec": {"clusterIP": f"10.96.{n}.{app + 1}", "ports": ports}}


def _slice(n: int, app: int) -> Object:
    return {
        **_named(f"app{app}-x", f"ns{n}", {"kubernetes.io/service-name": f"app{app}"}),
        "addressType": "IPv4",
        "endpoints": [{"addresses": [_address(n, app, number)]} for number in range(REPLICAS)],
        "ports": [{"name": "http", "port": 8080}],
    }


def _global(number: int) -> Object:
    rules = [
        {"action": "Deny", "source": {"selector": f"threat == 't{number % 5}'"}},
        {"action": "Pass", "source": {"namespaceSelector": f"team == 'team{number % 20}'"}},
        {"action": "Deny", "protocol": "TCP", "destination": {"ports": [22, "6000:6100"]}},
    ]
    spec = {
        "tier": "security",
        "order": number,
        "selector": f"app in {{'app{number % 10}', 'app{number % 7}'}}",
        "namespaceSelector": f"env == '{ENVS[number % 2]}' && team == 'team{number % 20}'",
        "types": ["Ingress"],
        "ingress": rules,
    }
    return {**_named(f"security.g{number}"), "spec": spec}


def _calico(n: int, app: int) -> Object:
    peers = {"selector": f"app in {{'app{(app + 1) % 10}', 'app{(app + 2) % 10}'}}"}
    team = {"namespaceSelector": f"team == 'team{n % 20}'", "selector": "tier == 'web'"}
    spec = {
        "tier": "platform",
        "order": app,
        "selector": f"app == 'app{app}'",
        "types": ["Ingress", "Egress"],
        "ingress": [
            {"action": "Allow", "protocol": "TCP", "source": peers, "destination": {"ports": ["http"]}},
            {"action": "Allow", "protocol": "TCP", "source": team, "destination": {"ports": [8080]}},
        ],
        "egress": [
            {"action": "Allow", "protocol": "TCP", "destination": {**team, "ports": [8080]}},
            {
                "action": "Allow",
                "protocol": "TCP",
                "destination": {"services": {"namespace": f"ns{n}", "name": f"app{app % SERVICES}"}},
            },
            {"action": "Allow", "protocol": "UDP", "destination": {"nets": ["10.96.0.0/16"], "ports": [53]}},
        ],
    }
    return {**_named(f"platform.app{app}", f"ns{n}"), "spec": spec}


def _kubernetes(n: int, app: int) -> Object:
    peer = {"podSelector": {"matchLabels": {"tier": "web"}}, "namespaceSelector": {"matchLabels": {"env": "prod"}}}
    spec = {
        "podSelector": {"matchLabels": {"app": f"app{app}"}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [peer, {"ipBlock": {"cidr": f"10.0.{n}.0/24"}}], "ports": [{"port": 8080}]}],
    }
    return {**_named(f"app{app}", f"ns{n}"), "spec": spec}


def main(bundle: str, question: str) -> None:
    """Read the bundle's objects; then for "policies" see which policies apply to every pod, for "matrix" make one."""
    cluster = load_cluster(open_bundle(bundle)).cluster
    if question == "objects":
        return
    intent = Intent(cluster)
    pods = intent.applicability.endpoints
    if question == "policies":
        for pod in pods:
            intent.applicability.tiers_of(pod, "ingress")
            intent.applicability.tiers_of(pod, "egress")
    else:
        step = len(pods) // MATRIX
        matrix(intent, pods[::step], pods[step // 2 :: step], 6, 8080)


if __name__ == "__main__":
    import sys

    main(*sys.argv[1:])
