"""Policies of Kubernetes' kinds in the one form of `calico_debug.intent.model`, converted as Calico converts them.

libcalico-go/lib/backend/k8s/conversion: conversion.go and clusternetworkpolicy.go of v3.32.1, and conversion.go of
v3.30 for AdminNetworkPolicy and BaselineAdminNetworkPolicy. An entry becomes a rule a protocol and peer, all with the
entry's index.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, cast

from calico_debug.intent.convert_calico import NAMESPACE, NAMESPACE_PREFIX, staged_action
from calico_debug.intent.fields import (
    Unreadable,
    listed,
    mapping,
    mappings,
    namespace_selector,
    network,
    number,
    pod_selector,
    port_range,
    ports,
    protocol,
    selector,
    text,
)
from calico_debug.intent.model import DIRECTIONS, Direction, Policy, PolicyKey, Rule, Side
from calico_debug.intent.selectors import SelectorError, prefixed
from calico_debug.model.cluster import PolicyObject

Action = Literal["Allow", "Deny", "Pass"]
Ports = tuple[tuple[tuple[int, int], ...], tuple[str, ...]]

ANY: Final[Ports] = ((), ())
"""Every port."""


# ------------------------------------------------------------------------------------------- Kubernetes' NetworkPolicy


def convert_network_policy(policy: PolicyObject) -> Policy:
    """A networking.k8s.io NetworkPolicy, or Calico's staged form of one."""
    spec, problem, selected = policy.spec, "", None
    types: frozenset[Direction] = frozenset(DIRECTIONS)
    try:
        types = _network_policy_types(policy)
        own = f"{NAMESPACE} == '{policy.namespace}'"
        selected = selector(f"({pod_selector(spec.get('podSelector'))}) && {own}")
    except Unreadable as unreadable:
        problem = str(unreadable)
    ingress, egress = (_rules(policy, direction, _network_policy_rules) for direction in DIRECTIONS)
    return _policy(policy, types, selected, ingress, egress, problem)


def _network_policy_types(policy: PolicyObject) -> frozenset[Direction]:
    """Directions. Left out, Kubernetes' API server fills them in, and Calico takes a staged policy for ingress."""
    spec = policy.spec
    given = [str(one).lower() for one in listed(spec.get("policyTypes"), "policyTypes")]
    if not given:
        given = ["ingress", *(["egress"] if spec.get("egress") and not policy.kind.startswith("Staged") else [])]
    return frozenset(way for way in DIRECTIONS if way in given)


def _network_policy_rules(
    policy: PolicyObject, index: int, entry: Mapping[str, Any], direction: Direction
) -> Iterator[Rule]:
    peers: Sequence[Mapping[str, Any] | None] = mappings(entry.get(_peer_key(direction)), "peers") or (None,)
    for number_, allowed in _by_protocol(_network_policy_port(port) for port in mappings(entry.get("ports"), "ports")):
        for peer in peers:
            side = Side() if peer is None else _network_policy_peer(peer, policy.namespace)
            yield _rule(index, "Allow", number_, allowed, side, direction)


def _network_policy_port(port: Mapping[str, Any]) -> tuple[int | None, Ports]:
    named = protocol(port.get("protocol") or "TCP")
    given, end = port.get("port"), port.get("endPort")
    if given is None:
        return named, ANY
    if end is not None:
        return named, ((port_range(given, end),), ())
    return named, ports([given])


def _network_policy_peer(peer: Mapping[str, Any], namespace: str) -> Side:
    if peer.get("ipBlock") is not None:
        block = mapping(peer["ipBlock"], "ipBlock")
        excepted = tuple(network(one) for one in listed(block.get("except"), "except"))
        return Side(nets=(network(block.get("cidr")),), not_nets=excepted)
    return _pods(pod_selector(peer.get("podSelector")), namespace_selector(peer.get("namespaceSelector")), namespace)


# ----------------------------------------------------------------------------------------------- policies of a cluster


