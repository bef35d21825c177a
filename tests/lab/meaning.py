"""What the API says about a pod's traffic, evaluated straight from the model: a second opinion on our rendering.

Knows pods' policies and profiles only: no services, no host endpoints. Source: the policy semantics of Calico's
documentation (tiers, order, end-of-tier action, profiles) and Felix's filtering of rules by address family.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.lab.endpoint_shape import endpoint_tiers

if TYPE_CHECKING:
    from tests.lab.model import Direction, Entity, Model, Pod, Rule, Selector
    from tests.lab.topology import Topology

_NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}
_NAMES = {number: name for name, number in _NUMBERS.items()}
_ECHO_REQUEST = {"icmp": 8, "icmpv6": 128}


@dataclass(frozen=True, slots=True)
class Packet:
    """A flow's first packet as policy sees it; ports are 0 for ICMP, which is an echo request."""

    source: str
    destination: str
    protocol: str
    source_port: int
    port: int

    @property
    def version(self) -> int:
        return 6 if ":" in self.destination else 4


def allowed(topology: Topology, model: Model, pod: Pod, direction: Direction, packet: Packet) -> bool:
    """Whether the pod's policies and profiles let the packet pass in that direction."""
    for tier in endpoint_tiers(model, pod.all_labels(), lambda p: not (p.pre_dnat or p.do_not_track)):
        policies = [policy for policy in tier.of(direction) if not policy.staged]
        decision = None
        for policy in policies:
            decision = _first(topology, model, policy.rules(direction) or (), packet)
            if decision:
                break
        if decision in {"Allow", "Deny"}:
            return decision == "Allow"
        if decision is None and policies and tier.tier.default_action != "Pass":
            return False
    return any(profile.startswith("kns.") for profile in pod.profiles)


def _first(topology: Topology, model: Model, rules: tuple[Rule, ...], packet: Packet) -> str | None:
    for rule in rules:
        if rule.action != "Log" and _matches(topology, model, rule, packet):
            return rule.action
    return None


def _matches(topology: Topology, model: Model, rule: Rule, packet: Packet) -> bool:
    if rule.ip_version not in {None, packet.version}:
        return False
    if rule.protocol is not None and _name(rule.protocol) != packet.protocol:
        return False
    if rule.not_protocol is not None and _name(rule.not_protocol) == packet.protocol:
        return False
    kind = _ECHO_REQUEST.get(packet.protocol)
    if rule.icmp_type is not None and rule.icmp_type != kind:
        return False
    if rule.not_icmp_type is not None and rule.not_icmp_type == kind:
        return False
    sides = ((rule.source, packet.source, packet.source_port), (rule.destination, packet.destination, packet.port))
    return all(_side(topology, model, side, address, port, packet) for side, address, port in sides)


def _name(protocol: str | int) -> str:
    return protocol if isinstance(protocol, str) else _NAMES[protocol]


def _side(topology: Topology, model: Model, side: Entity, address: str, port: int, packet: Packet) -> bool:
    own = ipaddress.ip_address(address)
    for nets, wanted in ((side.nets, True), (side.not_nets, False)):
        family = [ipaddress.ip_network(net) for net in nets if (":" in net) == (packet.version == 6)]
        if nets and not family:
            return False  # only the other family's networks: the rule does not exist in this one
        if family and any(own in net for net in family) is not wanted:
            return False
    if side.selector is not None and not _member(topology, model, side.selector, address):
        return False
    if side.not_selector is not None and _member(topology, model, side.not_selector, address):
        return False
    if side.service is not None and not _backend(topology, model, side.service, address, port, packet.protocol):
        return False
    if side.ports and not _port(topology, side.ports, address, port, packet.protocol):
        return False
    return not (side.not_ports and _port(topology, side.not_ports, address, port, packet.protocol))


def _member(topology: Topology, model: Model, selector: Selector, address: str) -> bool:
    own = ipaddress.ip_address(address)
    for pod in topology.pods:
        if address in {pod.v4, pod.v6} and selector.matches(pod.all_labels()):
            return True
    for endpoint in model.host_endpoints:
        node = topology.node(endpoint.node)
        if address in {node.v4, node.v6} and selector.matches(endpoint.labels):
            return True
    nets = [net for one in model.network_sets if selector.matches(one.labels) for net in one.nets]
    return any(own in ipaddress.ip_network(net) for net in nets)


def _backend(
    topology: Topology, model: Model, service: tuple[str, str], address: str, port: int, protocol: str
) -> bool:
    return any(
        topology.address(place, 6 if ":" in address else 4) == address
        for one in model.services
        if (one.namespace, one.name) == service
        for place in one.backends
        for service_port in one.ports
        if (service_port.target_port, service_port.protocol) == (port, protocol)
    )


def _port(topology: Topology, ports: tuple[object, ...], address: str, port: int, protocol: str) -> bool:
    for wanted in ports:
        if isinstance(wanted, tuple) and wanted[0] <= port <= wanted[1]:
            return True
        if wanted == port:
            return True
        if isinstance(wanted, str) and any(
            (named.name, named.protocol, named.number) == (wanted, protocol, port)
            for pod in topology.pods
            if address in {pod.v4, pod.v6}
            for named in pod.ports
        ):
            return True
    return False
