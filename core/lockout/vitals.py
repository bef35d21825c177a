"""What nodes and the cluster live by: a table of flows, and which of them a given node has, from the API's objects.

Ports: Kubernetes' documentation ("Ports and Protocols"), Calico's ("System requirements", Felix's defaults).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from calico_debug.doctor.model import part
from calico_debug.intent.model import Direction, PolicyFlow
from calico_debug.model.cluster import Address, Backend, Cluster, Node
from calico_debug.model.flow import PROTOCOL_NUMBERS

if TYPE_CHECKING:
    from calico_debug.doctor.model import ClusterView
    from calico_debug.model.cluster import FelixConfiguration

TCP, UDP, IPIP = 6, 17, 4
PEERS: Final = 30
"""Peers of one flow that are looked at: each node with each other would take minutes in a large cluster."""
ANY_PORT: Final = 40000
"""Stands for the port that a client draws."""

Peer = tuple[str, Address, int]
"""Name, address, and the port where the flow goes to it (egress), 0 for the vital's own."""


@dataclass(frozen=True, slots=True)
class Vital:
    """One row. ``direction`` is the node's own view. ``port`` 0: that of the peer.

    ``peers`` says who is at the other end, a key of `Facts.peers`. ``on`` says which nodes have the flow, a key of
    `Facts.applies`. A ``tunnel`` between nodes is let through by Felix's own rules before normal policy.
    """

    name: str
    direction: Direction
    protocol: int
    port: int
    peers: str
    on: str
    source: str
    tunnel: bool = False


NODES, API, TYPHA, DNS, OUTSIDE, METADATA = "nodes", "api servers", "typha", "dns", "outside", "metadata"
EVERY, API_NODE, TYPHA_NODE, ETCD, BGP, VXLAN, IPIP_USED, WIREGUARD, CLOUD = (
    "every node",
    "api server",
    "typha node",
    "several control planes",
    "bgp",
    "vxlan",
    "ipip",
    "wireguard",
    "cloud",
)

_KUBERNETES: Final = "kubernetes.io/docs/reference/networking/ports-and-protocols"
_CALICO: Final = "docs.tigera.io, System requirements; felix/config/config_params.go"

VITALS: Final[tuple[Vital, ...]] = (
    Vital("kubelet", "ingress", TCP, 10250, API, EVERY, _KUBERNETES),
    Vital("SSH", "ingress", TCP, 22, OUTSIDE, EVERY, "felix's failsafe ports"),
    Vital("DHCP answers", "ingress", UDP, 68, OUTSIDE, EVERY, "felix's failsafe ports"),
    Vital("API server", "ingress", TCP, 6443, NODES, API_NODE, _KUBERNETES),
    Vital("etcd clients", "ingress", TCP, 2379, API, ETCD, _KUBERNETES),
    Vital("etcd peers", "ingress", TCP, 2380, API, ETCD, _KUBERNETES),
    Vital("Typha", "ingress", TCP, 5473, NODES, TYPHA_NODE, _CALICO),
    Vital("BGP", "ingress", TCP, 179, NODES, BGP, _CALICO),
    Vital("VXLAN", "ingress", UDP, 4789, NODES, VXLAN, _CALICO, tunnel=True),
    Vital("IP in IP", "ingress", IPIP, 0, NODES, IPIP_USED, _CALICO, tunnel=True),
    Vital("WireGuard", "ingress", UDP, 51820, NODES, WIREGUARD, _CALICO, tunnel=True),
    Vital("API server", "egress", TCP, 0, API, EVERY, "endpoints of service default/kubernetes"),
    Vital("kubelet", "egress", TCP, 10250, NODES, API_NODE, _KUBERNETES),
    Vital("etcd clients", "egress", TCP, 2379, API, ETCD, _KUBERNETES),
    Vital("etcd peers", "egress", TCP, 2380, API, ETCD, _KUBERNETES),
    Vital("DNS of the cluster", "egress", UDP, 0, DNS, EVERY, "endpoints of the DNS service"),
    Vital("DNS outside", "egress", UDP, 53, OUTSIDE, EVERY, "felix's failsafe ports"),
    Vital("DHCP", "egress", UDP, 67, OUTSIDE, EVERY, "felix's failsafe ports"),
    Vital("Typha", "egress", TCP, 0, TYPHA, EVERY, "endpoints of service calico-typha"),
    Vital("BGP", "egress", TCP, 179, NODES, BGP, _CALICO),
    Vital("VXLAN", "egress", UDP, 4789, NODES, VXLAN, _CALICO, tunnel=True),
    Vital("IP in IP", "egress", IPIP, 0, NODES, IPIP_USED, _CALICO, tunnel=True),
    Vital("WireGuard", "egress", UDP, 51820, NODES, WIREGUARD, _CALICO, tunnel=True),
    Vital("metadata", "egress", TCP, 80, METADATA, CLOUD, "169.254.169.254 of AWS, Azure, GCP and others"),
)
"""Every flow; docs/cli.md has the same table."""

SOMEWHERE: Final[tuple[Peer, ...]] = (
    ("outside", ip_address("192.0.2.1"), 0),
    ("outside", ip_address("2001:db8::1"), 0),
)
"""Stands for an address that nobody has named (RFC 5737, RFC 3849)."""
METADATA_ADDRESS: Final = ip_address("169.254.169.254")
DNS_NAMESPACES: Final = frozenset({"kube-system", "openshift-dns"})
DNS_PORT: Final = 53
TYPHA_SERVICE: Final = "calico-typha"
CLOUDS: Final = ("aws", "azure", "gce", "openstack", "digitalocean", "oci", "alicloud", "ibm")
"""How ``spec.providerID`` of a node in a cloud begins."""


