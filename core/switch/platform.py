"""Before a switch: what nodes must have, and what the dataplane does not support.

Sources: felix/bpf/bpf.go of v3.28 to v3.32 (SupportsBPFDataplane), felix/config/config_params.go, Calico's
documentation of v3.32 (operations/ebpf, "Not supported").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from calico_debug.doctor.combinations import COMBINATIONS, encrypts, on_aks
from calico_debug.doctor.model import Symptom, Unknown, part
from calico_debug.doctor.rules import KUBE_PROXY_CHAIN
from calico_debug.explain.kube_proxy import NFTABLES_TABLE
from calico_debug.state.dataplane import IPTABLES, NFTABLES
from calico_debug.switch.installation import INSTALLATIONS, has_daemon_set

if TYPE_CHECKING:
    from calico_debug.doctor.model import ClusterView, NodeView, Observation

NEEDED, NEEDED_OF_RED_HAT = (5, 3, 0, 0), (4, 18, 0, 193)
"""Kernels from which Felix runs eBPF. Red Hat has what it takes in an older one, told by its build number."""

RECOMMENDED = (5, 8, 0, 0)

DATA_INTERFACES = r"^((en|wl|ww|sl|ib)[Popsx].*|(eth|wlan|wwan|bond).*)"
"""Felix's default of BPFDataIfacePattern (v3.30 to v3.32; before, tunnel devices are named in it, too)."""

ARCHITECTURES = ("amd64", "arm64")

_KERNEL = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:-(\d+))?")
_RELEASE = re.compile(r"v(\d+)\.(\d+)")

NOT_SUPPORTED = 'Calico\'s documentation of v3.32 ("Not supported")'


class Unsupported(NamedTuple):
    """A feature that eBPF does not support. ``seen`` gives what there is of it, "" for nothing; ``since`` says from
    where that is known.
    """

    name: str
    seen: Callable[[NodeView], str]
    since: str


def _node_info(node: NodeView) -> Mapping[str, Any]:
    for one in node.cluster.raw("nodes") if node.cluster.has("nodes") else ():
        if part(one, "metadata").get("name") == node.name:
            return part(one, "status", "nodeInfo")
    return {}


def _architecture(node: NodeView) -> str:
    found = str(_node_info(node).get("architecture") or "")
    return found if found and found not in ARCHITECTURES else ""


def _provider(node: NodeView) -> str:
    if not node.cluster.has(INSTALLATIONS):
        return ""
    providers = [part(one, "spec").get("kubernetesProvider") for one in node.cluster.raw(INSTALLATIONS)]
    return "kubernetesProvider GKE" if "GKE" in providers else ""


def _windows(node: NodeView) -> str:
    found = [
        str(part(one, "metadata").get("name"))
        for one in (node.cluster.raw("nodes") if node.cluster.has("nodes") else ())
        if part(one, "metadata", "labels").get("kubernetes.io/os") == "windows"
    ]
    return f"Windows nodes {', '.join(found)}" if found else ""


def _floating(node: NodeView) -> str:
    return "floatingIPs Enabled" if str(node.setting_text("FloatingIPs")).lower() == "enabled" else ""


def _store(node: NodeView) -> str:
    return "datastore etcdv3" if str(node.state.felix.get("FELIX_DATASTORETYPE")).lower() == "etcdv3" else ""


def _vlan(node: NodeView) -> str:
    own = [name for name in _own_interfaces(node) if node.state.interfaces[name].kind == "vlan"]
    return f"interface {', '.join(own)}" if own else ""


def _wireguard_on_aks(node: NodeView) -> str:
    return "WireGuard is on" if encrypts(node) and on_aks(node) else ""


UNSUPPORTED = (
    Unsupported("WireGuard on AKS", _wireguard_on_aks, COMBINATIONS[0].since),
    Unsupported("a processor other than amd64 and arm64", _architecture, NOT_SUPPORTED),
    Unsupported("GKE", _provider, f"{NOT_SUPPORTED}: its CNI plugin does not go with it"),
    Unsupported("Windows nodes beside eBPF nodes", _windows, NOT_SUPPORTED),
    Unsupported("floating addresses", _floating, NOT_SUPPORTED),
    Unsupported("the datastore etcd", _store, NOT_SUPPORTED),
    Unsupported("tagged VLAN devices", _vlan, NOT_SUPPORTED),
)
"""What the checks look for on the way to eBPF; docs/switch.md has the same table."""


