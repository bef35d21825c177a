"""Interfaces and pods that Calico does not know, reverse paths, and the size of packets."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING, NamedTuple

from calico_debug.doctor.model import Symptom, Unknown, part
from calico_debug.state.dataplane import CALICO_TABLES, EBPF, IPTABLES_FILTERS, NFTABLES, rules_dataplane

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from calico_debug.doctor.model import ClusterView, NodeView, Observation
    from calico_debug.model.routing import Address, Interface

STRICT = "1"
"""Value of rp_filter (Documentation/networking/ip-sysctl.rst of Linux); the larger one of "all" and the interface's
counts.
"""


class Tunnel(NamedTuple):
    """A tunnel device of Calico's. ``mode`` is the pool's field that asks for it, "" when a pool does not."""

    interface: str
    overhead: int
    mode: str


TUNNELS = (
    Tunnel("vxlan.calico", 50, "vxlanMode"),
    Tunnel("vxlan-v6.calico", 70, "vxlanMode"),
    Tunnel("tunl0", 20, "ipipMode"),
    Tunnel("wireguard.cali", 60, ""),
    Tunnel("wg-v6.cali", 80, ""),
)
"""Bytes that encapsulation takes: felix/dataplane/linux/int_dataplane.go of v3.28 to v3.32 (…MTUOverhead)."""


def check_interfaces(node: NodeView) -> Iterator[Observation]:
    """Interfaces that begin like a pod's and have no endpoint."""
    if not node.dataplane:
        yield Unknown("without a dataplane of Calico no endpoint is known")
        return
    if node.dataplane == NFTABLES and not rules_dataplane(node.ruleset):
        yield Unknown("Felix has programmed no endpoint at all")
        return
    programmed = _programmed(node)
    for name in node.pod_interfaces:
        if name not in programmed:
            yield Symptom("unknown-interface", "error", f"{name} has no endpoint among those that Felix programmed")


def check_pods(node: NodeView) -> Iterator[Observation]:
    """Running pods of the node whose address does not lead to an interface of a pod."""
    if not node.cluster.has("pods"):
        yield Unknown("which pods run here is not known: record cluster/pods.json")
        return
    families = {pod_address.version for pod in node.cluster.state.pods for pod_address in pod.addresses}
    routed = {family: _pod_routes(node, family) for family in families}
    for pod in node.cluster.state.pods:
        if pod.node != node.name or pod.host_network or pod.phase != "Running":
            continue
        for address in pod.addresses:
            if address not in routed[address.version]:
                begins = " or ".join(node.prefixes)
                yield Symptom(
                    "pod-without-interface",
                    "error",
                    f"pod {pod.namespace}/{pod.name} runs here, and no route leads {address} to an interface that "
                    f"begins with {begins}",
                )


def _pod_routes(node: NodeView, family: int) -> Mapping[Address, str]:
    return {
        route.destination.network_address: hop.interface
        for routes in node.state.routing(family).tables.values()
        for route in routes
        if route.destination.prefixlen == route.destination.max_prefixlen
        for hop in route.hops
        if hop.interface.startswith(node.prefixes)
    }


def _programmed(node: NodeView) -> set[str]:
    """Names of the interfaces with an endpoint."""
    if node.dataplane == EBPF:
        datapath = node.walker.datapath
        known = datapath.lookups.interfaces.values() if datapath is not None else ()
        return {interface.name for interface in known if interface.workload}
    ruleset = node.ruleset
    places = [
        (family, table, "filter-" if (family, table) in CALICO_TABLES else "")
        for family, table in ruleset.tables()
        if (family, table) in CALICO_TABLES or table in IPTABLES_FILTERS
    ]
    return {
        name
        for name in node.pod_interfaces
        for family, table, layer in places
        if ruleset.rules(family, table, f"{layer}cali-tw-{name}") is not None
    }


