"""The API server's address, kube-proxy and the Installation."""

from __future__ import annotations

from typing import Any

import pytest

from tests.switch.sources import checked, found, items, unseen

ENDPOINT = "configmaps-kubernetes-services-endpoint.json"
KUBE_PROXY = "daemonsets.apps-kube-proxy.json"
INSTALLATIONS = "installations.operator.tigera.io.json"
FELIX = "felixconfigurations.projectcalico.org.json"
OPERATOR = "tigera-operator"


def endpoint(host: str = "172.30.0.1", port: str = "6443", namespace: str = OPERATOR) -> list[dict[str, Any]]:
    data = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    return [{"metadata": {"namespace": namespace, "name": "kubernetes-services-endpoint"}, "data": data}]


def installation(**network: object) -> list[dict[str, Any]]:
    return [{"metadata": {"name": "default"}, "spec": {"calicoNetwork": network}}]


def kube_proxy(wanted: int | None = 2, **selector: str) -> list[dict[str, Any]]:
    spec = {"template": {"spec": {"nodeSelector": selector}}}
    status = {} if wanted is None else {"desiredNumberScheduled": wanted}
    return [{"metadata": {"namespace": "kube-system", "name": "kube-proxy"}, "spec": spec, "status": status}]


def felix(**settings: object) -> list[dict[str, Any]]:
    return [{"metadata": {"name": "default"}, "spec": settings}]


@pytest.mark.parametrize(
    ("maps", "network", "code", "text"),
    [
        (endpoint(), {}, "", ""),
        (endpoint("10.96.0.1", "443"), {}, "api-server-address", "10.96.0.1 is the address of service default/kube"),
        (endpoint("10.244.2.53"), {}, "api-server-address", "10.244.2.53 is the address of pod kube-system/coredns-0"),
        (endpoint("kubernetes.default.svc"), {}, "api-server-address", "is a name of the cluster's own DNS"),
        (endpoint("api.cluster.local"), {}, "api-server-address", "is a name of the cluster's own DNS"),
        (endpoint(""), {}, "api-server-address", "names host 'none' and port '6443'"),
        (endpoint(port="https"), {}, "api-server-address", "and port 'https'"),
        (endpoint(namespace="kube-system"), {}, "api-server-address", "it is in kube-system, and read in tigera-op"),
        ([], {}, "api-server-missing", "there is no ConfigMap kubernetes-services-endpoint (read in tigera"),
        ([], {"bpfNetworkBootstrap": "Enabled"}, "", ""),
        (endpoint(), {"bpfNetworkBootstrap": "Enabled"}, "api-server-twice", "the ConfigMap is in tigera-operator"),
    ],
)
def test_address_of_the_api_server(maps: list[dict[str, Any]], network: dict[str, str], code: str, text: str) -> None:
    report = checked("nft", "ebpf", {ENDPOINT: maps, INSTALLATIONS: installation(**network)})
    codes = [one.code for one in report.findings if one.code.startswith("api-server")]
    assert codes == ([code] if code else [])
    assert not code or text in found(report, code)[0][2]
    assert not unseen(report, "API server")


def test_an_installation_by_manifest_reads_it_elsewhere() -> None:
    here = {ENDPOINT: endpoint(namespace="kube-system"), INSTALLATIONS: []}
    assert not found(checked("nft", "ebpf", here), "api-server-address")
    there = checked("nft", "ebpf", {ENDPOINT: endpoint(), INSTALLATIONS: []})
    assert "read in kube-system" in found(there, "api-server-address")[0][2]


def test_what_is_not_known_of_the_address() -> None:
    named = checked("nft", "ebpf", {ENDPOINT: endpoint("api.example.net")})
    assert "resolve and reach api.example.net:6443 by themselves" in unseen(named, "API server")[0]
    assert "--field-selector" in unseen(checked("nft", "ebpf"), "API server")[0]
    assert not unseen(checked("nft", "iptables"), "API server")


@pytest.mark.parametrize(
    ("target", "daemon_set", "lists", "code"),
    [
        ("ebpf", kube_proxy(), {}, "kube-proxy-runs"),
        ("ebpf", kube_proxy(0, **{"non-calico": "true"}), {}, ""),
        ("ebpf", kube_proxy(), {FELIX: felix(bpfKubeProxyIptablesCleanupEnabled=False)}, ""),
        ("ebpf", kube_proxy(), {FELIX: felix(bpfKubeProxyIptablesCleanupEnabled=True)}, "kube-proxy-runs"),
        ("ebpf", kube_proxy(), {INSTALLATIONS: installation(kubeProxyManagement="Enabled")}, ""),
        ("nftables", kube_proxy(), {}, ""),
        ("iptables", kube_proxy(0, **{"non-calico": "true"}), {}, "kube-proxy-stopped"),
        ("iptables", kube_proxy(0), {INSTALLATIONS: installation(kubeProxyManagement="Enabled")}, ""),
    ],
)
def test_kube_proxy(target: str, daemon_set: list[Any], lists: dict[str, Any], code: str) -> None:
    report = checked("bpf", target, {KUBE_PROXY: daemon_set, **lists})
    codes = [one.code for one in report.findings if one.code in ("kube-proxy-runs", "kube-proxy-stopped")]
    assert codes == ([code] if code else [])
    assert not unseen(report, "kube-proxy")


def test_what_is_not_known_of_kube_proxy() -> None:
    assert "metadata.name=kube-proxy" in unseen(checked("nft", "ebpf"), "kube-proxy")[0]
    assert "on how many nodes" in unseen(checked("nft", "ebpf", {KUBE_PROXY: kube_proxy(None)}), "kube-proxy")[0]
    other = {"metadata": {"name": "calico-node"}, "status": {"desiredNumberScheduled": 3}}
    assert not found(checked("nft", "ebpf", {"daemonsets.apps.json": [other]}), "kube-proxy-runs")


def test_what_the_installation_says() -> None:
    report = checked("nft", "ebpf", {INSTALLATIONS: installation(linuxDataplane="BPF", hostPorts="Enabled")})
    assert found(report, "already-there") == [("info", "", "the Installation has linuxDataplane: BPF")]
    assert found(report, "host-ports")[0][2].endswith("hostPorts: Enabled")
    assert not found(checked("nft", "ebpf", {INSTALLATIONS: installation(linuxDataplane="Nftables")}), "already-there")


def test_pods_with_host_ports() -> None:
    pods = items("nft", "pods.json")
    assert not found(checked("nft", "ebpf", {"pods.json": pods}), "host-ports")
    pods[0]["spec"]["containers"] = [{"ports": [{"containerPort": 80, "hostPort": 8080}]}]
    name = f"{pods[0]['metadata']['namespace']}/{pods[0]['metadata']['name']}"
    assert found(checked("nft", "ebpf", {"pods.json": pods}), "host-ports") == [
        ("warning", "", f"pods with host ports: {name}")
    ]
    pods[0]["spec"]["hostNetwork"] = True
    assert not found(checked("nft", "ebpf", {"pods.json": pods}), "host-ports")


def test_lists_that_are_missing_are_told() -> None:
    reasons = unseen(checked("nft", "ebpf"), "evidence")
    assert any("installations.operator.tigera.io.json" in why for why in reasons)
    assert any("felixconfigurations" in why for why in reasons)
    report = checked("nft", "ebpf", {INSTALLATIONS: [], FELIX: []})
    assert not unseen(report, "evidence")