def check_unsupported(node: NodeView) -> Iterator[Observation]:
    """Rows of `UNSUPPORTED` that hold."""
    for row in UNSUPPORTED:
        if seen := row.seen(node):
            yield Symptom("unsupported", "warning", f"{row.name} ({seen}): {row.since}")


def check_kernel(node: NodeView) -> Iterator[Observation]:
    """The kernel's version, as the kubelet reports it."""
    info = _node_info(node)
    text = str(info.get("kernelVersion") or "")
    match = _KERNEL.match(text)
    if match is None:
        yield Unknown("the kernel's version: status.nodeInfo of the node in cluster/nodes.json has it")
        return
    version = tuple(int(number or 0) for number in match.groups())
    red_hat = ".el" in text
    if version < (NEEDED_OF_RED_HAT if red_hat else NEEDED):
        needs = "4.18.0-193" if red_hat else "5.3"
        yield Symptom(
            "kernel-too-old", "error", f"kernel {text} ({info.get('osImage') or 'system not known'}): {needs}"
        )
    elif version < RECOMMENDED:
        yield Symptom("kernel-old", "info", f"kernel {text}")


def _own_interfaces(node: NodeView) -> list[str]:
    known = node.cluster.state.node(node.name)
    own = known.addresses if known is not None else ()
    return list(dict.fromkeys(one.interface for one in node.state.addresses if one.address in own))


def check_data_interface(node: NodeView) -> Iterator[Observation]:
    """Whether Felix would attach programs where the node's traffic passes."""
    interfaces = _own_interfaces(node)
    if not interfaces:
        yield Unknown("which interface has the node's address: cluster/nodes.json says the address")
        return
    patterns = [node.setting_text("BPFDataIfacePattern") or DATA_INTERFACES, node.setting_text("BPFL3IfacePattern")]
    for name in interfaces:
        try:
            matched = any(re.search(pattern, name) for pattern in patterns if pattern)
        except re.error:
            yield Unknown(f"whether {name} matches BPFDataIfacePattern {patterns[0]!r}, which cannot be read")
            continue
        if not matched:
            yield Symptom("data-interface", "error", f"interface {name}, BPFDataIfacePattern {patterns[0]}")


def check_kube_proxy_elsewhere(node: NodeView) -> Iterator[Observation]:
    """Rules of a kube-proxy that is no DaemonSet."""
    signs = _kube_proxy_rules(node)
    if signs and has_daemon_set(node.cluster) is False:
        yield Symptom("kube-proxy-elsewhere", "warning", ", ".join(one for found in signs.values() for one in found))


def check_kube_proxy_mode(node: NodeView, target: str) -> Iterator[Observation]:
    """kube-proxy's rules against those that Calico is to make."""
    signs = _kube_proxy_rules(node)
    if "kube-ipvs0" in node.state.interfaces and target == NFTABLES:
        yield Symptom("kube-proxy-mode", "warning", f"kube-proxy is in IPVS mode (kube-ipvs0); {COMBINATIONS[1].since}")
    elif signs and target not in signs:
        places = ", ".join(one for found in signs.values() for one in found)
        yield Symptom("kube-proxy-mode", "warning", f"kube-proxy's rules are {places}; Calico's are to be {target}")


def _kube_proxy_rules(node: NodeView) -> Mapping[str, list[str]]:
    """Where kube-proxy's rules are, by the dataplane that they go with."""
    found: dict[str, list[str]] = {}
    for family, table in node.ruleset.tables():
        if table == NFTABLES_TABLE:
            found.setdefault(NFTABLES, []).append(f"table {family} {table}")
        elif node.ruleset.rules(family, table, KUBE_PROXY_CHAIN):
            found.setdefault(IPTABLES, []).append(f"chain {KUBE_PROXY_CHAIN} in table {family} {table}")
    return found


def check_node_already(node: NodeView, target: str) -> Iterator[Observation]:
    """Whether the node runs it already."""
    if node.dataplane == target:
        yield Symptom("already-there", "info", f"the node runs {target}")
    elif not node.dataplane:
        yield Unknown("which dataplane the node runs now")


def check_release(cluster: ClusterView) -> Iterator[Observation]:
    """Whether Calico's release has nftables mode."""
    if not cluster.has("clusterinformations"):
        yield Unknown("Calico's release: there is no list of clusterinformations")
        return
    for one in cluster.raw("clusterinformations"):
        text = str(part(one, "spec").get("calicoVersion") or "")
        match = _RELEASE.match(text)
        if match is None:
            yield Unknown(f"Calico's release ({text or 'not told'})")
        elif (int(match[1]), int(match[2])) < (3, 29):
            yield Symptom("release-too-old", "error", f"Calico {text}")