def check_reverse_path(node: NodeView) -> Iterator[Observation]:
    """Of an eBPF node, the kernel's own reverse path filter where Felix turns it off or makes it loose.

    Elsewhere Calico's rules check pods' sources themselves, and the filter of other interfaces is the operator's.
    """
    if node.dataplane != EBPF:
        return
    everywhere = node.state.interface_sysctl(4, "all", "rp_filter")
    if everywhere is None:
        yield Unknown("net.ipv4.conf.all.rp_filter is not in evidence: record sysctl.txt")
        return
    if everywhere == STRICT:
        yield Symptom(
            "rpf-strict",
            "error",
            "net.ipv4.conf.all.rp_filter is 1; Felix sets 0, as packets from bpfin.cali are dropped otherwise",
        )
    for name in node.state.interfaces:
        if name.startswith(node.prefixes) or name == "lo":
            continue
        attached = any(one.hook == "ingress" for one in node.state.bpf.calico_attachments(name))
        if attached and node.state.interface_sysctl(4, name, "rp_filter") == STRICT and everywhere in ("0", STRICT):
            yield Symptom(
                "rpf-strict",
                "warning",
                f"net.ipv4.conf.{name}.rp_filter is 1; Felix sets 2, so that answers may come straight to the host",
            )


# ------------------------------------------------------------------------------------------------------- packet size


def check_mtu(node: NodeView) -> Iterator[Observation]:
    """Whether packets of pods still fit into the device below after encapsulation."""
    room: dict[str, int] = {}
    for tunnel in TUNNELS:
        link = node.state.interfaces.get(tunnel.interface)
        if link is None or not link.up or not _in_use(node.cluster, tunnel):
            continue
        device = _device_below(node, link)
        if device is None:
            yield Unknown(f"which device {link.name} sends through is not known")
            continue
        left = device.mtu - tunnel.overhead
        if link.mtu > left and node.dataplane != EBPF:
            # On eBPF nodes programs encapsulate, by sizes of their own, and the device only carries the result.
            yield Symptom(
                "mtu-tunnel",
                "warning",
                f"{link.name} has MTU {link.mtu}; {device.name} ({device.mtu}) leaves {left} after {tunnel.overhead} "
                "bytes of encapsulation",
            )
        room[f"{link.name} over {device.name} ({device.mtu})"] = left
    if not room and (device := _main_device(node)) is not None:
        room[device.name] = device.mtu
    if not room:
        yield Unknown("which device carries pods' traffic is not known")
        return
    way, left = min(room.items(), key=lambda one: one[1])
    pods = [node.state.interfaces[name] for name in node.pod_interfaces]
    large = [link for link in pods if link.mtu > left]
    if large:
        example = large[0]
        yield Symptom(
            "mtu-pod",
            "warning",
            f"{len(large)} of {len(pods)} interfaces of pods send packets that do not fit, {example.name} has MTU "
            f"{example.mtu}; {way} leaves {left}",
        )


def _in_use(cluster: ClusterView, tunnel: Tunnel) -> bool:
    """Whether a pool asks for the tunnel; without a list of pools, a device that is up is taken to be used."""
    if not tunnel.mode or not cluster.has("ippools"):
        return True
    return any(part(pool, "spec").get(tunnel.mode, "Never") != "Never" for pool in cluster.raw("ippools"))


def _device_below(node: NodeView, link: Interface) -> Interface | None:
    attributes = link.attributes or {}
    name = attributes.get("link")
    if isinstance(name, str) and name in node.state.interfaces:
        return node.state.interfaces[name]
    local = attributes.get("local")
    if isinstance(local, str) and local != "any":
        try:
            owner = _owner(node, ip_address(local))
        except ValueError:
            owner = None
        if owner is not None:
            return owner
    return _main_device(node)


def _main_device(node: NodeView) -> Interface | None:
    """The interface with the node's own address, as the cluster knows it; else that of the default route."""
    known = node.cluster.state.node(node.name)
    for address in known.addresses if known is not None else ():
        if (owner := _owner(node, address)) is not None:
            return owner
    for route in node.state.routing(4).tables.get("main", ()):
        if route.destination.prefixlen == 0 and route.hops:
            return node.state.interfaces.get(route.hops[0].interface)
    return None


def _owner(node: NodeView, address: Address | IPv4Address) -> Interface | None:
    name = next((own.interface for own in node.state.addresses if own.address == address), None)
    return node.state.interfaces.get(name) if name is not None else None
