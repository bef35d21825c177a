"""Interfaces, pods, reverse paths and packet size."""

from __future__ import annotations

import json

import pytest

from tests.doctor.patients import bpf, bpf_report, codes, link, link_files, links, report, seen, why
from tests.explain.world import Node, objects


def test_an_interface_without_endpoint() -> None:
    found = report(Node(1, pods=[1], files=link_files(link(4, "cali9"), link(5, "veth9"))))
    assert codes(found) == [("error", "unknown-interface")]
    assert seen(found, "unknown-interface") == ["cali9 has no endpoint among those that Felix programmed"]


def test_an_interface_without_endpoint_beside_programs() -> None:
    made = bpf()
    made.files["ip-link.json"] = links(link(4, "cali9"))
    assert codes(bpf_report(made)) == [("error", "unknown-interface")]


def test_another_prefix() -> None:
    """Azure's CNI plugin calls pods' interfaces azv…"""
    felix = {"felix-env.txt": "FELIX_INTERFACEPREFIX=azv,tap\n"}
    found = report(Node(1, pods=[], files={**link_files(link(4, "azv1")), **felix}))
    assert seen(found, "unknown-interface") == ["azv1 has no endpoint among those that Felix programmed"]


def test_endpoints_of_a_node_that_is_not_programmed_are_not_judged() -> None:
    found = report(Node(1, calico=False, tables={"ip calico": {"filter-FORWARD@forward:0": []}}))
    assert seen(found, "unknown-interface") == []
    assert why(found, "interfaces") == ["Felix has programmed no endpoint at all"]


def test_a_pod_without_interface() -> None:
    node = Node(1, pods=[1])
    found = report(node, cluster=objects([Node(1, pods=[1, 2])]))
    assert codes(found) == [("error", "pod-without-interface")]
    assert "pod shop/pod12 runs here, and no route leads 10.244.1.2 to" in seen(found, "pod-without-interface")[0]


def test_pods_that_need_no_interface_here() -> None:
    lists = objects([Node(1, pods=[1, 2, 3]), Node(2, pods=[4])])
    pods = json.loads(lists["pods.json"])
    pods["items"][1]["status"]["phase"] = "Succeeded"
    pods["items"][2]["spec"]["hostNetwork"] = True
    lists["pods.json"] = json.dumps(pods)
    assert codes(report(Node(1, pods=[1]), cluster=lists)) == []


@pytest.mark.parametrize(
    ("sysctls", "expected"),
    [
        ("all=0 eth0=2", []),
        ("all=2 eth0=1", []),  # the larger counts
        ("all=1 eth0=2", [("error", "rpf-strict")]),
        ("all=0 eth0=1", [("warning", "rpf-strict")]),
        ("all=0 cali1=1", []),
    ],
)
def test_reverse_path(sysctls: str, expected: list[tuple[str, str]]) -> None:
    made = bpf()
    values = [one.split("=") for one in sysctls.split()]
    lines = [f"net.ipv4.conf.{name}.rp_filter = {value}" for name, value in values]
    made.files["sysctl.txt"] = "\n".join([*lines, "net.netfilter.nf_conntrack_max = 9", ""])
    made.tcx.append({"ifindex": 2, "ifname": "eth0", "hook": "tcx/ingress", "prog_ids": [10]})
    assert codes(bpf_report(made)) == expected


def test_reverse_path_without_evidence() -> None:
    made = bpf()
    made.files["sysctl.txt"] = "net.ipv4.ip_forward = 1\n"
    assert "rp_filter is not in evidence" in why(bpf_report(made), "reverse path")[0]


VXLAN = {"kind": "vxlan", "local": "172.30.0.1", "id": 4096}


def pools(mode: str) -> dict[str, str]:
    lists = objects([Node(1, pods=[1])])
    pool = {"metadata": {"name": "p"}, "spec": {"cidr": "10.244.0.0/16", "vxlanMode": mode}}
    lists["ippools.crd.projectcalico.org.json"] = json.dumps({"items": [pool]})
    return lists


@pytest.mark.parametrize(
    ("pod", "tunnel", "mode", "expected"),
    [
        (1450, 1450, "Always", []),
        (1500, 1450, "CrossSubnet", [("warning", "mtu-pod")]),
        (1450, 1500, "Always", [("warning", "mtu-tunnel")]),
        (1500, 1450, "Never", []),
        (1501, 1450, "Never", [("warning", "mtu-pod")]),
    ],
)
def test_vxlan(pod: int, tunnel: int, mode: str, expected: list[tuple[str, str]]) -> None:
    files = link_files(link(4, "vxlan.calico", tunnel, **VXLAN), mtu=pod)
    assert codes(report(Node(1, pods=[1], files=files), cluster=pools(mode))) == expected


@pytest.mark.parametrize(
    ("name", "room"), [("tunl0", 1480), ("wireguard.cali", 1440), ("wg-v6.cali", 1420), ("vxlan-v6.calico", 1430)]
)
def test_overheads(name: str, room: int) -> None:
    lists = {key: text for key, text in objects([Node(1, pods=[1])]).items() if not key.startswith("ippools")}
    fits = Node(1, pods=[1], files=link_files(link(4, name, room), mtu=room))
    assert codes(report(fits, cluster=lists)) == []
    large = report(Node(1, pods=[1], files=link_files(link(4, name, room + 1), mtu=room + 1)), cluster=lists)
    assert codes(large) == [("warning", "mtu-pod"), ("warning", "mtu-tunnel")]
    assert f"leaves {room}" in seen(large, "mtu-pod")[0]


def test_a_tunnel_that_is_down_does_not_count() -> None:
    files = link_files(link(4, "tunl0", 1480, up=False))
    assert codes(report(Node(1, pods=[1], files=files))) == []
