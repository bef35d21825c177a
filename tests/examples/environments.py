"""The environments of docs/examples: their manifests as a cluster's objects, stage by stage, and as the lab's model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from calico_debug.evidence.bundle import open_bundle
from calico_debug.intent.decide import Intent
from calico_debug.model.flow import protocol_name
from calico_debug.state.cluster import ClusterState, load_cluster
from tests.lab import model as lab
from tests.lab.topology import Topology

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
NAMES = ("stars", "yaobank")
RECORDED = EXAMPLES / "recorded"

FILES: Mapping[tuple[str, str], str] = {
    ("v1", "Namespace"): "namespaces",
    ("v1", "Pod"): "pods",
    ("v1", "Service"): "services",
    ("networking.k8s.io/v1", "NetworkPolicy"): "networkpolicies.networking.k8s.io",
    ("projectcalico.org/v3", "NetworkPolicy"): "networkpolicies.projectcalico.org",
    ("projectcalico.org/v3", "GlobalNetworkPolicy"): "globalnetworkpolicies.projectcalico.org",
    ("projectcalico.org/v3", "Tier"): "tiers.projectcalico.org",
}
Object = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """One step of an example: all policies up to it. ``directory`` has ``expected.yaml``."""

    example: str
    directory: Path

    def __str__(self) -> str:
        return f"{self.example}/{self.directory.name}"

    @property
    def expected(self) -> Path:
        return self.directory / "expected.yaml"

    @cached_property
    def lists(self) -> dict[str, list[Object]]:
        """The cluster's objects by file: those of manifests, and what a cluster would add to them."""
        found: dict[str, list[Object]] = {}
        root = EXAMPLES / self.example
        steps = [one for one in sorted(root.iterdir()) if one.is_dir() and one.name <= self.directory.name]
        for path in (root / "environment.yaml", *(step / "policies.yaml" for step in steps)):
            for entry in yaml.safe_load_all(path.read_text()) if path.exists() else ():
                found.setdefault(FILES[entry["apiVersion"], entry["kind"]], []).append(entry)
        _schedule(found)
        return found

    def write(self, directory: Path) -> None:
        """The objects as a bundle's ``cluster/``."""
        cluster = directory / "cluster"
        cluster.mkdir(parents=True, exist_ok=True)
        for old in cluster.iterdir():
            old.unlink()
        for name, items in self.lists.items():
            (cluster / f"{name}.json").write_text(json.dumps({"kind": "List", "items": items}))

    def cluster(self, directory: Path) -> ClusterState:
        """The state of a cluster with these objects."""
        self.write(directory)
        return load_cluster(open_bundle(directory))


def stages() -> list[Stage]:
    """Every stage of every example, in order."""
    return [Stage(name, one) for name in NAMES for one in sorted((EXAMPLES / name).iterdir()) if one.is_dir()]


# ------------------------------------------------------------------------------------ what a cluster adds to manifests


def _schedule(lists: dict[str, list[Object]]) -> None:
    """Nodes, addresses and backends."""
    for number, pod in enumerate(lists["pods"]):
        node = number % 2 + 1
        pod["spec"]["nodeName"] = f"node{node}"
        pod["spec"]["serviceAccountName"] = "default"
        address = f"10.244.{node}.{10 + number}"
        pod["status"] = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    for entry in lists["namespaces"]:
        labels = entry["metadata"].setdefault("labels", {})
        labels["kubernetes.io/metadata.name"] = entry["metadata"]["name"]
    lists["nodes"] = [
        {
            "metadata": {"name": f"node{n}"},
            "status": {"addresses": [{"type": "InternalIP", "address": f"172.30.0.1{n}"}]},
        }
        for n in (1, 2)
    ]
    lists["serviceaccounts"] = [
        {"metadata": {"name": "default", "namespace": entry["metadata"]["name"]}} for entry in lists["namespaces"]
    ]
    lists["endpointslices.discovery.k8s.io"] = []
    for number, service in enumerate(lists["services"], 1):
        service["spec"]["clusterIP"] = f"10.96.0.{number}"
        service["spec"].setdefault("type", "ClusterIP")
        for port in service["spec"]["ports"]:
            port.setdefault("protocol", "TCP")
        lists["endpointslices.discovery.k8s.io"].append(_slice(service, lists["pods"]))


