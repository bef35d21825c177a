"""Before a switch: what the cluster's objects say of the API server's address, kube-proxy and the Installation.

Sources: Calico's documentation of v3.32 (operations/ebpf), manifests/operator-crds.yaml of v3.28 to v3.32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from calico_debug.doctor.model import ClusterView, Symptom, Unknown, part
from calico_debug.state.dataplane import EBPF, IPTABLES, NFTABLES

if TYPE_CHECKING:
    from calico_debug.doctor.model import Observation

INSTALLATIONS = "installations.operator.tigera.io"
ENDPOINT = "configmaps-kubernetes-services-endpoint"
KUBE_PROXY = ("daemonsets.apps-kube-proxy", "daemonsets.apps")
"""Lists that may hold kube-proxy's DaemonSet: of its name alone, or of all."""

OPERATOR_NAMESPACE, MANIFEST_NAMESPACE = "tigera-operator", "kube-system"

LINUX_DATAPLANES = {"BPF": EBPF, "Nftables": NFTABLES, "Iptables": IPTABLES}
"""Values of ``spec.calicoNetwork.linuxDataplane``."""

CLUSTER_NAMES = (".svc", ".cluster.local")
"""How names end that only the cluster's own DNS knows, which is a service."""

CLEAN_UP = "bpfKubeProxyIptablesCleanupEnabled"
SHOWN = 8


def _network(cluster: ClusterView) -> Mapping[str, Any]:
    """``spec.calicoNetwork`` of the Installation; empty where there is none, or it is not in evidence."""
    if not cluster.has(INSTALLATIONS):
        return {}
    for one in cluster.raw(INSTALLATIONS):
        return part(one, "spec", "calicoNetwork")
    return {}


def check_evidence(cluster: ClusterView) -> Iterator[Observation]:
    """Lists that the checks would profit from."""
    if not cluster.has(INSTALLATIONS):
        yield Unknown(
            f"there is no cluster/{INSTALLATIONS}.json: whether the operator installs Calico, and how, is not known "
            "(nothing is, where Calico was installed by manifest)"
        )
    if not cluster.has("felixconfigurations"):
        yield Unknown("there is no list of felixconfigurations: settings are those of Felix's environment alone")


def check_already(cluster: ClusterView, target: str) -> Iterator[Observation]:
    """What the Installation says now."""
    wanted = _network(cluster).get("linuxDataplane")
    if LINUX_DATAPLANES.get(str(wanted)) == target:
        yield Symptom("already-there", "info", f"the Installation has linuxDataplane: {wanted}")


def check_api_server(cluster: ClusterView) -> Iterator[Observation]:
    """Whether Calico is told of the API server's own address."""
    network = _network(cluster)
    bootstrap = network.get("bpfNetworkBootstrap") == "Enabled"
    if not cluster.has(ENDPOINT):
        if not bootstrap:
            yield Unknown(
                f"there is no cluster/{ENDPOINT}.json: record it with kubectl get configmaps -A --field-selector "
                "metadata.name=kubernetes-services-endpoint -o json"
            )
        return
    maps = {str(part(one, "metadata").get("namespace")): part(one, "data") for one in cluster.raw(ENDPOINT)}
    by_operator = bool(cluster.has(INSTALLATIONS) and cluster.raw(INSTALLATIONS))
    places = [OPERATOR_NAMESPACE] if by_operator else [MANIFEST_NAMESPACE]
    if not cluster.has(INSTALLATIONS):
        places.append(OPERATOR_NAMESPACE)
    here = [place for place in places if place in maps]
    if bootstrap:
        if here:
            yield Symptom("api-server-twice", "error", f"the ConfigMap is in {here[0]}, bpfNetworkBootstrap is Enabled")
        return
    if not here:
        read = f"read in {' or '.join(places)}"
        if maps:
            where = f"it is in {', '.join(sorted(maps))}, and {read}"
            yield Symptom("api-server-address", "error", f"ConfigMap kubernetes-services-endpoint: {where}")
        else:
            yield Symptom("api-server-missing", "error", f"there is no ConfigMap kubernetes-services-endpoint ({read})")
        return
    yield from _judge_address(cluster, here[0], maps[here[0]])


