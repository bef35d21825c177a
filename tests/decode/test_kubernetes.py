"""Kubernetes objects: what is used of them, and what becomes of objects that are not what they should be."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode import kubernetes
from calico_debug.errors import EvidenceError
from calico_debug.model.cluster import Backend, HostEndpoint, NetworkSet, Node, Pod, Service, ServicePort, Tier

A = ip_address


def named(name: str, namespace: str = "", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **({"namespace": namespace} if namespace else {}), **metadata}}


def test_a_pod() -> None:
    pod = {
        **named("web", "shop", labels={"app": "web"}),
        "spec": {
            "nodeName": "n1",
            "serviceAccountName": "default",
            "containers": [
                {"ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 53, "protocol": "UDP"}]},
                {"ports": [{"containerPort": 80}]},
                {},
            ],
            "initContainers": [
                {"restartPolicy": "Always", "ports": [{"containerPort": 15090, "name": "proxy"}]},
                {"ports": [{"containerPort": 1, "name": "once", "protocol": "UDP"}]},
            ],
        },
        "status": {"phase": "Running", "podIP": "10.0.0.5", "podIPs": [{"ip": "10.0.0.5"}, {"ip": "fd00::5"}]},
    }
    assert kubernetes.decode_pod(pod) == Pod(
        "shop",
        "web",
        "n1",
        (A("10.0.0.5"), A("fd00::5")),
        False,
        "Running",
        {"app": "web"},
        "default",
        {("TCP", "http"): 80, ("TCP", "proxy"): 15090},
        (("TCP", 80), ("UDP", 53), ("TCP", 15090)),
        (("TCP", "http", 80), ("TCP", "proxy", 15090), ("UDP", "once", 1)),
    )


@pytest.mark.parametrize(
    ("owner", "labels", "workload"),
    [
        ({"kind": "ReplicaSet", "name": "web-7f9"}, {"pod-template-hash": "7f9"}, "Deployment web"),
        ({"kind": "ReplicaSet", "name": "web-7f9"}, {}, "ReplicaSet web-7f9"),
        ({"kind": "DaemonSet", "name": "log"}, {"controller-revision-hash": "log"}, "DaemonSet log"),
        ({"kind": "Node", "name": "n1", "controller": False}, {}, ""),
    ],
)
def test_what_made_a_pod(owner: dict[str, Any], labels: dict[str, str], workload: str) -> None:
    metadata = {"labels": labels, "ownerReferences": [{"controller": True, **owner}]}
    assert kubernetes.decode_pod(named("p", "n", **metadata)).workload == workload


@pytest.mark.parametrize(
    ("metadata", "status", "addresses"),
    [
        ({}, {"podIP": "10.0.0.5"}, ["10.0.0.5"]),
        ({}, {}, []),
        ({"annotations": {"cni.projectcalico.org/podIPs": "10.0.0.6/32,fd00::6/128"}}, {}, ["10.0.0.6", "fd00::6"]),
        ({"annotations": {"cni.projectcalico.org/podIP": "10.0.0.6/32"}}, {}, ["10.0.0.6"]),
        ({"annotations": {"cni.projectcalico.org/podIP": "10.0.0.6/32"}}, {"podIP": "10.0.0.5"}, ["10.0.0.5"]),
        # Calico has taken the address back, the kubelet has not said so yet.
        ({"annotations": {"cni.projectcalico.org/podIP": ""}, "deletionTimestamp": "t"}, {"podIP": "10.0.0.5"}, []),
    ],
)
def test_addresses_of_a_pod(metadata: dict[str, Any], status: dict[str, Any], addresses: list[str]) -> None:
    pod = kubernetes.decode_pod({**named("p", "n", **metadata), "status": status})
    assert [str(address) for address in pod.addresses] == addresses


def test_a_service() -> None:
    service = {
        **named("web", "shop"),
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.1",
            "clusterIPs": ["10.96.0.1", "fd00:96::1"],
            "externalIPs": ["192.0.2.9"],
            "externalTrafficPolicy": "Local",
            "ports": [
                {"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080},
                {"port": 53, "protocol": "UDP", "targetPort": 5353},
                {"port": 99},
            ],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.8"}, {"hostname": "x.example"}]}},
    }
    assert kubernetes.decode_service(service) == Service(
        "shop",
        "web",
        "LoadBalancer",
        (A("10.96.0.1"), A("fd00:96::1")),
        (
            ServicePort("http", "TCP", 80, "web", 30080),
            ServicePort("", "UDP", 53, 5353),
            ServicePort("", "TCP", 99, 99),
        ),
        (A("192.0.2.9"),),
        (A("192.0.2.8"),),
        external_policy="Local",
    )


@pytest.mark.parametrize("spec", [{"clusterIP": "None"}, {"clusterIPs": ["None"]}, {"type": "ExternalName"}, {}])
def test_a_service_without_address(spec: dict[str, Any]) -> None:
    assert kubernetes.decode_service({**named("web", "shop"), "spec": spec}).cluster_addresses == ()


def test_an_endpoint_slice() -> None:
    slice_ = {
        **named("web-x1", "shop", labels={"kubernetes.io/service-name": "web"}),
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["10.0.0.5"], "conditions": {"ready": True}, "nodeName": "n1"},
            {
                "addresses": ["10.0.0.6"],
                "conditions": {"ready": False},
                "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-1"},
            },
            {"addresses": ["10.0.0.7"], "conditions": {}},
        ],
        "ports": [{"name": "http", "port": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "all"}],
    }
    service, backends = kubernetes.decode_endpoint_slice(slice_)
    assert service == ("shop", "web")
    assert len(backends) == 6
    assert backends[0] == Backend(A("10.0.0.5"), 8080, "TCP", "http", True, "n1")
    assert backends[3] == Backend(A("10.0.0.6"), 53, "UDP", "dns", False, "", ("shop", "web-1"))
    assert backends[4].ready
    assert kubernetes.decode_endpoint_slice({**slice_, "addressType": "FQDN"})[1] == ()


def test_endpoints() -> None:
    service, backends = kubernetes.decode_endpoints(
        {
            **named("web", "shop"),
            "subsets": [
                {
                    "addresses": [{"ip": "10.0.0.5", "nodeName": "n1"}],
                    "notReadyAddresses": [{"ip": "10.0.0.6"}],
                    "ports": [{"port": 8080}],
                }
            ],
        }
    )
    assert service == ("shop", "web")
    assert [(str(b.address), b.port, b.ready, b.node) for b in backends] == [
        ("10.0.0.5", 8080, True, "n1"),
        ("10.0.0.6", 8080, False, ""),
    ]


def test_a_node() -> None:
    annotations = {
        "projectcalico.org/IPv4Address": "172.30.0.11/24",
        "projectcalico.org/IPv6Address": "fd00:30::11/64",
        "projectcalico.org/IPv4VXLANTunnelAddr": "10.0.0.1",
        "projectcalico.org/IPv4IPIPTunnelAddr": "10.0.0.1",
        "projectcalico.org/IPv4WireguardInterfaceAddr": "10.0.0.2",
    }
    node = {
        **named("n1", annotations=annotations),
        "spec": {"podCIDR": "10.0.0.0/24"},
        "status": {
            "addresses": [
                {"type": "Hostname", "address": "n1"},
                {"type": "ExternalIP", "address": "192.0.2.1"},
                {"type": "InternalIP", "address": "172.30.0.11"},
            ]
        },
    }
    assert kubernetes.decode_node(node) == Node(
        "n1",
        (A("172.30.0.11"), A("192.0.2.1"), A("fd00:30::11")),
        (A("10.0.0.1"), A("10.0.0.2")),
        ("10.0.0.0/24",),
    )


def test_calico_objects_have_the_metadata_of_their_v3_form() -> None:
    annotation = {"projectcalico.org/metadata": json.dumps({"name": "shown", "labels": {"role": "edge"}})}
    entry = {**named("stored", annotations=annotation, labels={"a": "b"}), "spec": {"node": "n1", "interfaceName": "*"}}
    assert kubernetes.decode_host_endpoint(entry) == HostEndpoint("shown", "n1", "*", (), {"a": "b", "role": "edge"})
    plain = {**named("default"), "spec": {"order": 1000000, "defaultAction": "Pass"}}
    assert kubernetes.decode_tier(plain) == Tier("default", 1000000.0, "Pass")
    assert kubernetes.decode_tier(named("late")) == Tier("late", None, "Deny")


def test_pools_and_sets() -> None:
    assert kubernetes.decode_pool({"spec": {"cidr": "10.244.0.0/16"}}) == ip_network("10.244.0.0/16")
    entry = {**named("s", "ns", labels={"a": "b"}), "spec": {"nets": ["192.0.2.0/24", "2001:db8::1"]}}
    nets = (ip_network("192.0.2.0/24"), ip_network("2001:db8::1/128"))
    assert kubernetes.decode_network_set(entry) == NetworkSet("ns", "s", nets, {"a": "b"})
    assert kubernetes.decode_network_set(named("g")) == NetworkSet("", "g", ())


def test_service_accounts() -> None:
    assert kubernetes.decode_service_account(named("sa", "ns", labels={"a": "b"})) == (("ns", "sa"), {"a": "b"})
    assert kubernetes.decode_service_account(named("sa", "ns")) == (("ns", "sa"), {})


def test_profiles_and_ports_of_host_endpoints() -> None:
    spec = {"node": "n1", "profiles": ["p"], "ports": [{"name": "ssh", "protocol": "TCP", "port": 22}]}
    decoded = kubernetes.decode_host_endpoint({**named("h"), "spec": spec})
    assert (decoded.profiles, decoded.ports) == (("p",), (("TCP", "ssh", 22),))


def test_lists_of_every_shape() -> None:
    pod = named("p", "n")
    for document in ({"kind": "List", "items": [pod]}, [pod], pod):
        decoded = kubernetes.decode_objects(json.dumps(document).encode(), "pods.json", kubernetes.decode_pod)
        assert [found.name for found in decoded.items] == ["p"]
    for empty in ({"kind": "PodList", "items": None}, {"kind": "PodList"}, {"items": []}, []):
        assert kubernetes.decode_objects(json.dumps(empty).encode(), "x", kubernetes.decode_pod).items == ()
    for foreign in ({"items": 5}, 7, "x", None):
        with pytest.raises(EvidenceError, match="is not a list of Kubernetes objects"):
            kubernetes.decode_objects(json.dumps(foreign).encode(), "x", kubernetes.decode_pod)


def test_a_garbled_object_is_left_out_with_a_note() -> None:
    broken = [
        {"metadata": {"name": "a"}},
        {**named("b", "n"), "status": {"podIP": "10.0.0.999"}},
        "text",
        named("c", "n"),
        {**named("d", "n"), "spec": {"containers": [{"ports": [{"containerPort": 1e999}]}]}},
    ]
    data = json.dumps({"items": broken}).encode()
    decoded = kubernetes.decode_objects(data, "pods.json of b", kubernetes.decode_pod)
    assert [pod.name for pod in decoded.items] == ["c"]
    assert len(decoded.notes) == 4
    assert decoded.notes[0] == "pods.json of b: object 0 (a) is left out: it has no 'namespace'"
    assert "object 1 (n/b) is left out: '10.0.0.999'" in decoded.notes[1]
    annotated = named("t", annotations={"projectcalico.org/metadata": "{"})
    decoded_tiers = kubernetes.decode_objects(json.dumps([annotated]).encode(), "tiers", kubernetes.decode_tier)
    assert "projectcalico.org/metadata" in decoded_tiers.notes[0]


KEYS = ["metadata", "spec", "status", "name", "namespace", "podIPs", "ip", "containers", "ports", "containerPort"]
KEYS += ["clusterIPs", "endpoints", "addresses", "port", "subsets", "annotations", "labels", "nets", "cidr", "order"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["10.0.0.1", "x", "", "fd00::/64"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.fixed_dictionaries(
    {"metadata": st.fixed_dictionaries({"name": st.just("n"), "namespace": st.just("s")}) | VALUES},
    optional={"spec": VALUES, "status": VALUES, "endpoints": VALUES, "ports": VALUES, "subsets": VALUES},
)


@given(st.lists(OBJECTS, max_size=2))
def test_any_object_decodes_or_is_noted(entries: list[Any]) -> None:
    data = json.dumps({"items": entries}).encode()
    for decode in (
        kubernetes.decode_pod,
        kubernetes.decode_service,
        kubernetes.decode_endpoint_slice,
        kubernetes.decode_endpoints,
        kubernetes.decode_node,
        kubernetes.decode_namespace,
        kubernetes.decode_service_account,
        kubernetes.decode_tier,
        kubernetes.decode_host_endpoint,
        kubernetes.decode_pool,
        kubernetes.decode_network_set,
    ):
        decoded = kubernetes.decode_objects(data, "x", decode)
        assert len(decoded.items) + len(decoded.notes) == len(entries)
