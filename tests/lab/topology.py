"""A small cluster, declared: nodes on a common wire, pods behind veth pairs as Calico wires them, one outside client.

Addresses follow the recordings: nodes 172.30.0.0/24, pods 10.244.<node>.0/24, services 10.96.0.0/16, IPv6 alike. Every
neighbour is known beforehand and duplicate address detection is off, so that no packet but the test's own is on the
wire: a counter that moved was moved by the flow.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import cached_property

from tests.lab import namespaces
from tests.lab.model import NamedPort, Node, Pod

WIRE = "wire"
OUTSIDE = "external"
"""The outside client: default route through the first node from `OUTSIDE_V4`, the second from `OUTSIDE_OTHER_V4`."""

OUTSIDE_V4, OUTSIDE_V6 = "172.30.0.100", "fd00:30::100"
OUTSIDE_OTHER_V4, OUTSIDE_OTHER_V6 = "172.30.0.101", "fd00:30::101"
GATEWAY_V4, GATEWAY_V6 = "172.30.0.1", "fd00:30::1"
WORLD_V4 = ("198.51.100.9", "203.0.113.7")
WORLD_V6 = ("2001:db8:51::9", "2001:db8:113::7")
"""Addresses beyond the gateway; the outside client answers for them."""

BALANCED_V4, BALANCED_V6 = "172.30.0.200", "fd00:30::200"
"""Load-balancer addresses: no interface has them; the outside client sends them to a node."""

POOL_V4, POOL_V6 = "10.244.0.0/16", "fd00:244::/32"
SERVICES_V4, SERVICES_V6 = "10.96.0.0/16", "fd00:96::/112"
POD_GATEWAY = "169.254.1.1"
HOST_SIDE_MAC = "ee:ee:ee:ee:ee:ee"
HOST_SIDE_LINK_LOCAL = "fe80::ecee:eeff:feee:eeee"
VXLAN_ID, VXLAN_PORT = 4096, 4789


@dataclass(frozen=True)
class Topology:
    """Which nodes and pods there are. ``vxlan`` carries pod traffic between nodes in a tunnel (IPv4 only)."""

    nodes: tuple[Node, ...]
    pods: tuple[Pod, ...]
    vxlan: bool = False
    ipv6: bool = True

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def pods_of(self, node: str) -> list[Pod]:
        return [pod for pod in self.pods if pod.node == node]

    @cached_property
    def places(self) -> dict[str, Pod | Node | None]:
        """Everything a flow can start from: "ns/name" of pods, names of nodes, and `OUTSIDE` (None)."""
        return {**{p.place: p for p in self.pods}, **{n.name: n for n in self.nodes}, OUTSIDE: None}

    def address(self, place: str, version: int = 4) -> str:
        """The address of a place; a plain address is its own. Raises KeyError for anything else."""
        if place not in self.places and place.count(".") == 3:
            return place if version == 4 else ""
        thing = self.places[place]
        if thing is None:
            return OUTSIDE_V4 if version == 4 else OUTSIDE_V6
        return thing.address(version)

    def owner(self, address: str) -> str | None:
        """The place that has an address, None when nobody has."""
        wanted = ipaddress.ip_address(address)
        for place, thing in self.places.items():
            own = (thing.v4, thing.v6) if thing else (*OUTSIDE_ADDRESSES, *WORLD_V4, *WORLD_V6)
            if any(text and ipaddress.ip_address(text) == wanted for text in own):
                return place
        return None

    @property
    def versions(self) -> tuple[int, ...]:
        return (4, 6) if self.ipv6 else (4,)


OUTSIDE_ADDRESSES = (OUTSIDE_V4, OUTSIDE_V6, OUTSIDE_OTHER_V4, OUTSIDE_OTHER_V6, GATEWAY_V4, GATEWAY_V6)


def small_cluster(*, vxlan: bool = False, ipv6: bool = True, prefix: str = "cali") -> Topology:
    """Two nodes with three pods each: the clients and servers of two namespaces, all with an ``http`` port.

    ``prefix`` begins the names of pods' interfaces.
    """
    nodes = tuple(
        Node(
            f"node{n}",
            f"172.30.0.1{n}",
            f"fd00:30::1{n}" if ipv6 else "",
            f"10.244.{n}.0/24",
            f"fd00:244:{n}::/64" if ipv6 else "",
            f"10.244.{n}.1" if vxlan else "",
        )
        for n in (1, 2)
    )
    wanted = (
        ("red", "web1", 1, {"app": "web", "pod": "web1"}),
        ("red", "db2", 2, {"app": "db", "pod": "db2"}),
        ("red", "cli1", 1, {"app": "client", "pod": "cli1"}),
        ("blue", "web2", 2, {"app": "web", "pod": "web2"}),
        ("blue", "db1", 1, {"app": "db", "pod": "db1"}),
        ("blue", "cli2", 2, {"app": "client", "pod": "cli2"}),
    )
    pods = tuple(
        Pod(
            namespace,
            name,
            f"node{node}",
            f"10.244.{node}.{10 + number}",
            f"fd00:244:{node}::{10 + number}" if ipv6 else "",
            labels,
            (NamedPort("http", "tcp", 8080 if labels["app"] == "db" else 80), NamedPort("dns", "udp", 53)),
            prefix=prefix,
        )
        for number, (namespace, name, node, labels) in enumerate(wanted)
    )
    return Topology(nodes, pods, vxlan, ipv6)


class Wiring:
    """A topology's namespaces. ``names`` maps a place ("ns/name", node, `OUTSIDE`) to its namespace."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        labels = {place: place.replace("/", "-") for place in (*topology.places, WIRE)}
        made = namespaces.create(labels.values())
        self.names = {place: made[label] for place, label in labels.items()}
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        namespaces.delete(self.names.values())

    def _build(self) -> None:
        for place, name in self.names.items():
            namespaces.sysctl(name, _QUIET | (_OUTER if place == OUTSIDE else {}))
        self._build_wire()
        for number, node in enumerate(self.topology.nodes, 1):
            self._build_node(number, node)
        self._build_outside()
        for place, thing in self.topology.places.items() if self.topology.ipv6 else ():
            own = (thing.v6,) if thing else (OUTSIDE_V6, OUTSIDE_OTHER_V6, GATEWAY_V6, *WORLD_V6)
            namespaces.await_addresses(self.names[place], *own)

    def _build_wire(self) -> None:
        commands = ["link set lo up", "link add br0 type bridge mcast_snooping 0", "link set br0 up"]
        for number, place in enumerate([OUTSIDE, *(node.name for node in self.topology.nodes)]):
            mac = wire_mac(number)
            commands += [
                f"link add w{number} type veth peer name eth0 address {mac} netns {self.names[place]}",
                f"link set w{number} master br0 up",
            ]
        namespaces.ip(self.names[WIRE], commands)

    def _wire_neighbours(self, own: int) -> list[str]:
        nodes = self.topology.nodes
        known = [(number, address) for number, n in enumerate(nodes, 1) for address in (n.v4, n.v6)]
        known += [(0, address) for address in OUTSIDE_ADDRESSES]
        return [
            f"neigh replace {address} lladdr {wire_mac(number)} dev eth0 nud permanent"
            for number, address in known
            if number != own and address and self._wanted(address)
        ]

    def _wanted(self, address: str) -> bool:
        return self.topology.ipv6 or ":" not in address

    def _build_node(self, number: int, node: Node) -> None:
        commands = ["link set lo up", "link set eth0 up", f"addr add {node.v4}/24 dev eth0"]
        commands += [f"route add default via {GATEWAY_V4}"]
        if self.topology.ipv6:
            commands += [f"addr add {node.v6}/64 dev eth0 nodad", f"route add default via {GATEWAY_V6}"]
        commands += self._wire_neighbours(number)
        for order, pod in enumerate(self.topology.pods_of(node.name), 1):
            device, mac = pod.interface, f"0a:00:00:00:{number:02x}:{order:02x}"
            peer = self.names[pod.place]
            commands += [
                f"link add {device} address {HOST_SIDE_MAC} type veth peer name eth0 address {mac} netns {peer}",
                f"link set {device} up",
                f"route add {pod.v4}/32 dev {device} scope link",
                f"neigh replace {pod.v4} lladdr {mac} dev {device} nud permanent",
            ]
            if self.topology.ipv6:
                commands += [
                    f"route add {pod.v6}/128 dev {device}",
                    f"neigh replace {pod.v6} lladdr {mac} dev {device} nud permanent",
                ]
        commands += self._tunnel(number, node) if self.topology.vxlan else self._plain_routes(node, 4)
        if self.topology.ipv6:
            commands += self._plain_routes(node, 6)
        namespaces.ip(self.names[node.name], commands)
        namespaces.sysctl(self.names[node.name], _ROUTER)
        for pod in self.topology.pods_of(node.name):
            self._build_pod(node, pod)

    def _plain_routes(self, node: Node, version: int) -> list[str]:
        return [
            f"route add {other.pods_v4 if version == 4 else other.pods_v6} via {other.address(version)}"
            for other in self.topology.nodes
            if other != node
        ]

    def _tunnel(self, number: int, node: Node) -> list[str]:
        """As captures of a VXLAN pool show it: one device, a permanent neighbour and fdb entry a peer."""
        kind = f"type vxlan id {VXLAN_ID} local {node.v4} dev eth0 dstport {VXLAN_PORT} nolearning"
        commands = [
            f"link add vxlan.calico address {tunnel_mac(number)} mtu 1450 {kind}",
            "link set vxlan.calico up",
            f"addr add {node.tunnel}/32 dev vxlan.calico",
        ]
        for peer, other in enumerate(self.topology.nodes, 1):
            if other != node:
                commands += [
                    f"neigh replace {other.tunnel} lladdr {tunnel_mac(peer)} dev vxlan.calico nud permanent",
                    f"route add {other.pods_v4} via {other.tunnel} dev vxlan.calico onlink",
                ]
        return commands

    def _build_pod(self, node: Node, pod: Pod) -> None:
        host = self.names[node.name]
        device = f"net/ipv4/conf/{pod.interface}"
        namespaces.sysctl(
            host, {f"{device}/proxy_arp": "1", f"{device}/rp_filter": "0", f"{device}/route_localnet": "1"}
        )
        commands = [
            "link set lo up",
            "link set eth0 up",
            f"addr add {pod.v4}/32 dev eth0",
            f"route add {POD_GATEWAY} dev eth0 scope link",
            f"route add default via {POD_GATEWAY} dev eth0",
            f"neigh replace {POD_GATEWAY} lladdr {HOST_SIDE_MAC} dev eth0 nud permanent",
        ]
        if self.topology.ipv6:
            commands += [
                f"addr add {pod.v6}/128 dev eth0 nodad",
                f"route add {HOST_SIDE_LINK_LOCAL} dev eth0",
                f"route add default via {HOST_SIDE_LINK_LOCAL} dev eth0",
                f"neigh replace {HOST_SIDE_LINK_LOCAL} lladdr {HOST_SIDE_MAC} dev eth0 nud permanent",
            ]
        namespaces.ip(self.names[pod.place], commands)
        if self.topology.vxlan:
            self._tunnel_forwarding(node)

    def _tunnel_forwarding(self, node: Node) -> None:
        entries = "".join(
            f"fdb replace {tunnel_mac(peer)} dev vxlan.calico dst {other.v4}\n"
            for peer, other in enumerate(self.topology.nodes, 1)
            if other != node
        )
        namespaces.run(self.names[node.name], ["bridge", "-batch", "-"], entries)

    def _build_outside(self) -> None:
        commands = ["link set lo up", "link set eth0 up"]
        v4 = [f"{a}/24 dev eth0" for a in (OUTSIDE_V4, OUTSIDE_OTHER_V4, GATEWAY_V4)] + [
            f"{a}/32 dev lo" for a in WORLD_V4
        ]
        v6 = [f"{a}/64 dev eth0 nodad" for a in (OUTSIDE_V6, OUTSIDE_OTHER_V6, GATEWAY_V6)]
        v6 += [f"{a}/128 dev lo nodad" for a in WORLD_V6]
        commands += [f"addr add {entry}" for entry in (*v4, *(v6 if self.topology.ipv6 else ()))]
        namespaces.ip(self.names[OUTSIDE], commands + self._wire_neighbours(0))
        for version in self.topology.versions:
            namespaces.ip(self.names[OUTSIDE], self._routes_inwards(version), f"-{version}")

    def _routes_inwards(self, version: int) -> list[str]:
        """Pods and services are reached through the first node, from the second address through the second node."""
        commands = [f"route add default via {self.topology.nodes[0].address(version)}"]
        inner = (POOL_V4, SERVICES_V4, BALANCED_V4) if version == 4 else (POOL_V6, SERVICES_V6, BALANCED_V6)
        commands.append(f"route add {inner[2]} via {self.topology.nodes[0].address(version)}")
        if len(self.topology.nodes) > 1:
            other = OUTSIDE_OTHER_V4 if version == 4 else OUTSIDE_OTHER_V6
            commands += [f"route add default via {self.topology.nodes[1].address(version)} table 102"]
            commands += [f"rule add from {other} to {network} lookup 102" for network in inner]
        return commands


def wire_mac(number: int) -> str:
    """The address of place ``number`` on the wire: 0 is outside, nodes count from 1."""
    return f"02:00:00:00:00:{number:02x}"


def tunnel_mac(number: int) -> str:
    return f"66:00:00:00:00:{number:02x}"


_QUIET = {
    **{f"net/ipv6/conf/{which}/accept_dad": "0" for which in ("all", "default")},
    **{f"net/ipv6/conf/{which}/accept_ra": "0" for which in ("all", "default")},
    **{f"net/ipv6/conf/{which}/router_solicitations": "0" for which in ("all", "default")},
    "net/ipv6/conf/default/mldv2_unsolicited_report_interval": "1",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/tcp_synack_retries": "0",
    "net/ipv4/icmp_ratelimit": "0",
    "net/ipv6/icmp/ratelimit": "0",
}
"""No chatter before, between or long after flows, and no ICMP error that the kernel holds back."""

_ROUTER = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv4/conf/all/route_localnet": "1",
    "net/netfilter/nf_conntrack_acct": "1",
}
"""As the recordings' sysctl.txt; the proxy_arp of pods' interfaces is set with them."""

_OUTER = {"net/ipv4/ip_forward": "0"}