def _judge_address(cluster: ClusterView, namespace: str, data: Mapping[str, Any]) -> Iterator[Observation]:
    host, port = (str(data.get(f"KUBERNETES_SERVICE_{word}") or "") for word in ("HOST", "PORT"))
    where = f"ConfigMap {namespace}/kubernetes-services-endpoint"
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        yield Symptom(
            "api-server-address", "error", f"{where} names host {host or 'none'!r} and port {port or 'none'!r}"
        )
        return
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        if host == "kubernetes" or host.startswith("kubernetes.default") or host.endswith(CLUSTER_NAMES):
            yield Symptom("api-server-address", "error", f"{where}: {host} is a name of the cluster's own DNS")
        else:
            yield Unknown(f"whether nodes resolve and reach {host}:{port} by themselves ({where})")
        return
    if (service := cluster.state.service_by_address(address)) is not None:
        name = f"{service[0].namespace}/{service[0].name}"
        yield Symptom("api-server-address", "error", f"{where}: {host} is the address of service {name}")
    elif (pod := cluster.state.pod_by_address(address)) is not None:
        name = f"{pod.namespace}/{pod.name}"
        yield Symptom("api-server-address", "error", f"{where}: {host} is the address of pod {name}")


def check_kube_proxy(cluster: ClusterView, target: str) -> Iterator[Observation]:
    """Whether kube-proxy runs where it must not, or does not where it must."""
    found = next((name for name in KUBE_PROXY if cluster.has(name)), None)
    if found is None:
        yield Unknown(
            f"there is no cluster/{KUBE_PROXY[0]}.json: record it with kubectl get daemonsets.apps -A "
            "--field-selector metadata.name=kube-proxy -o json"
        )
        return
    managed = _network(cluster).get("kubeProxyManagement") == "Enabled"
    for one in cluster.raw(found):
        meta = part(one, "metadata")
        if meta.get("name") != "kube-proxy":
            continue
        wanted = part(one, "status").get("desiredNumberScheduled")
        selector = part(one, "spec", "template", "spec", "nodeSelector")
        chosen = ", ".join(f"{key}: {value}" for key, value in selector.items()) or "none"
        seen = f"DaemonSet {meta.get('namespace')}/kube-proxy is wanted on {wanted} nodes (nodeSelector {chosen})"
        if not isinstance(wanted, int):
            yield Unknown(f"on how many nodes DaemonSet kube-proxy is wanted (nodeSelector {chosen})")
        elif target == EBPF and wanted and not managed:
            cleaning = cluster.felix_setting(CLEAN_UP)
            if cleaning != "false":
                yield Symptom("kube-proxy-runs", "warning", f"{seen}; {CLEAN_UP} is {cleaning or 'not set: true'}")
        elif target != EBPF and not wanted and not managed:
            yield Symptom("kube-proxy-stopped", "error", seen)


def has_daemon_set(cluster: ClusterView) -> bool | None:
    """Whether kube-proxy is a DaemonSet; None when that is not in evidence."""
    found = next((name for name in KUBE_PROXY if cluster.has(name)), None)
    if found is None:
        return None
    return any(part(one, "metadata").get("name") == "kube-proxy" for one in cluster.raw(found))


def check_host_ports(cluster: ClusterView) -> Iterator[Observation]:
    """Host ports: of the Installation, and of pods."""
    if _network(cluster).get("hostPorts") == "Enabled":
        yield Symptom("host-ports", "warning", "the Installation has spec.calicoNetwork.hostPorts: Enabled")
    pods = [_name(pod) for pod in cluster.raw("pods") if _has_host_port(pod)] if cluster.has("pods") else []
    if pods:
        yield Symptom("host-ports", "warning", f"pods with host ports: {listed(pods)}")


def _has_host_port(pod: Mapping[str, Any]) -> bool:
    spec = part(pod, "spec")
    containers = spec.get("containers")
    return not spec.get("hostNetwork") and any(
        isinstance(port, dict) and port.get("hostPort")
        for container in (containers if isinstance(containers, list) else ())
        if isinstance(container, dict)
        for port in container.get("ports") or ()
    )


def _name(item: Mapping[str, Any]) -> str:
    meta = part(item, "metadata")
    return f"{meta.get('namespace')}/{meta.get('name')}"


def listed(names: list[str]) -> str:
    """The first few of them."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
