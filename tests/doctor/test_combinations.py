"""Features that do not go together, and NodeLocal DNSCache."""

from __future__ import annotations

import json
from ipaddress import ip_address

import pytest

from tests.doctor.patients import bpf, bpf_report, codes, link, link_files, links, report, seen, why
from tests.explain.world import Node, objects

ONE = Node(1, pods=[1])


def information(kind: str) -> dict[str, str]:
    item = {"metadata": {"name": "default"}, "spec": {"clusterType": kind}}
    return {
        **objects([ONE]),
        "clusterinformations.crd.projectcalico.org.json": json.dumps({"items": [item]}),
    }


def labelled(label: str) -> dict[str, str]:
    lists = objects([ONE])
    nodes = json.loads(lists["nodes.json"])
    nodes["items"][0]["metadata"]["labels"] = {label: "x"}
    return {**lists, "nodes.json": json.dumps(nodes)}


@pytest.mark.parametrize(
    ("cluster", "wireguard", "expected"),
    [
        (information("k8s,aks,kdd"), True, [("warning", "unsupported")]),
        (labelled("kubernetes.azure.com/cluster"), True, [("warning", "unsupported")]),
        (information("k8s,aks,kdd"), False, []),
        (information("k8s,kdd"), True, []),
        (labelled("topology.kubernetes.io/zone"), True, []),
    ],
)
def test_wireguard_on_aks(cluster: dict[str, str], wireguard: bool, expected: list[tuple[str, str]]) -> None:
    made = bpf()
    made.files["felix-env.txt"] = f"FELIX_WIREGUARDENABLED={str(wireguard).lower()}\n"
    found = bpf_report(made, cluster)
    assert codes(found) == expected
    if expected:
        assert seen(found, "unsupported")[0].startswith("WireGuard with eBPF on AKS: documented as unsupported in 2022")


def test_wireguards_device_tells_too() -> None:
    made = bpf()
    made.files["felix-env.txt"] = "absent"
    made.files["ip-link.json"] = links(link(4, "wireguard.cali", 1440), mtu=1440)
    found = bpf_report(made, information("aks"))
    assert codes(found) == [("warning", "unsupported")]
    assert "features are judged by devices alone" in why(found, "combinations")[0]


def test_ipvs() -> None:
    files = link_files(link(4, "kube-ipvs0", 1500))
    assert codes(report(Node(1, pods=[1], files=files))) == [("warning", "unsupported")]


def test_kube_proxy_in_another_mode() -> None:
    chains = {"PREROUTING@prerouting:-100:accept:nat": ["jump:KUBE-SERVICES"], "KUBE-SERVICES": ["daddr=10.96.0.9"]}
    assert codes(report(Node(1, pods=[1], tables={"ip nat": chains}))) == [("warning", "unsupported")]
    both = {"ip nat": chains, "ip kube-proxy": {"filter-forward@forward:0": []}}
    assert codes(report(Node(1, pods=[1], tables=both))) == []


def dns(flags: int, address: str = "10.96.0.10") -> list[tuple[str, str]]:
    key = {"address": ip_address("10.96.0.10"), "port": 53, "protocol": 17, "prefix_length": 56}
    made = bpf(entries={"cali_v4_nat_fe3": [(key, {"service_id": 1, "flags": flags})]})
    local = link(4, "nodelocaldns")
    local["addr_info"] = [{"family": "inet", "local": address, "prefixlen": 32, "scope": "global"}]
    made.files["ip-link.json"] = made.files["ip-addr.json"] = links(local)
    return codes(bpf_report(made))


def test_local_dns() -> None:
    assert dns(0) == [("warning", "node-local-dns")]
    assert dns(4) == [("info", "node-local-dns")]
    assert dns(0, "169.254.20.10") == [("info", "node-local-dns")]
    assert codes(report(Node(1, pods=[1], files=link_files(link(4, "nodelocaldns"))))) == []
