"""Addresses, ports and protocols with the names that the cluster's objects give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calico_debug.model.conntrack import Address
    from calico_debug.state.cluster import ClusterState

PROTOCOL_WORDS: Mapping[int, str] = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}


class Names:
    """Looks names up in the cluster's objects; without those everything keeps its number."""

    def __init__(self, cluster: ClusterState) -> None:
        """Objects are read when first needed."""
        self._cluster = cluster

    def end(self, ip: Address, port: int | None, protocol: int | None = None) -> dict[str, Any]:
        """One end of a connection: ``ip``, ``port`` and one of ``pod``, ``service``, ``node`` where known."""
        end: dict[str, Any] = {"ip": str(ip), **({"port": port} if port else {})}
        return end | self.of(ip, port or 0, protocol)

    def of(self, ip: Address, port: int = 0, protocol: int | None = None) -> dict[str, str]:
        """Who has the address: one of ``pod``, ``service`` and ``node``, or nothing."""
        pod = self._cluster.pod_by_address(ip)
        if pod is not None:
            return {"pod": f"{pod.namespace}/{pod.name}"}
        word = PROTOCOL_WORDS.get(protocol, "").upper() if protocol is not None else ""
        found = self._cluster.service_by_address(ip, port or None, word or None)
        if found is not None:
            return {"service": f"{found[0].namespace}/{found[0].name}"}
        node = self._cluster.node_by_address(ip)
        wildcard = int(ip) == 2**ip.max_prefixlen - 1
        if word and (node is not None or wildcard):
            by_port = self._cluster.service_by_node_port(port, word)
            if by_port is not None:
                return {"service": f"{by_port[0].namespace}/{by_port[0].name}"}
        return {"node": node.name} if node is not None else {}


def protocol_word(number: int) -> str:
    """A protocol's name, else its number."""
    return PROTOCOL_WORDS.get(number, str(number))


def address_words(end: Mapping[str, Any]) -> str:
    """``10.0.0.1:80`` of an end."""
    ip, port = end["ip"], end.get("port")
    if port is None:
        return str(ip)
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def label(name: Mapping[str, Any]) -> str:
    """The name in an end, "" without one."""
    return next((f"node {name[kind]}" if kind == "node" else str(name[kind]) for kind in KINDS if kind in name), "")


def end_words(end: Mapping[str, Any]) -> str:
    """``ns/pod (10.0.0.1:80)`` of an end, or its address alone."""
    name = label(end)
    return f"{name} ({address_words(end)})" if name else address_words(end)


KINDS = ("pod", "service", "node")
"""Names that an end can have."""
