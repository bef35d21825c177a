"""Who has which flow, from the objects of a made-up cluster."""

from __future__ import annotations

import json
from typing import Any

from calico_debug.doctor.model import ClusterView
from calico_debug.lockout.vitals import SOMEWHERE, VITALS, Facts
from calico_debug.model.cluster import FelixConfiguration
from calico_debug.state.cluster import load_cluster
from tests.evidence.memory import MemorySource


def node(number: int, provider: str = "") -> dict[str, Any]:
    address = [{"type": "InternalIP", "address": f"10.0.0.{number}"}]
    return {"metadata": {"name": f"n{number}"}, "spec": {"providerID": provider}, "status": {"addresses": address}}


def service(namespace: str, name: str, port: int, protocol: str = "TCP") -> dict[str, Any]:
    spec = {"clusterIP": "10.96.0.1", "ports": [{"port": port, "protocol": protocol}]}
    return {"metadata": {"namespace": namespace, "name": name}, "spec": spec}


def endpoints(namespace: str, name: str, port: int, *addresses: str, protocol: str = "TCP") -> dict[str, Any]:
    subset = {"addresses": [{"ip": one} for one in addresses], "ports": [{"port": port, "protocol": protocol}]}
    return {"metadata": {"namespace": namespace, "name": name}, "subsets": [subset]}


def facts(pool: dict[str, str] | None, *api: str, felix: dict[str, Any] | None = None, provider: str = "") -> Facts:
    lists: dict[str, list[dict[str, Any]]] = {
        "nodes.json": [node(1, provider), node(2), node(3)],
        "services.json": [
            service("default", "kubernetes", 443),
            service("kube-system", "kube-dns", 53, "UDP"),
            service("calico-system", "calico-typha", 5473),
        ],
        "endpoints.json": [
            endpoints("default", "kubernetes", 6443, *api),
            endpoints("kube-system", "kube-dns", 5353, "10.244.0.9", protocol="UDP"),
            endpoints("calico-system", "calico-typha", 5473, "10.0.0.3"),
        ],
    }
    if pool is not None:
        lists["ippools.projectcalico.org.json"] = [
            {"metadata": {"name": "p"}, "spec": {"cidr": "10.244.0.0/16", **pool}}
        ]
    source = MemorySource({name: json.dumps({"items": items}) for name, items in lists.items()})
    settings = [FelixConfiguration("default", felix or {})]
    return Facts(ClusterView(source, load_cluster(source)), settings)


def flows(found: Facts, name: str) -> dict[tuple[str, str], list[tuple[str, int | None]]]:
    owner = next(one for one in found.cluster.nodes if one.name == name)
    rows: dict[tuple[str, str], list[tuple[str, int | None]]] = {}
    for one in found.flows(owner):
        key = (one.vital.name, one.vital.direction)
        rows.setdefault(key, []).append((str(one.peer_address), one.flow.destination_port))
    return rows


def test_one_control_plane() -> None:
    found = facts({"vxlanMode": "Always"}, "10.0.0.1")
    first, second, third = (flows(found, name) for name in ("n1", "n2", "n3"))
    assert first["API server", "ingress"] == [("10.0.0.2", 6443), ("10.0.0.3", 6443)]
    assert ("API server", "egress") not in first
    assert second["API server", "egress"] == [("10.0.0.1", 6443)]
    assert second["kubelet", "ingress"] == [("10.0.0.1", 10250)]
    assert first["kubelet", "egress"] == [("10.0.0.2", 10250), ("10.0.0.3", 10250)]
    assert second["DNS of the cluster", "egress"] == [("10.244.0.9", 5353)]
    assert second["Typha", "egress"] == [("10.0.0.3", 5473)]
    assert third["Typha", "ingress"] == [("10.0.0.1", 5473), ("10.0.0.2", 5473)]
    assert ("etcd peers", "ingress") not in first
    assert ("metadata", "egress") not in first
    assert second["SSH", "ingress"] == [(str(SOMEWHERE[0][1]), 22)]


def test_several_control_planes_have_etcd() -> None:
    found = flows(facts({"vxlanMode": "Never"}, "10.0.0.1", "10.0.0.2"), "n1")
    assert found["etcd peers", "ingress"] == [("10.0.0.2", 2380)]
    assert found["etcd clients", "egress"] == [("10.0.0.2", 2379)]
    assert ("etcd peers", "ingress") not in flows(facts({}, "10.0.0.1", "10.0.0.2"), "n3")


def test_encapsulation_by_pools_and_settings() -> None:
    tunnels = [("VXLAN", "ingress"), ("IP in IP", "egress"), ("BGP", "ingress"), ("WireGuard", "egress")]

    def used(found: Facts) -> list[bool]:
        rows = flows(found, "n1")
        return [key in rows for key in tunnels]

    assert used(facts({"vxlanMode": "CrossSubnet"}, "10.0.0.1")) == [True, False, False, False]
    assert used(facts({"ipipMode": "Always"}, "10.0.0.1")) == [False, True, True, False]
    assert used(facts({"vxlanMode": "Never"}, "10.0.0.1", felix={"wireguardEnabled": True})) == [
        False,
        False,
        True,
        True,
    ]
    unknown = facts(None, "10.0.0.1")
    assert used(unknown) == [True, True, True, False]
    assert any("encapsulation" in gap for gap in unknown.gaps)
    moved = facts({"vxlanMode": "Always"}, "10.0.0.1", felix={"vxlanPort": 4790})
    assert flows(moved, "n1")["VXLAN", "ingress"][0][1] == 4790


def test_clouds_have_a_metadata_service() -> None:
    assert flows(facts({}, provider="aws:///eu-west-1/i-1"), "n2")["metadata", "egress"] == [("169.254.169.254", 80)]
    assert ("metadata", "egress") not in flows(facts({}, provider="kind://x"), "n2")


def test_gaps_are_said() -> None:
    assert [gap.split(" ")[0] for gap in facts({}).gaps] == ["who"]


def test_rows_are_each_of_their_own() -> None:
    keys = [(one.name, one.direction) for one in VITALS]
    assert len(set(keys)) == len(keys)
