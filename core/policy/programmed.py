"""Which rules of a policy object are in the dataplane, in which order: the way from a rule there back to its index.

Calico's own kinds are programmed rule by rule, less those of the other IP family (FilterRuleToIPVersion in
felix/rules/policy.go, ipVersionToProtoIPVersion in felix/calc/rule_convert.go; v3.28 to v3.32). A negated network of
all addresses drops a rule only since patch releases of v3.29 and v3.30. An entry of Kubernetes' kinds becomes a rule
a protocol and peer (libcalico-go/lib/backend/k8s/conversion: conversion.go, clusternetworkpolicy.go of v3.32).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final, TypeGuard

from calico_debug.model.cluster import PolicyObject

CALICO_ACTIONS: Final = ("Allow", "Deny", "Pass", "Log")


@dataclass(frozen=True, slots=True)
class ProgrammedRule:
    """A rule in the dataplane. ``index`` counts the object's rules of the direction from 0.

    ``action`` is Allow, Deny, Pass or Log: what is programmed, which is Deny in place of an entry of a cluster policy
    that Calico cannot convert.
    """

    index: int
    action: str


class _Unknown(Exception):  # noqa: N818 - ends an expansion, is never shown
    """What Calico makes of a value is not known."""


def programmed_rules(policy: PolicyObject, direction: str, family: int) -> tuple[ProgrammedRule, ...] | None:
    """Rules of ``policy`` for "ingress" or "egress" that IPv``family`` has, in the dataplane's order.

    ``family`` 0 gives those of both, as Felix numbers them before it leaves out the other one's.

    None if what Calico makes of the object cannot be told: a value that its API would refuse, an unknown kind. The
    object may have changed since it was programmed, and releases differ, so compare number and actions with the chain.
    """
    expand = _EXPANSIONS.get(policy.kind)
    if expand is None:
        return () if policy.kind.startswith("Staged") else None
    try:
        rules = _mappings(policy.spec.get(direction))
        return tuple(one for index, rule in enumerate(rules) for one in expand(index, rule, direction, family))
    except _Unknown:
        return None


_Expansion = Callable[[int, Mapping[str, Any], str, int], Iterator[ProgrammedRule]]


def _calico(index: int, rule: Mapping[str, Any], _direction: str, family: int) -> Iterator[ProgrammedRule]:
    action = rule.get("action")
    if action not in CALICO_ACTIONS:
        raise _Unknown
    if family and _ip_version(rule) not in (0, family):
        return
    for side in ("source", "destination"):
        entity = _mapping(rule.get(side))
        if not _has_family(_networks(entity.get("nets")), _networks(entity.get("notNets")), family):
            return
    yield ProgrammedRule(index, action)


def _ip_version(rule: Mapping[str, Any]) -> int:
    """4 or 6 if the rule says so itself or by its protocol's name, 0 for both. A protocol's number says nothing."""
    version = rule.get("ipVersion")
    if version is not None:
        if not isinstance(version, int):
            raise _Unknown
        return version if version in (4, 6) else 0
    return {"icmp": 4, "icmpv6": 6}.get(str(rule.get("protocol")).lower(), 0)


def _has_family(
    networks: Sequence[IPv4Network | IPv6Network], excluded: Sequence[IPv4Network | IPv6Network], family: int
) -> bool:
    """Whether a rule with those networks on one side is programmed for the family (filterNets in policy.go).

    Networks of the other family are left out; a list that this empties takes the rule with it, an excluded list too.
    """
    if not family:
        return True
    for one in (networks, excluded):
        if one and all(network.version != family for network in one):
            return False
    return not any(network.version == family and network.prefixlen == 0 for network in excluded)


def _kubernetes(index: int, entry: Mapping[str, Any], direction: str, family: int) -> Iterator[ProgrammedRule]:
    protocols = {_kubernetes_protocol(port) for port in _mappings(entry.get("ports"))} or {""}
    peers = _mappings(entry.get("from" if direction == "ingress" else "to")) or ({},)
    for _ in protocols:
        for peer in peers:
            block = peer.get("ipBlock")
            networks = () if block is None else _networks([_mapping(block).get("cidr")])
            if _has_family(networks, _networks(_mapping(block).get("except")), family):
                yield ProgrammedRule(index, "Allow")


def _kubernetes_protocol(port: Mapping[str, Any]) -> str:
    number, end = port.get("port"), port.get("endPort")
    if end is not None and not (_is_port(number) and _is_port(end) and number <= end):
        raise _Unknown
    if number is not None and not isinstance(number, str) and not _is_port(number):
        raise _Unknown
    return _protocol(port.get("protocol"))


def _cluster(index: int, entry: Mapping[str, Any], direction: str, family: int) -> Iterator[ProgrammedRule]:
    """An entry of ClusterNetworkPolicy. One that has no Calico form becomes Deny for Deny and Pass, else nothing."""
    actions = {"Accept": "Allow", "Deny": "Deny", "Pass": "Pass"}
    yield from _cluster_entry(index, entry, direction, family, _cluster_protocols(entry), actions)


def _admin(index: int, entry: Mapping[str, Any], direction: str, family: int) -> Iterator[ProgrammedRule]:
    actions = {"Allow": "Allow", "Deny": "Deny", "Pass": "Pass"}
    yield from _cluster_entry(index, entry, direction, family, _admin_protocols(entry), actions)


def _baseline_admin(index: int, entry: Mapping[str, Any], direction: str, family: int) -> Iterator[ProgrammedRule]:
    actions = {"Allow": "Allow", "Deny": "Deny"}
    yield from _cluster_entry(index, entry, direction, family, _admin_protocols(entry), actions)


def _cluster_entry(
    index: int, entry: Mapping[str, Any], direction: str, family: int, protocols: set[str], actions: Mapping[str, str]
) -> Iterator[ProgrammedRule]:
    action = actions.get(str(entry.get("action")))
    if action is None:
        raise _Unknown
    key, fields = (
        ("from", ("namespaces", "pods")) if direction == "ingress" else ("to", ("namespaces", "pods", "networks"))
    )
    peers = _mappings(entry.get(key))
    if any(not any(_given(peer, field) for field in fields) for peer in peers):
        if action != "Allow":
            yield ProgrammedRule(index, "Deny")
        return
    for _ in protocols:
        for peer in peers:
            networks = _networks(peer.get("networks")) if "networks" in fields else ()
            if _has_family(networks, (), family):
                yield ProgrammedRule(index, action)


def _given(peer: Mapping[str, Any], field: str) -> bool:
    return bool(peer.get(field)) if field == "networks" else peer.get(field) is not None


def _cluster_protocols(entry: Mapping[str, Any]) -> set[str]:
    protocols = set()
    for protocol in _mappings(entry.get("protocols")):
        name = next((name for name in ("tcp", "udp", "sctp") if protocol.get(name) is not None), "")
        if name:
            _check_range(_mapping(_mapping(protocol[name]).get("destinationPort")).get("range"))
        elif not protocol.get("destinationNamedPort"):
            return {""}
        protocols.add(name)
    return protocols or {""}


def _admin_protocols(entry: Mapping[str, Any]) -> set[str]:
    protocols = set()
    for port in _mappings(entry.get("ports")):
        _check_range(port.get("portRange"))
        given = port.get("portNumber") if port.get("portNumber") is not None else port.get("portRange")
        if given is None:
            return {""}  # a named port too: Calico takes it for every port
        protocols.add(_protocol(_mapping(given).get("protocol")))
    return protocols or {""}


_EXPANSIONS: Final[Mapping[str, _Expansion]] = {
    "NetworkPolicy": _calico,
    "GlobalNetworkPolicy": _calico,
    "KubernetesNetworkPolicy": _kubernetes,
    "ClusterNetworkPolicy": _cluster,
    "AdminNetworkPolicy": _admin,
    "BaselineAdminNetworkPolicy": _baseline_admin,
}


def _protocol(value: object) -> str:
    if not isinstance(value, str | None):
        raise _Unknown
    return value or "TCP"


def _check_range(value: object) -> None:
    if value is None:
        return
    start, end = (_mapping(value).get(key) for key in ("start", "end"))
    if not (_is_port(start) and _is_port(end) and start <= end):
        raise _Unknown


def _is_port(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535


def _mapping(value: object) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _Unknown
    return value


def _mappings(value: object) -> Sequence[Mapping[str, Any]]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise _Unknown
    return tuple(_mapping(one) for one in value)


def _networks(value: object) -> Sequence[IPv4Network | IPv6Network]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise _Unknown
    return tuple(_network(one) for one in value)


def _network(value: object) -> IPv4Network | IPv6Network:
    # A network mask in dots is Python's idea, not Calico's
    if not isinstance(value, str) or "." in value.partition("/")[2]:
        raise _Unknown
    try:
        return ip_network(value, strict=False)
    except ValueError:
        raise _Unknown from None
