"""Features that do not go together, and what stands beside Calico on the node."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from calico_debug.decode.bpf_layout_types import Role
from calico_debug.doctor.model import Symptom, Unknown, part
from calico_debug.doctor.rules import KUBE_PROXY_CHAIN
from calico_debug.explain.kube_proxy import NFTABLES_TABLE
from calico_debug.state.dataplane import EBPF, NFTABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calico_debug.doctor.model import NodeView, Observation

DNS_INTERFACE = "nodelocaldns"
DNS_ADDRESS = ip_address("169.254.20.10")
"""What NodeLocal DNSCache makes (kubernetes/kubernetes cluster/addons/dns/nodelocaldns)."""

WIREGUARD_DEVICES = ("wireguard.cali", "wg-v6.cali")
"""Felix's WireguardInterfaceName and WireguardInterfaceNameV6 (felix/config/config_params.go)."""


class Combination(NamedTuple):
    """Features that are not supported together. ``since`` says from where that is known and for which releases."""

    name: str
    holds: Callable[[NodeView], bool]
    since: str


def on_aks(node: NodeView) -> bool:
    """Whether the cluster is Azure's: by Calico's cluster type (as Felix tells it), or by the node's labels."""
    if node.cluster.has("clusterinformations"):
        for one in node.cluster.raw("clusterinformations"):
            if "aks" in str(part(one, "spec").get("clusterType", "")).lower().split(","):
                return True
    for one in node.cluster.raw("nodes") if node.cluster.has("nodes") else ():
        if any(label.startswith("kubernetes.azure.com/") for label in part(one, "metadata", "labels")):
            return True
    return False


def encrypts(node: NodeView) -> bool:
    """Whether WireGuard of Calico's is on."""
    if node.setting("WireguardEnabled", default=False) or node.setting("WireguardEnabledV6", default=False):
        return True
    return any(node.state.interfaces[name].up for name in WIREGUARD_DEVICES if name in node.state.interfaces)


def proxy_in_iptables(node: NodeView) -> bool:
    """Whether kube-proxy's rules are iptables' beside Calico's tables; what it left behind after a change is not."""
    if node.dataplane != NFTABLES:
        return False
    tables = node.ruleset.tables()
    return not any(table == NFTABLES_TABLE for _, table in tables) and any(
        node.ruleset.rules(family, table, KUBE_PROXY_CHAIN) for family, table in tables
    )


NFTABLES_BOTH = "Calico's documentation asks for kube-proxy in nftables mode beside Calico's, which v3.29 introduced"

COMBINATIONS = (
    Combination(
        "WireGuard with eBPF on AKS",
        lambda node: node.dataplane == EBPF and encrypts(node) and on_aks(node),
        "documented as unsupported in 2022; no release note of v3.28 to v3.32 is known to lift that, and Felix of "
        "these releases does not refuse it",
    ),
    Combination(
        "Calico in nftables mode with kube-proxy in IPVS mode",
        lambda node: node.dataplane == NFTABLES and "kube-ipvs0" in node.state.interfaces,
        NFTABLES_BOTH,
    ),
    Combination("Calico in nftables mode with kube-proxy in iptables mode", proxy_in_iptables, NFTABLES_BOTH),
)
"""Each row is looked for on every node."""


def check_combinations(node: NodeView) -> Iterator[Observation]:
    """Rows of `COMBINATIONS` that hold."""
    if not node.state.felix:
        yield Unknown("Felix's settings are not in evidence (felix-env.txt): features are judged by devices alone")
    for one in COMBINATIONS:
        if one.holds(node):
            yield Symptom("unsupported", "warning", f"{one.name}: {one.since}")


def check_local_dns(node: NodeView) -> Iterator[Observation]:
    """NodeLocal DNSCache on an eBPF node, whose programs translate services before packets reach a local address."""
    if node.dataplane != EBPF:
        return
    own = [one.address for one in node.state.addresses if one.interface == DNS_INTERFACE or one.address == DNS_ADDRESS]
    if not own and DNS_INTERFACE not in node.state.interfaces:
        return
    services = [
        frontend
        for family in (4, 6)
        for frontend in node.state.bpf.entries(Role.NAT_FRONTENDS, family)
        if frontend.address in own
    ]
    translated = sorted({str(one.address) for one in services if "nat-exclude" not in one.flag_words})
    shown = ", ".join(sorted(map(str, own))) or "no address"
    if translated:
        yield Symptom(
            "node-local-dns",
            "warning",
            f"interface {DNS_INTERFACE} has {shown}; {', '.join(translated)} is a service that Calico's programs "
            "translate, so queries to it go past the cache on the node",
        )
    else:
        yield Symptom("node-local-dns", "info", f"NodeLocal DNSCache is here ({shown})")
