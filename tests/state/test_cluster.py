"""The cluster: lazy lists, indices, and notes instead of failures."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from calico_debug.evidence.bundle import open_bundle
from calico_debug.model.cluster import NetworkSet
from calico_debug.state.cluster import ClusterState, load_cluster
from tests.evidence.memory import MemorySource, recorded_bundles

A = ip_address


def pod(name: str, address: str, phase: str = "Running", host: bool = False, namespace: str = "ns") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nodeName": "n1", "hostNetwork": host},
        "status": {"phase": phase, "podIP": address},
    }


def service(name: str, address: str, port: int, protocol: str = "TCP", **spec: Any) -> dict[str, Any]:
    ports = [{"port": port, "protocol": protocol, "nodePort": spec.pop("node_port", None)}]
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": {"clusterIPs": [address], "ports": ports, **spec}}


def slice_of(name: str, *addresses: str) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{name}-x", "namespace": "ns", "labels": {"kubernetes.io/service-name": name}},
        "endpoints": [{"addresses": [address]} for address in addresses],
        "ports": [{"port": 8080}],
    }


NODE = {
    "metadata": {"name": "n1", "annotations": {"projectcalico.org/IPv4VXLANTunnelAddr": "10.244.0.1"}},
    "status": {"addresses": [{"type": "InternalIP", "address": "172.30.0.11"}]},
}


def cluster(**files: Any) -> ClusterState:
    """A cluster of the given lists; "__" in a keyword stands for a dot."""
    named = {f"{file.replace('__', '.')}.json": json.dumps({"items": items}) for file, items in files.items()}
    return load_cluster(MemorySource(named))


def test_lists_are_read_when_asked_for_and_once() -> None:
    source = MemorySource({"pods.json": json.dumps([pod("a", "10.0.0.1")]), "services.json": "[]"})
    state = load_cluster(source)
    assert source.reads == []
    assert state.pod("ns", "a") is state.pod_by_address(A("10.0.0.1"))
    assert state.pods_named("a") == [state.pod("ns", "a")]
    assert state.pod("ns", "b") is None
    assert source.reads == ["pods.json"]


def test_owners_of_addresses() -> None:
    state = cluster(
        pods=[
            pod("old", "10.0.0.1", "Succeeded"),
            pod("new", "10.0.0.1"),
            pod("crashed", "10.0.0.2", "Failed"),
            pod("kube-proxy", "172.30.0.11", host=True),
            pod("twin", "10.0.0.1"),
        ],
        nodes=[NODE],
    )
    owner = state.pod_by_address(A("10.0.0.1"))
    assert owner is not None
    assert owner.name == "new"
    assert state.pod_by_address(A("10.0.0.2")) is None
    assert state.pod_by_address(A("172.30.0.11")) is None
    assert "is the address of pod ns/new and of ns/twin" in state.notes[0]
    for address in ("172.30.0.11", "10.244.0.1"):
        node = state.node_by_address(A(address))
        assert node is not None
        assert node.name == "n1"
    assert state.node_by_address(A("10.0.0.1")) is None
    assert state.node("n1") is not None
    assert state.node("n2") is None


def test_services_by_address_and_port() -> None:
    state = cluster(
        services=[
            service("web", "10.96.0.1", 80, node_port=30080, externalIPs=["192.0.2.1"]),
            service("dns", "10.96.0.2", 53, "UDP"),
            service("alt", "10.96.0.3", 443, externalIPs=["192.0.2.1"]),
        ],
        endpointslices__discovery__k8s__io=[slice_of("web", "10.0.0.1", "10.0.0.2"), slice_of("web", "10.0.0.2")],
    )

    def found(address: str, port: int | None = None, protocol: str | None = None) -> tuple[str, int] | None:
        match = state.service_by_address(A(address), port, protocol)
        return match and (match[0].name, match[1].port if match[1] else 0)

    assert found("10.96.0.1", 80, "TCP") == ("web", 80)
    assert found("10.96.0.1", 80, "UDP") == ("web", 0)
    assert found("10.96.0.1", 81) == ("web", 0)
    assert found("10.96.0.1") == ("web", 0)
    assert found("192.0.2.1", 443, "TCP") == ("alt", 443)
    assert found("10.96.0.9", 80) is None
    behind = state.service_by_node_port(30080, "TCP")
    assert behind is not None
    assert behind[0].name == "web"
    assert state.service_by_node_port(30080, "UDP") is None
    web = state.service("ns", "web")
    assert web is not None
    assert [str(backend.address) for backend in web.backends] == ["10.0.0.1", "10.0.0.2"]
    assert state.services_named("dns") == [state.service("ns", "dns")]


def test_backends_from_endpoints_where_there_are_no_slices() -> None:
    endpoints = {
        "metadata": {"name": "web", "namespace": "ns"},
        "subsets": [{"addresses": [{"ip": "10.0.0.7"}], "ports": [{"port": 8080}]}],
    }
    state = cluster(services=[service("web", "10.96.0.1", 80)], endpoints=[endpoints])
    web = state.service("ns", "web")
    assert web is not None
    assert [str(backend.address) for backend in web.backends] == ["10.0.0.7"]


def test_policies_of_one_kind_read_one_file() -> None:
    crd = [{"metadata": {"name": "a", "namespace": "ns"}, "spec": {}}]
    both = {
        "networkpolicies.crd.projectcalico.org.json": json.dumps(crd),
        "networkpolicies.projectcalico.org.json": json.dumps(crd),
        "networkpolicies.networking.k8s.io.json": json.dumps(crd),
        "globalnetworkpolicies.crd.projectcalico.org.json": json.dumps([{"metadata": {"name": "g"}, "spec": {}}]),
    }
    source = MemorySource(both)
    state = load_cluster(source)
    assert [(p.kind, p.namespace, p.name) for p in state.policies("NetworkPolicy")] == [("NetworkPolicy", "ns", "a")]
    assert source.reads == ["networkpolicies.projectcalico.org.json"]
    assert {p.kind for p in state.policies()} == {"NetworkPolicy", "GlobalNetworkPolicy", "KubernetesNetworkPolicy"}
    assert len(state.policies()) == 3
    assert len(source.reads) == 3


def test_the_rest() -> None:
    state = cluster(
        tiers__crd__projectcalico__org=[{"metadata": {"name": "t"}, "spec": {"order": 1}}],
        hostendpoints__projectcalico__org=[{"metadata": {"name": "h"}, "spec": {"node": "n1"}}],
        namespaces=[{"metadata": {"name": "ns", "labels": {"a": "b"}}}],
        ippools__crd__projectcalico__org=[{"metadata": {"name": "p"}, "spec": {"cidr": "10.0.0.0/8"}}],
        globalnetworksets__crd__projectcalico__org=[{"metadata": {"name": "g"}, "spec": {"nets": ["192.0.2.0/24"]}}],
        networksets__projectcalico__org=[
            {"metadata": {"name": "s", "namespace": "ns", "labels": {"e": "f"}}, "spec": {"nets": ["fd00::1"]}}
        ],
        serviceaccounts=[{"metadata": {"name": "sa", "namespace": "ns", "labels": {"c": "d"}}}],
    )
    assert [tier.name for tier in state.tiers] == ["t"]
    assert [endpoint.node for endpoint in state.host_endpoints] == ["n1"]
    assert state.namespaces == {"ns": {"a": "b"}}
    assert list(state.pools) == [ip_network("10.0.0.0/8")]
    assert state.service_accounts == {("ns", "sa"): {"c": "d"}}
    assert state.network_sets == [
        NetworkSet("", "g", (ip_network("192.0.2.0/24"),)),
        NetworkSet("ns", "s", (ip_network("fd00::1/128"),), {"e": "f"}),
    ]
    whole = state.cluster
    assert (whole.namespaces, whole.service_accounts) == (state.namespaces, state.service_accounts)
    assert whole.network_sets == state.network_sets
    assert state.missing == ("pods.json", "services.json", "endpointslices.discovery.k8s.io.json", "nodes.json")


@pytest.mark.parametrize("text", ["", "{", '{"nftables": []}x', "7"])
def test_damaged_lists_are_notes(text: str) -> None:
    state = load_cluster(MemorySource({"pods.json": text, "services.json": '[{"metadata": {}}]'}))
    assert state.pods == ()
    assert state.services == []
    assert "cluster/pods.json of memory" in state.notes[0]
    assert state.problem("pods.json") == state.notes[0]
    assert "object 0 (without a name) is left out" in state.notes[1]
    assert state.problem("services.json") == ""
    assert "kubectl" in state.problem("nodes.json")


def test_recordings() -> None:
    for path in recorded_bundles():
        state = load_cluster(open_bundle(path))
        whole = state.cluster
        assert state.notes == ()
        assert whole.missing == ()
        assert (len(whole.pods), len(whole.services), len(whole.nodes)) == (11, 10, 2)
        assert len(whole.policies) >= 13
        assert {"default", "security", "platform"} <= {tier.name for tier in whole.tiers}
        for found in whole.pods:
            assert state.pod_by_address(found.addresses[0]) is found
        web = state.service("management-ui", "management-ui")
        assert web is not None
        assert {backend.pod for backend in web.backends} == {("management-ui", "mgmt-ui-79f4")}


def test_lists_that_cannot_be_read_are_problems_of_the_whole() -> None:
    state = load_cluster(MemorySource({"hostendpoints.crd.projectcalico.org.json": "[", "pods.json": "[]"}))
    assert state.cluster.problems == state.problems
    assert len(state.cluster.problems) == 1