@dataclass(frozen=True, slots=True)
class NodeFlow:
    """A vital flow of one node with one peer. ``unknown`` where the peer stands for addresses that are not known."""

    vital: Vital
    flow: PolicyFlow
    peer: str
    peer_address: Address
    unknown: bool = False


class Facts:
    """What the API's objects say of who talks to whom."""

    def __init__(self, view: ClusterView, settings: Sequence[FelixConfiguration]) -> None:
        """``settings`` are Felix's; those of ``default`` count."""
        self._view = view
        cluster = view.state.cluster
        self.cluster: Cluster = cluster
        self._felix: Mapping[str, Any] = next((one.spec for one in settings if one.name == "default"), {})
        services = {(one.namespace, one.name): one for one in cluster.services}
        kubernetes = services.get(("default", "kubernetes"))
        self.api: tuple[Backend, ...] = kubernetes.backends if kubernetes is not None else ()
        self._api_addresses = {one.address for one in self.api}
        self.typha = tuple(b for one in cluster.services if one.name == TYPHA_SERVICE for b in one.backends)
        self.dns = tuple(
            backend
            for one in cluster.services
            if one.namespace in DNS_NAMESPACES and any(p.port == DNS_PORT and p.protocol == "UDP" for p in one.ports)
            for backend in one.backends
            if backend.protocol == "UDP"
        )
        self._applies = self._conditions()
        self._nodes: Sequence[Peer] = [(one.name, address, 0) for one in cluster.nodes for address in one.addresses]

    @property
    def gaps(self) -> Iterator[str]:
        """What could not be derived, one sentence each."""
        if not self.api:
            yield "who the API servers are is not known: evidence has no endpoints of service default/kubernetes"
        if not self.dns:
            yield "the DNS service of the cluster is not known: no service of kube-system has UDP port 53"
        if len(self.cluster.nodes) > PEERS + 1:
            number = len(self.cluster.nodes)
            yield f"of {number} nodes {PEERS} were taken as peers of each: others may be treated otherwise"
        if not self._view.has("ippools"):
            yield "which encapsulation is used is not known: BGP, VXLAN and IP in IP are taken to be used"

    def flows(self, node: Node) -> Iterator[NodeFlow]:
        """The flows that a node has, with each of its peers."""
        own = {address.version: address for address in reversed(node.addresses)}
        for vital in VITALS:
            if not self._applies[vital.on](node):
                continue
            for name, address, port in self._peers(vital, node):
                mine = own.get(address.version)
                if mine is not None:
                    yield _node_flow(vital, mine, name, address, port or self._port(vital))

    # ----------------------------------------------------------------------------------------------------- internals

    def _conditions(self) -> Mapping[str, Callable[[Node], bool]]:
        cloud = any(
            str(part(one, "spec").get("providerID") or "").split(":")[0] in CLOUDS
            for one in (self._view.raw("nodes") if self._view.has("nodes") else ())
        )
        typha = {one.address for one in self.typha}
        control_planes = sum(self._is_api(node) for node in self.cluster.nodes)
        wireguard = bool(self._felix.get("wireguardEnabled") or self._felix.get("wireguardEnabledV6"))
        return {
            EVERY: lambda _: True,
            API_NODE: self._is_api,
            TYPHA_NODE: lambda node: bool(typha & set(node.addresses)),
            ETCD: lambda node: control_planes > 1 and self._is_api(node),
            BGP: lambda _: self._pools("vxlanMode", "Never"),
            VXLAN: lambda _: self._pools("vxlanMode", "Always", "CrossSubnet"),
            IPIP_USED: lambda _: self._pools("ipipMode", "Always", "CrossSubnet"),
            WIREGUARD: lambda _: wireguard,
            CLOUD: lambda _: cloud,
        }

    def _is_api(self, node: Node) -> bool:
        return bool(self._api_addresses & set(node.addresses))

    def _pools(self, field: str, *modes: str) -> bool:
        """Whether a pool has one of the modes; True where pools are not in evidence."""
        if not self._view.has("ippools"):
            return True
        return any(str(part(one, "spec").get(field) or "Never") in modes for one in self._view.raw("ippools"))

    def _port(self, vital: Vital) -> int:
        if vital.name == "VXLAN" and isinstance(given := self._felix.get("vxlanPort"), int):
            return given
        if vital.name == "WireGuard" and isinstance(given := self._felix.get("wireguardListeningPort"), int):
            return given
        return vital.port

    def _peers(self, vital: Vital, node: Node) -> Iterable[Peer]:
        if vital.peers == OUTSIDE:
            return SOMEWHERE
        if vital.peers == METADATA:
            return [("metadata service", METADATA_ADDRESS, 0)]
        if vital.peers == NODES:
            return [one for one in self._nodes if one[0] != node.name][:PEERS]
        backends = {API: self.api, TYPHA: self.typha, DNS: self.dns}[vital.peers]
        goes_to = vital.direction == "egress" and not vital.port
        return [
            (_shown(one), one.address, one.port if goes_to else 0)
            for one in backends
            if one.address not in node.addresses
        ][:PEERS]


def _shown(backend: Backend) -> str:
    return "/".join(backend.pod) if backend.pod else backend.node or str(backend.address)


def _node_flow(vital: Vital, mine: Address, name: str, peer: Address, port: int) -> NodeFlow:
    source, destination = (peer, mine) if vital.direction == "ingress" else (mine, peer)
    ports = (ANY_PORT, port) if vital.protocol in (TCP, UDP) else (None, None)
    if vital.protocol == PROTOCOL_NUMBERS["udp"] and vital.name.startswith("DHCP"):
        ports = (67, 68) if vital.direction == "ingress" else (68, 67)
    return NodeFlow(vital, PolicyFlow(source, destination, vital.protocol, *ports), name, peer, vital.peers == OUTSIDE)