def convert_cluster_policy(policy: PolicyObject) -> Policy:
    """A ClusterNetworkPolicy, AdminNetworkPolicy or BaselineAdminNetworkPolicy. It governs where it has rules."""
    spec, problem, selected = policy.spec, "", None
    ingress, egress = (_rules(policy, direction, _cluster_rules) for direction in DIRECTIONS)
    try:
        subject = mapping(spec.get("subject"), "subject")
        if subject.get("namespaces") is not None:
            spaces, pods = namespace_selector(subject["namespaces"]), pod_selector(None)
        elif subject.get("pods") is not None:
            given = mapping(subject["pods"], "pods")
            # a required field: absent it is empty, which is every namespace
            spaces = namespace_selector(given.get("namespaceSelector") or {})
            pods = pod_selector(given.get("podSelector"))
        else:
            raise Unreadable("it has no subject")
        selected = selector(f"({pods}) && {_under(spaces)}".replace("all()", f"has({NAMESPACE})"))
    except Unreadable as unreadable:
        problem = str(unreadable)
    types: list[Direction] = [way for way, rules in zip(DIRECTIONS, (ingress, egress), strict=True) if rules]
    return _policy(policy, frozenset(types), selected, ingress, egress, problem)


def _cluster_rules(policy: PolicyObject, index: int, entry: Mapping[str, Any], direction: Direction) -> Iterator[Rule]:
    actions = _ACTIONS[policy.kind]
    action = actions.get(str(entry.get("action")))
    if action is None:
        raise Unreadable(f"action {entry.get('action')!r} is not known")
    name = text(entry.get("name"), "name")
    peers = mappings(entry.get(_peer_key(direction)), "peers")
    sides = [_cluster_peer(peer, direction) for peer in peers]
    if None in sides:
        # what Calico cannot convert: an entry that would deny or pass denies everything, one that allows is left out
        if action != "Allow":
            yield Rule(index, "Deny", name=name)
        return
    reader = _cluster_port if policy.kind == "ClusterNetworkPolicy" else _admin_port
    given = mappings(entry.get("protocols" if policy.kind == "ClusterNetworkPolicy" else "ports"), "ports")
    for number_, allowed in _by_protocol(reader(port) for port in given):
        for side in sides:
            yield _rule(index, action, number_, allowed, side or Side(), direction, name)


_ACTIONS: Final[Mapping[str, Mapping[str, Action]]] = {
    "ClusterNetworkPolicy": {"Accept": "Allow", "Deny": "Deny", "Pass": "Pass"},
    "AdminNetworkPolicy": {"Allow": "Allow", "Deny": "Deny", "Pass": "Pass"},
    "BaselineAdminNetworkPolicy": {"Allow": "Allow", "Deny": "Deny"},
}


def _cluster_peer(peer: Mapping[str, Any], direction: Direction) -> Side | None:
    """The side that a peer means; None if it is of a form that Calico does not have."""
    side = None
    if peer.get("namespaces") is not None:
        side = _pods("", namespace_selector(peer["namespaces"]), "")
    if peer.get("pods") is not None:
        given = mapping(peer["pods"], "pods")
        side = _pods(
            pod_selector(given.get("podSelector")), namespace_selector(given.get("namespaceSelector") or {}), ""
        )
    if direction == "egress" and peer.get("networks"):
        nets = tuple(network(one) for one in listed(peer["networks"], "networks"))
        side = Side(selector=side.selector if side else None, nets=nets)
    return side


def _cluster_port(port: Mapping[str, Any]) -> tuple[int | None, Ports]:
    for name in ("tcp", "udp", "sctp"):
        if port.get(name) is not None:
            given = mapping(port[name], name).get("destinationPort")
            return protocol(name), _number_or_range(mapping(given, "destinationPort"))
    named = text(port.get("destinationNamedPort"), "destinationNamedPort")
    return None, ports([named]) if named else ANY


def _admin_port(port: Mapping[str, Any]) -> tuple[int | None, Ports]:
    if port.get("portNumber") is not None:
        given = mapping(port["portNumber"], "portNumber")
        single = number(given.get("port"), "port")
        return protocol(given.get("protocol") or "TCP"), (((single, single),), ())
    if port.get("portRange") is not None:
        given = mapping(port["portRange"], "portRange")
        return protocol(given.get("protocol") or "TCP"), ((port_range(given.get("start"), given.get("end")),), ())
    return None, ANY  # a named port too: Calico takes it for every port


