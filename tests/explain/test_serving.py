"""What the cluster's objects say of processes that listen."""

from __future__ import annotations

import json
from typing import Any

import pytest

from calico_debug.explain.serving import said_to_listen
from calico_debug.state.cluster import ClusterState
from calico_debug.state.node import NodeState
from tests.evidence.memory import MemoryNode, MemorySource

NODE, POD, NOT_READY = 0xAC1E0001, 0x0AF40101, 0x0AF40103


def pod(name: str, address: str, port: int, phase: str = "Running", **spec: Any) -> dict[str, Any]:
    containers = [{"ports": [{"containerPort": port}, {"containerPort": 53, "protocol": "UDP"}]}]
    return {
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"nodeName": "n1", "containers": containers, **spec},
        "status": {"phase": phase, "podIPs": [{"ip": address}]},
    }


OBJECTS: dict[str, list[dict[str, Any]]] = {
    "nodes": [{"metadata": {"name": "n1"}, "status": {"addresses": [{"type": "InternalIP", "address": "172.30.0.1"}]}}],
    "pods": [
        pod("web", "10.244.1.1", 80),
        pod("agent", "172.30.0.1", 9100, hostNetwork=True),
        pod("gone", "172.30.0.1", 9200, phase="Failed", hostNetwork=True),
    ],
    "services": [
        {"metadata": {"namespace": "shop", "name": "web"}, "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}}
    ],
    "endpointslices.discovery.k8s.io": [
        {
            "metadata": {"namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"port": 8080}],
            "endpoints": [
                {"addresses": ["10.244.1.1"], "conditions": {"ready": True}},
                {"addresses": ["10.244.1.3"], "conditions": {"ready": False}},
            ],
        }
    ],
}
TAKEN = (
    "tcp 6 9 TIME_WAIT src=10.244.1.9 dst=10.96.0.9 sport=40000 dport=80 "
    "src=10.244.1.1 dst=10.244.1.9 sport=9090 dport=40000 [ASSURED] mark=0 use=1\n"
)


@pytest.mark.parametrize(
    ("address", "port", "said"),
    [
        (POD, 80, "pod shop/web declares that port"),
        (POD, 8080, "it is a ready endpoint of service shop/web"),
        (POD, 81, ""),
        (POD, 53, ""),
        (NODE, 9100, "pod shop/agent declares that port"),
        (NODE, 9200, ""),
        (NOT_READY, 8080, ""),
        (POD, 9090, "n1 tracks a connection that was taken there"),
    ],
)
def test_who_says_so(address: int, port: int, said: str) -> None:
    files = {f"{name}.json": json.dumps({"kind": "List", "items": items}) for name, items in OBJECTS.items()}
    node = NodeState(MemoryNode({"conntrack.txt": TAKEN}))
    assert said_to_listen(ClusterState(MemorySource(files, {})), node, 4, address, port) == said
