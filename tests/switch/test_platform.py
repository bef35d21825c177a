"""Kernels, interfaces, and features that the dataplane does not support."""

from __future__ import annotations

from typing import Any

import pytest

from calico_debug.switch.platform import UNSUPPORTED
from tests.switch.sources import Json, checked, found, items, source, unseen
from tests.switch.test_installation import FELIX, INSTALLATIONS, KUBE_PROXY, felix, kube_proxy

NODES = "nodes.json"
RELEASE = "clusterinformations.crd.projectcalico.org.json"


def nodes(**info: str) -> list[Json]:
    found_nodes = items("nft", NODES)
    for node in found_nodes:
        node.setdefault("status", {})["nodeInfo"] = info
    return found_nodes


@pytest.mark.parametrize(
    ("version", "code"),
    [
        ("6.1.0-18-amd64", ""),
        ("5.8.0", ""),
        ("5.4.0-42-generic", "kernel-old"),
        ("5.2.21", "kernel-too-old"),
        ("4.18.0-193.el8.x86_64", "kernel-old"),
        ("4.18.0-147.el8.x86_64", "kernel-too-old"),
        ("4.18.0-193-generic", "kernel-too-old"),
    ],
)
def test_kernel(version: str, code: str) -> None:
    report = checked("nft", "ebpf", {NODES: nodes(kernelVersion=version)})
    codes = [one.code for one in report.findings if one.code.startswith("kernel")]
    assert codes == [code, code] if code else not codes
    assert not unseen(report, "kernel")


def test_a_kernel_that_is_not_told() -> None:
    assert len(unseen(checked("nft", "ebpf"), "kernel")) == 2
    assert not unseen(checked("bpf", "nftables"), "kernel")


def test_data_interface() -> None:
    assert not found(checked("nft", "ebpf"), "data-interface")
    report = checked("nft", "ebpf", {FELIX: felix(bpfDataIfacePattern="^ens")}, felix_env__txt=b"A=b\n")
    assert [one[:2] for one in found(report, "data-interface")] == [("error", "node1"), ("error", "node2")]
    both = felix(bpfDataIfacePattern="^ens", bpfL3IfacePattern="^eth")
    assert not found(checked("nft", "ebpf", {FELIX: both}, felix_env__txt=b"A=b\n"), "data-interface")
    broken = checked("nft", "ebpf", {FELIX: felix(bpfDataIfacePattern="(")}, felix_env__txt=b"A=b\n")
    assert "cannot be read" in unseen(broken, "data interface")[0]


def test_the_nodes_own_setting_goes_first() -> None:
    own = [
        *felix(bpfDataIfacePattern="^ens"),
        {"metadata": {"name": "node.node1"}, "spec": {"bpfDataIfacePattern": "."}},
    ]
    report = checked("nft", "ebpf", {FELIX: own}, felix_env__txt=b"A=b\n")
    assert [one[1] for one in found(report, "data-interface")] == ["node2"]


WINDOWS = {"metadata": {"name": "w1", "labels": {"kubernetes.io/os": "windows"}}, "status": {}}


@pytest.mark.parametrize(
    ("row", "lists", "environment"),
    [
        ("WireGuard on AKS", {RELEASE: [{"spec": {"clusterType": "k8s,aks"}}]}, "FELIX_WIREGUARDENABLED=true"),
        ("a processor other than amd64 and arm64", {NODES: nodes(architecture="s390x")}, ""),
        ("GKE", {INSTALLATIONS: [{"spec": {"kubernetesProvider": "GKE"}}]}, ""),
        ("Windows nodes beside eBPF nodes", {NODES: [*items("nft", NODES), WINDOWS]}, ""),
        ("floating addresses", {FELIX: felix(floatingIPs="Enabled")}, ""),
        ("the datastore etcd", {}, "FELIX_DATASTORETYPE=etcdv3"),
    ],
)
def test_unsupported(row: str, lists: dict[str, Any], environment: str) -> None:
    name = next(one.name for one in UNSUPPORTED if one.name == row)
    report = checked("nft", "ebpf", lists, felix_env__txt=f"A=b\n{environment}\n".encode())
    assert {one[2].partition(" (")[0] for one in found(report, "unsupported")} == {name}


def test_nothing_unsupported() -> None:
    assert not found(checked("nft", "ebpf"), "unsupported")


def test_a_tagged_device() -> None:
    tagged = source("nft").node("node1").read("ip-link.json").replace(b'"veth"', b'"vlan"')
    report = checked("nft", "ebpf", None, ip_link__json=tagged)
    assert ("warning", "node1") in [one[:2] for one in found(report, "unsupported")]


def test_kube_proxy_that_is_no_daemon_set() -> None:
    assert len(found(checked("nft", "ebpf", {KUBE_PROXY: []}), "kube-proxy-elsewhere")) == 2
    assert not found(checked("nft", "ebpf", {KUBE_PROXY: kube_proxy()}), "kube-proxy-elsewhere")
    assert not found(checked("bpf", "ebpf", {KUBE_PROXY: []}), "kube-proxy-elsewhere")


@pytest.mark.parametrize(
    ("mode", "target", "number"),
    [("nft", "iptables", 2), ("iptables", "nftables", 2), ("nft", "nftables", 0), ("bpf", "iptables", 0)],
)
def test_mode_of_kube_proxy(mode: str, target: str, number: int) -> None:
    assert len(found(checked(mode, target), "kube-proxy-mode")) == number


def test_ipvs() -> None:
    links = source("iptables").node("node1").read("ip-link.json").replace(b'"lo"', b'"kube-ipvs0"')
    report = checked("iptables", "nftables", None, ip_link__json=links)
    assert "IPVS" in found(report, "kube-proxy-mode")[0][2]


@pytest.mark.parametrize(("version", "number"), [("v3.28.2", 1), ("v3.29.0", 0), ("v3.32.1", 0)])
def test_release(version: str, number: int) -> None:
    lists = {RELEASE: [{"spec": {"calicoVersion": version}}]}
    assert len(found(checked("iptables", "nftables", lists), "release-too-old")) == number
    assert not found(checked("iptables", "ebpf", lists), "release-too-old")
    assert "not told" in unseen(checked("iptables", "nftables", {RELEASE: [{"spec": {}}]}), "release")[0]


def test_a_node_that_is_there_already() -> None:
    assert len(found(checked("bpf", "ebpf"), "already-there")) == 2
    assert not found(checked("bpf", "nftables"), "already-there")
