"""Objects keep the fields that explanations use, and no other."""

from __future__ import annotations

import json

import pytest

from calico_debug.errors import EvidenceError
from calico_debug.redact.objects import METADATA, redact_ip, redact_objects, redact_spec
from calico_debug.redact.text import TextRedactor

TEXT = TextRedactor(bytes(32), addresses=True, names=True, chains={True: {}, False: {}})
SHOP, ONE = TEXT.word("shop"), TEXT.text("10.1.2.3")


def test_ports_of_policies_for_whole_clusters_stay() -> None:
    protocols = [{"tcp": {"destinationPort": {"number": 80}}}, {"udp": {"destinationPort": {"range": {"start": 1}}}}]
    rule = {"action": "Deny", "protocols": [*protocols, {"destinationNamedPort": "http"}]}
    found = redact_spec({"ingress": [rule], "canary": 1}, TEXT)
    assert found["ingress"][0]["protocols"][:2] == protocols
    assert found["ingress"][0]["protocols"][2] == {"destinationNamedPort": TEXT.word("http", is_name=True)}
    assert "canary" not in found


def test_a_pod() -> None:
    pod = {
        "kind": "Pod",
        "metadata": {
            "name": "shop",
            "uid": "canary",
            "labels": {"shop": "shop", "k8s-app": "kube-dns"},
            "annotations": {"cni.projectcalico.org/podIP": "10.1.2.3/32", "owner": "canary"},
        },
        "spec": {"containers": [{"image": "canary", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]},
        "status": {"phase": "Running", "podIP": "10.1.2.3", "message": "canary"},
    }
    assert redact_objects({"items": [pod]}, TEXT) == {
        "items": [
            {
                "kind": "Pod",
                "metadata": {
                    "name": SHOP,
                    "labels": {SHOP: SHOP, TEXT.word("k8s-app"): "kube-dns"},
                    "annotations": {"cni.projectcalico.org/podIP": f"{ONE}/32"},
                },
                "spec": {"containers": [{"ports": [{"containerPort": 80, "protocol": "TCP"}]}]},
                "status": {"phase": "Running", "podIP": ONE},
            }
        ]
    }


def test_a_policy() -> None:
    spec = {
        "tier": "default",
        "selector": "shop == 'shop' && has(shop)",
        "ingress": [{"action": "Allow", "source": {"nets": ["10.1.2.3/32"]}, "destination": {"ports": [80, "90:99"]}}],
    }
    found = redact_objects({"spec": spec}, TEXT)["spec"]
    assert found["selector"] == f"{SHOP} == '{SHOP}' && has({SHOP})"
    assert found["ingress"][0]["source"] == {"nets": [f"{ONE}/32"]}
    assert found["ingress"][0]["destination"] == {"ports": [80, "90:99"]}


def test_settings() -> None:
    """What the checks before a switch read stays, and what it says of the cluster does not."""
    name = {"name": "kubernetes-services-endpoint", "namespace": "tigera-operator"}
    data = {"KUBERNETES_SERVICE_HOST": "10.1.2.3", "KUBERNETES_SERVICE_PORT": "6443", "password": "canary"}
    redacted = redact_objects({"items": [{"kind": "ConfigMap", "metadata": name, "data": data}]}, TEXT)["items"][0]
    assert redacted["metadata"] == name
    assert redacted["data"] == {"KUBERNETES_SERVICE_HOST": ONE, "KUBERNETES_SERVICE_PORT": "6443"}
    spec = {"calicoNetwork": {"linuxDataplane": "BPF", "hostPorts": "Enabled"}, "registry": "canary"}
    assert redact_objects({"items": [{"spec": spec}]}, TEXT) == {
        "items": [{"spec": {"calicoNetwork": {"linuxDataplane": "BPF", "hostPorts": "Enabled"}}}]
    }
    settings = {"bpfExternalServiceMode": "DSR", "bpfKubeProxyIptablesCleanupEnabled": False}
    assert redact_objects({"items": [{"spec": settings}]}, TEXT) == {"items": [{"spec": settings}]}


def test_selectors_of_services_are_labels() -> None:
    assert redact_objects({"spec": {"selector": {"shop": "shop"}}}, TEXT) == {"spec": {"selector": {SHOP: SHOP}}}


def test_metadata_within_an_annotation() -> None:
    meta = {"annotations": {METADATA: json.dumps({"name": "default.shop", "uid": "canary"})}}
    found = redact_objects({"metadata": meta}, TEXT)["metadata"]["annotations"][METADATA]
    assert json.loads(found) == {"name": f"default.{SHOP}"}
    with pytest.raises(EvidenceError, match="not JSON"):
        redact_objects({"metadata": {"annotations": {METADATA: "{shop"}}}, TEXT)


def test_links_and_addresses() -> None:
    link = {"ifname": "shop", "operstate": "UP", "address": "02:42:ac:11:00:02", "ifalias": "canary", "mtu": 1500}
    (found,) = redact_ip([link], TEXT)
    assert (found["ifname"], found["operstate"], found["mtu"]) == (SHOP, "UP", 1500)
    assert "canary" not in json.dumps(found)
    assert found["address"] != link["address"]


def test_felix_settings_that_are_used_are_kept() -> None:
    spec = {
        "failsafeInboundHostPorts": [{"protocol": "TCP", "port": 22, "net": "10.0.0.0/8"}],
        "defaultEndpointToHostAction": "Accept",
        "vxlanPort": 4790,
        "logFilePath": "/var/log/secret",
    }
    made = redact_objects({"items": [{"metadata": {"name": "default"}, "spec": spec}]}, TEXT)["items"][0]
    assert made["metadata"]["name"] == "default"
    assert made["spec"]["defaultEndpointToHostAction"] == "Accept"
    assert made["spec"]["vxlanPort"] == 4790
    (port,) = made["spec"]["failsafeInboundHostPorts"]
    assert (port["protocol"], port["port"]) == ("TCP", 22)
    assert port["net"].endswith("/8")
    assert "logFilePath" not in made["spec"]


def test_settings_of_one_node_stay_those_of_that_node() -> None:
    made = redact_objects({"metadata": {"name": "node.shop"}}, TEXT)
    assert made["metadata"]["name"] == f"node.{SHOP}"