def _slice(service: Object, pods: list[Object]) -> Object:
    (port,) = service["spec"]["ports"]
    backends = list(_backends(service, pods))
    return {
        "addressType": "IPv4",
        "metadata": {
            "name": service["metadata"]["name"],
            "namespace": service["metadata"]["namespace"],
            "labels": {"kubernetes.io/service-name": service["metadata"]["name"]},
        },
        "endpoints": [
            {"addresses": [pod["status"]["podIP"]], "nodeName": pod["spec"]["nodeName"], "conditions": {"ready": True}}
            for pod in backends
        ],
        "ports": [{"name": "", "port": _target(port, backends[0]), "protocol": "TCP"}],
    }


def _backends(service: Object, pods: list[Object]) -> Iterator[Object]:
    wanted = service["spec"]["selector"].items()
    for pod in pods:
        same = pod["metadata"]["namespace"] == service["metadata"]["namespace"]
        if same and wanted <= pod["metadata"]["labels"].items():
            yield pod


def _target(port: Object, pod: Object) -> int:
    """The number of a target port, which may be a name of the container's."""
    declared = [one for container in pod["spec"]["containers"] for one in container["ports"]]
    named = {one.get("name"): one["containerPort"] for one in declared}
    return int(named.get(port["targetPort"], port["targetPort"]))


# ------------------------------------------------------------------------------------------------- the lab's own terms


@dataclass(frozen=True, slots=True)
class Meant(lab.Selector):
    """A selector as the policy's object has it, over all the labels that Calico gives a pod."""

    meaning: Any = None

    def __str__(self) -> str:
        return str(self.meaning or "all()")

    def matches(self, labels: Mapping[str, str]) -> bool:
        return self.meaning is None or bool(self.meaning.evaluate(labels))


def topology(state: ClusterState) -> Topology:
    """The wiring for a cluster's pods; their labels are all that selectors see."""
    pods = [one for one in Intent(state.cluster).applicability.endpoints if one.kind == "pod"]
    ports = {(pod.namespace, pod.name): pod.named_ports for pod in state.pods}
    return Topology(
        tuple(lab.Node(f"node{n}", f"172.30.0.1{n}", "", f"10.244.{n}.0/24", "") for n in (1, 2)),
        tuple(
            lab.Pod(
                pod.namespace,
                pod.name,
                pod.node,
                str(pod.addresses[0]),
                labels=pod.labels,
                ports=tuple(
                    lab.NamedPort(name, protocol.lower(), number)
                    for protocol, name, number in ports[pod.namespace, pod.name]
                ),
            )
            for pod in pods
        ),
        ipv6=False,
    )


def lab_model(state: ClusterState) -> lab.Model:
    """What is to be programmed for a cluster's objects."""
    intent = Intent(state.cluster)
    tiers = {one.name: one for one in state.tiers}
    return lab.Model(
        tiers=(
            *(lab.Tier(name, one.order) for name, one in tiers.items() if name != "default"),
            lab.Tier("default", 1_000_000),
        ),
        policies=tuple(_policy(one) for one in intent.applicability.policies),
        profiles=tuple(
            lab.Profile(name, *((allow,), (allow,)) if name.startswith("kns.") else ())
            for name in dict.fromkeys(name for pod in intent.applicability.endpoints for name in pod.profiles)
            for allow in [lab.Rule("Allow")]
        ),
        services=tuple(
            lab.Service(
                one.namespace,
                one.name,
                (lab.ServicePort(one.ports[0].port, one.backends[0].port),),
                str(one.cluster_addresses[0]),
                backends=tuple(_place(state, backend.address) for backend in one.backends),
            )
            for one in state.services
        ),
    )


def _place(state: ClusterState, address: Any) -> str:
    pod = state.pod_by_address(address)
    assert pod is not None
    return f"{pod.namespace}/{pod.name}"


def _policy(policy: Any) -> lab.Policy:
    ways = {
        way: tuple(_rule(rule) for rule in policy.rules(way)) if way in policy.types else None
        for way in ("ingress", "egress")
    }
    return lab.Policy(
        kind=policy.key.kind,
        name=policy.key.name,
        tier=policy.tier,
        namespace=policy.key.namespace,
        order=policy.order,
        selector=Meant(meaning=policy.selector),
        **ways,
    )


def _rule(rule: Any) -> lab.Rule:
    protocol = None if rule.protocol is None else protocol_name(rule.protocol)
    return lab.Rule(rule.action, protocol, None, _side(rule.source), _side(rule.destination))


def _side(side: Any) -> lab.Entity:
    return lab.Entity(
        selector=Meant(meaning=side.selector) if side.selector is not None else None,
        ports=(*(first if first == last else (first, last) for first, last in side.ports), *side.named_ports),
    )