def _number_or_range(given: Mapping[str, Any]) -> Ports:
    if given.get("number"):
        single = number(given["number"], "port")
        return ((single, single),), ()
    if given.get("range") is not None:
        span = mapping(given["range"], "range")
        return (port_range(span.get("start"), span.get("end")),), ()
    return ANY


# ---------------------------------------------------------------------------------------------------------- both kinds


def _policy(
    policy: PolicyObject,
    types: frozenset[Direction],
    selected: Any,
    ingress: tuple[Rule, ...],
    egress: tuple[Rule, ...],
    problem: str,
) -> Policy:
    return Policy(
        key=PolicyKey(policy.kind, policy.namespace, policy.name),
        tier=policy.tier,
        order=math.inf if policy.order is None else policy.order,
        types=types,
        selector=selected,
        ingress=ingress,
        egress=egress,
        source=policy,
        staged_action=staged_action(policy),
        problem=problem,
    )


_Expand = Callable[[PolicyObject, int, Mapping[str, Any], Direction], Iterator[Rule]]


def _rules(policy: PolicyObject, direction: Direction, expand: _Expand) -> tuple[Rule, ...]:
    found: list[Rule] = []
    try:
        entries = listed(policy.spec.get(direction), direction)
    except Unreadable as unreadable:
        return (Rule(0, "Deny", problem=str(unreadable)),)
    for index, entry in enumerate(entries):
        try:
            found += list(expand(policy, index, mapping(entry, "an entry"), direction))
        except Unreadable as unreadable:
            given = entry.get("action", "Allow") if isinstance(entry, Mapping) else "Deny"
            action = {"Accept": "Allow"}.get(given, given)
            known = action in ("Allow", "Deny", "Pass")
            found.append(Rule(index, cast(Any, action) if known else "Deny", problem=str(unreadable)))
    return tuple(found)


def _rule(
    index: int,
    action: Action,
    protocol_: int | None,
    allowed: Ports,
    peer: Side,
    direction: Direction,
    name: str = "",
) -> Rule:
    ranges, names = allowed
    if direction == "ingress":
        return Rule(
            index, action, protocol=protocol_, source=peer, name=name, destination=Side(ports=ranges, named_ports=names)
        )
    own = Side(selector=peer.selector, nets=peer.nets, not_nets=peer.not_nets, ports=ranges, named_ports=names)
    return Rule(index, action, protocol=protocol_, destination=own, name=name)


def _by_protocol(given: Iterator[tuple[int | None, Ports]]) -> list[tuple[int | None, Ports]]:
    """One entry a protocol, sorted by name; every port wins over single ones, every protocol over all."""
    merged: dict[int | None, Ports] = {}
    for number_, allowed in given:
        if number_ is None and allowed == ANY:
            return [(None, ANY)]
        before = merged.get(number_)
        if allowed == ANY or before == ANY:
            merged[number_] = ANY
        else:
            ranges, names = before or ANY
            merged[number_] = (*ranges, *allowed[0]), (*names, *allowed[1])
    names_ = {None: "", 6: "TCP", 17: "UDP", 132: "SCTP"}
    return sorted(merged.items(), key=lambda item: names_.get(item[0], str(item[0]))) or [(None, ANY)]


def _pods(pods: str, spaces: str, namespace: str) -> Side:
    """Endpoints with those labels: in the namespaces selected, or in the policy's own."""
    if spaces:
        where = _under(spaces).replace("all()", f"has({NAMESPACE})")
    else:
        where = f"{NAMESPACE} == '{namespace}'" if namespace else ""
    both = f"({where}) && ({pods})" if where and pods else where or pods
    return Side(selector=selector(both) if both else None)


def _under(spaces: str) -> str:
    try:
        return prefixed(spaces, NAMESPACE_PREFIX)
    except SelectorError as error:
        raise Unreadable(f"selector {spaces[:100]!r}: {error}") from None


def _peer_key(direction: Direction) -> str:
    return "from" if direction == "ingress" else "to"
