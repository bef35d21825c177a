"""``table ip kube-proxy`` and ``table ip6 kube-proxy`` as kube-proxy's nftables mode programs them on a node.

Our own rendering of the public rules of the format (kubernetes pkg/proxy/nftables/proxier.go, as recorded with 1.35);
a test compares it with a recorded table.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.lab.felix_shape import replaced
from tests.lab.model import Pod
from tests.lab.topology import POOL_V4, POOL_V6, SERVICES_V4, SERVICES_V6

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.lab.model import Model, Node, Service, ServicePort
    from tests.lab.topology import Topology

MASQUERADE_MARK = 0x4000
_REJECT = "goto reject-chain"


def kube_proxy_text(topology: Topology, model: Model, node: Node) -> str:
    """Both families' tables of a node, as nft text. A table that exists is replaced."""
    return "\n".join(_Table(topology, model, node, version).text() for version in topology.versions)


def _hashed(rest: str) -> str:
    return f"{base64.b32encode(hashlib.sha256(rest.encode()).digest()).decode()[:8]}-{rest}"


@dataclass(slots=True)
class _Table:
    topology: Topology
    model: Model
    node: Node
    version: int
    chains: dict[str, list[str]] = field(default_factory=dict)
    maps: dict[str, list[str]] = field(default_factory=dict)
    affinity: dict[str, int] = field(default_factory=dict)

    @property
    def ip(self) -> str:
        return "ip" if self.version == 4 else "ip6"

    @property
    def address(self) -> str:
        return "ipv4_addr" if self.version == 4 else "ipv6_addr"

    def text(self) -> str:
        self.maps = {name: [] for name in _MAPS}
        for service in self.model.services:
            for port in service.ports:
                _ServicePortRules(self, service, port).add()
        chains = self._static() | self.chains
        bodies = ["\n".join([f"  chain {name} {{", *lines, "  }"]) for name, lines in chains.items()]
        return replaced(self.ip, "kube-proxy", ['  comment "rules for kube-proxy"', *self._sets(), *bodies])

    def _sets(self) -> list[str]:
        used = [s.cluster_address(self.version) for s in self.model.services if s.cluster_address(self.version)]
        sets = [
            _set("set cluster-ips", self.address, "Active ClusterIPs", used),
            _set(
                "set nodeport-ips", self.address, "IPs that accept NodePort traffic", [self.node.address(self.version)]
            ),
        ]
        for name, (key, comment) in _MAPS.items():
            kind = key.replace("ADDRESS", self.address) + " : verdict"
            sets.append(_set(f"map {name}", kind, comment, self.maps[name]))
        for name, seconds in self.affinity.items():
            sets.append(
                f"  set {name} {{\n    type {self.address}\n    flags dynamic,timeout\n    timeout {seconds}s\n  }}"
            )
        return sets

    def _static(self) -> dict[str, list[str]]:
        key = f"{self.ip} daddr . meta l4proto . th dport vmap"
        node_port = f"{self.ip} daddr @nodeport-ips meta l4proto . th dport vmap"
        cidr = SERVICES_V4 if self.version == 4 else SERVICES_V6
        return {
            "reject-chain": ['comment "helper for @no-endpoint-services / @no-endpoint-nodeports"', "reject"],
            "mark-for-masquerade": [f"meta mark set mark or {MASQUERADE_MARK:#x}"],
            "masquerading": [
                f"meta mark & {MASQUERADE_MARK:#x} == 0 return",
                f"meta mark set mark xor {MASQUERADE_MARK:#x}",
                "masquerade fully-random",
            ],
            "cluster-ips-check": [
                f'{self.ip} daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"',
                f'{self.ip} daddr {cidr} drop comment "Drop traffic to unallocated ClusterIPs"',
            ],
            "nodeport-endpoints-check": [f"{node_port} @no-endpoint-nodeports"],
            "service-endpoints-check": [f"{key} @no-endpoint-services"],
            "firewall-check": [f"{key} @firewall-ips"],
            "services": [f"{key} @service-ips", f"{node_port} @service-nodeports"],
            **{name: [_hook(*hook), *lines] for name, (hook, lines) in _BASE.items()},
        }


