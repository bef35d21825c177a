from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest

from calico_debug.intent.flows import AskedFlow, policy_flows
from calico_debug.model.flow import Endpoint, Flow
from calico_debug.state.cluster import ClusterState, load_cluster
from tests.evidence.memory import MemorySource


def pod(name: str, number: int, node: str) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "podIP": f"10.0.0.{number}"},
    }


def cluster(**spec: Any) -> ClusterState:
    ports = [{"name": "web", "port": 80, "targetPort": 8080, "nodePort": 30080}]
    service = {"clusterIP": "10.96.0.1", "ports": ports, "type": "NodePort", **spec}
    endpoints = [
        {"addresses": ["10.0.0.1"], "nodeName": "n1"},
        {"addresses": ["10.0.0.2"], "nodeName": "n2"},
        {"addresses": ["10.0.0.9"], "nodeName": "n2", "conditions": {"ready": False}},
    ]
    slices = [
        {
            "metadata": {"namespace": "shop", "name": "x", "labels": {"kubernetes.io/service-name": "api"}},
            "endpoints": endpoints,
            "ports": [{"name": "web", "port": 8080}, {"name": "other", "port": 9}],
        }
    ]
    nodes = [
        {"metadata": {"name": f"n{n}"}, "status": {"addresses": [{"type": "InternalIP", "address": f"172.30.0.{n}"}]}}
        for n in (1, 2)
    ]
    lists = {
        "pods": [pod("a", 1, "n1"), pod("b", 2, "n2"), pod("c", 3, "n1")],
        "services": [{"metadata": {"namespace": "shop", "name": "api"}, "spec": service}],
        "endpointslices.discovery.k8s.io": slices,
        "nodes": nodes,
    }
    return load_cluster(MemorySource({f"{name}.json": json.dumps(items) for name, items in lists.items()}, {}))


def asked(source: str, destination: str, port: int | None, protocol: int = 6, via: str | None = None) -> Flow:
    return Flow(Endpoint(ip_address(source), 4000), Endpoint(ip_address(destination), port), protocol, via)


def told(found: tuple[AskedFlow, ...]) -> list[tuple[str, int | None, bool]]:
    return [(str(one.flow.destination), one.flow.destination_port, bool(one.flow.source_doubt)) for one in found]


def test_flows_to_no_service() -> None:
    (one,) = policy_flows(asked("10.0.0.3", "10.0.0.1", 8080, via="n1"), cluster())
    assert (one.flow.source_port, one.flow.destination_port, one.flow.asked_for, one.service) == (
        4000,
        8080,
        None,
        None,
    )
    assert one.via == "n1"
    (unknown,) = policy_flows(asked("10.0.0.3", "10.96.0.1", 81), cluster())
    assert str(unknown.flow.destination) == "10.96.0.1"


@pytest.mark.parametrize(("protocol", "icmp"), [(1, (8, 0)), (58, (128, 0)), (6, None)])
def test_icmp_is_an_echo_request(protocol: int, icmp: tuple[int, int] | None) -> None:
    (one,) = policy_flows(asked("10.0.0.3", "10.0.0.1", 80, protocol), cluster())
    assert one.flow.icmp == icmp
    assert one.flow.destination_port == (80 if protocol == 6 else None)


def test_one_flow_a_backend_that_is_ready() -> None:
    found = policy_flows(asked("10.0.0.3", "10.96.0.1", 80), cluster())
    assert told(found) == [("10.0.0.1", 8080, False), ("10.0.0.2", 8080, False)]
    assert found[0].flow.asked_for == (ip_address("10.96.0.1"), 80)
    assert found[0].service == ("shop", "api")


def test_sources_that_may_be_masqueraded() -> None:
    own = told(policy_flows(asked("10.0.0.1", "10.96.0.1", 80), cluster()))
    assert own == [("10.0.0.1", 8080, True), ("10.0.0.2", 8080, False)]
    assert told(policy_flows(asked("192.0.2.1", "10.96.0.1", 80), cluster()))[0] == ("10.0.0.1", 8080, True)
    assert told(policy_flows(asked("10.0.0.3", "172.30.0.1", 30080), cluster()))[0] == ("10.0.0.1", 8080, True)


def test_local_policies() -> None:
    outside = cluster(externalTrafficPolicy="Local")
    assert told(policy_flows(asked("10.0.0.3", "172.30.0.2", 30080), outside)) == [("10.0.0.2", 8080, False)]
    assert len(policy_flows(asked("10.0.0.3", "10.96.0.1", 80), outside)) == 2
    inside = cluster(internalTrafficPolicy="Local")
    assert told(policy_flows(asked("10.0.0.3", "10.96.0.1", 80), inside)) == [("10.0.0.1", 8080, False)]
    assert told(policy_flows(asked("10.0.0.2", "10.96.0.1", 80), inside)) == [("10.0.0.2", 8080, True)]


def test_services_without_backends() -> None:
    assert policy_flows(asked("10.0.0.3", "10.96.0.1", 80), cluster(ports=[{"name": "none", "port": 80}])) == ()