_MAPS = {
    "no-endpoint-services": (
        "ADDRESS . inet_proto . inet_service",
        "vmap to drop or reject packets to services with no endpoints",
    ),
    "no-endpoint-nodeports": (
        "inet_proto . inet_service",
        "vmap to drop or reject packets to service nodeports with no endpoints",
    ),
    "firewall-ips": (
        "ADDRESS . inet_proto . inet_service",
        "destinations that are subject to LoadBalancerSourceRanges",
    ),
    "service-ips": ("ADDRESS . inet_proto . inet_service", "ClusterIP, ExternalIP and LoadBalancer IP traffic"),
    "service-nodeports": ("inet_proto . inet_service", "NodePort traffic"),
}
_NEW = "ct state new jump"
_BASE: dict[str, tuple[tuple[str, str, str], list[str]]] = {
    "filter-prerouting-pre-dnat": (("filter", "prerouting", "-110"), [f"{_NEW} firewall-check"]),
    "filter-output-pre-dnat": (("filter", "output", "-110"), [f"{_NEW} firewall-check"]),
    "filter-input": (
        ("filter", "input", "0"),
        [f"{_NEW} nodeport-endpoints-check", f"{_NEW} service-endpoints-check"],
    ),
    "filter-forward": (("filter", "forward", "0"), [f"{_NEW} service-endpoints-check", f"{_NEW} cluster-ips-check"]),
    "filter-output": (("filter", "output", "0"), [f"{_NEW} service-endpoints-check", f"{_NEW} cluster-ips-check"]),
    "nat-prerouting": (("nat", "prerouting", "-100"), ["jump services"]),
    "nat-output": (("nat", "output", "-100"), ["jump services"]),
    "nat-postrouting": (("nat", "postrouting", "100"), ["jump masquerading"]),
}


def _hook(kind: str, hook: str, priority: str) -> str:
    return f"type {kind} hook {hook} priority {priority}; policy accept;"


def _set(head: str, kind: str, comment: str, elements: Sequence[str]) -> str:
    lines = [f"  {head} {{", f"    type {kind}", f'    comment "{comment}"']
    if elements:
        lines.append(f"    elements = {{ {', '.join(elements)} }}")
    return "\n".join([*lines, "  }"])


@dataclass(slots=True)
class _ServicePortRules:
    """What one port of one service adds. The names of variables follow proxier.go's syncProxyRules."""

    table: _Table
    service: Service
    port: ServicePort

    def add(self) -> None:
        if not self.service.cluster_address(self.table.version):
            return
        every = [place for place in self.service.backends if self._address(place)]
        local = [place for place in every if self._is_local(place)]
        internal_local = self.service.internal_policy == "Local"
        external_local = self.service.external_policy == "Local"
        has_internal = bool(local if internal_local else every)
        has_external = bool(local if external_local else every)
        exposed = bool(self._exposed() or self.port.node_port)
        self._cluster_address(every, internal_local=internal_local, has_internal=has_internal)
        if exposed:
            self._external_addresses(every, has_external=has_external)
        if every and exposed:
            self._external_chain(external_local=external_local, has_external=has_external)
        if not (internal_local and (external_local or not exposed)) or (exposed and external_local):
            self._balance("service", every)
        if local and (internal_local or (external_local and exposed)):
            self._balance("local", local)
        reachable = every if not (internal_local and not exposed) else local
        for place in reachable:
            self._endpoint(place)

    # ----------------------------------------------------------------------------------------------------- names

    @property
    def _rest(self) -> str:
        return f"{self.service.namespace}/{self.service.name}/{self.port.protocol}/{self.port.name}"

    @property
    def _comment(self) -> str:
        name = f":{self.port.name}" if self.port.name else ""
        return f'comment "{self.service.namespace}/{self.service.name}{name}"'

    def _endpoint_name(self, place: str) -> str:
        address = self._address(place).replace(":", ".")
        return _hashed(f"{self._rest}__{address}/{self.port.target_port}")

    def _chain(self, kind: str) -> str:
        return f"{kind}-{_hashed(self._rest)}"

    def _address(self, place: str) -> str:
        return self.table.topology.address(place, self.table.version)

    def _is_local(self, place: str) -> bool:
        thing = self.table.topology.places.get(place)
        return (isinstance(thing, Pod) and thing.node == self.table.node.name) or thing == self.table.node

    def _exposed(self) -> list[str]:
        addresses = (*self.service.external_addresses, *self.service.load_balancer)
        return [address for address in addresses if (":" in address) == (self.table.version == 6)]

    def _key(self, address: str) -> str:
        return f"{address} . {self.port.protocol} . {self.port.port}"

    # ------------------------------------------------------------------------------------------------------ maps

    def _cluster_address(self, every: Sequence[str], *, internal_local: bool, has_internal: bool) -> None:
        table, key = self.table, self._key(self.service.cluster_address(self.table.version))
        if not has_internal:
            verdict = "drop" if every else _REJECT
            table.maps["no-endpoint-services"].append(f"{key} {self._comment} : {verdict}")
            return
        chain = self._chain("local" if internal_local else "service")
        table.maps["service-ips"].append(f"{key} : goto {chain}")
        pool = POOL_V4 if table.version == 4 else POOL_V6
        own = self.service.cluster_address(table.version)
        masquerade = f"{table.ip} daddr {own} {table.ip} saddr != {pool} jump mark-for-masquerade"
        table.chains.setdefault(chain, []).append(masquerade)

    def _external_addresses(self, every: Sequence[str], *, has_external: bool) -> None:
        table, chain = self.table, self._chain("external")
        missing = "drop" if every else _REJECT
        for address in self._exposed():
            if every:
                table.maps["service-ips"].append(f"{self._key(address)} : goto {chain}")
            if not has_external:
                table.maps["no-endpoint-services"].append(f"{self._key(address)} {self._comment} : {missing}")
        if self.port.node_port:
            key = f"{self.port.protocol} . {self.port.node_port}"
            if every:
                table.maps["service-nodeports"].append(f"{key} : goto {chain}")
            if not has_external:
                table.maps["no-endpoint-nodeports"].append(f"{key} {self._comment} : {missing}")
        self._firewall()

    def _firewall(self) -> None:
        """LoadBalancerSourceRanges; a range that has the node lets requests to the address from the node pass."""
        table = self.table
        balanced = [a for a in self.service.load_balancer if (":" in a) == (table.version == 6)]
        ranges = [r for r in self.service.source_ranges if (":" in r) == (table.version == 6)]
        if not balanced or not ranges:
            return
        node = ipaddress.ip_address(table.node.address(table.version))
        if any(node in ipaddress.ip_network(allowed) for allowed in ranges):
            ranges += balanced
        chain = self._chain("firewall")
        table.chains[chain] = [f"{table.ip} saddr != {{ {', '.join(ranges)} }} drop"]
        table.maps["firewall-ips"] += [f"{self._key(address)} {self._comment} : goto {chain}" for address in balanced]

    # ---------------------------------------------------------------------------------------------------- chains

    def _external_chain(self, *, external_local: bool, has_external: bool) -> None:
        service, pool = self._chain("service"), POOL_V4 if self.table.version == 4 else POOL_V6
        if external_local:
            lines = [
                f'{self.table.ip} saddr {pool} goto {service} comment "short-circuit pod traffic"',
                'fib saddr type local jump mark-for-masquerade comment "masquerade local traffic"',
                f'fib saddr type local goto {service} comment "short-circuit local traffic"',
            ]
        else:
            lines = ["jump mark-for-masquerade"]
        if has_external:
            lines.append(f"goto {self._chain('local') if external_local else service}")
        self.table.chains[self._chain("external")] = lines

    def _balance(self, kind: str, places: Sequence[str]) -> None:
        if not places:
            return
        lines = self.table.chains.setdefault(self._chain(kind), [])
        if self.service.affinity_seconds:
            for place in places:
                name = self._endpoint_name(place)
                lines.append(f"{self.table.ip} saddr @affinity-{name} goto endpoint-{name}")
        listed = ", ".join(f"{n} : goto endpoint-{self._endpoint_name(place)}" for n, place in enumerate(places))
        lines.append(f"numgen random mod {len(places)} vmap {{ {listed} }}")

    def _endpoint(self, place: str) -> None:
        table, name, address = self.table, self._endpoint_name(place), self._address(place)
        lines = [f"{table.ip} saddr {address} jump mark-for-masquerade"]
        if self.service.affinity_seconds:
            table.affinity[f"affinity-{name}"] = self.service.affinity_seconds
            lines.append(f"update @affinity-{name} {{ {table.ip} saddr }}")
        target = f"[{address}]:{self.port.target_port}" if table.version == 6 else f"{address}:{self.port.target_port}"
        table.chains[f"endpoint-{name}"] = [*lines, f"meta l4proto {self.port.protocol} dnat to {target}"]
