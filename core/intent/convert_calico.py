"""Calico's own policies, enforced and staged, in the one form of `calico_debug.intent.model`.

How namespaces and service accounts become part of one selector: libcalico-go/lib/backend/syncersv1/updateprocessors
(rules.go, selectors.go, networkpolicyprocessor.go, globalnetworkpolicyprocessor.go of v3.32.1; as in v3.28).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Literal, cast

from calico_debug.intent.fields import (
    Unreadable,
    listed,
    mapping,
    networks,
    number,
    ports,
    protocol,
    selector,
    text,
)
from calico_debug.intent.model import DIRECTIONS, Direction, Policy, PolicyKey, Rule, Side
from calico_debug.intent.selectors import SelectorError, parse, prefixed
from calico_debug.model.cluster import PolicyObject

NAMESPACE: Final = "projectcalico.org/namespace"
SERVICE_ACCOUNT: Final = "projectcalico.org/serviceaccount"
NAMESPACE_PREFIX: Final = "pcns."
SERVICE_ACCOUNT_PREFIX: Final = "pcsa."
"""Labels of an endpoint's namespace and service account (libcalico-go/lib/backend/k8s/conversion/constants.go)."""

STAGED_ACTIONS: Final = ("Set", "Delete", "Learn", "Ignore")

_RULE_FIELDS: Final = frozenset(
    ["action", "metadata", "ipVersion", "protocol", "notProtocol", "icmp", "notICMP", "source", "destination", "http"]
)
_SELECTING_FIELDS: Final = ("selector", "notSelector", "namespaceSelector", "serviceAccounts", "services")
_SIDE_FIELDS: Final = frozenset([*_SELECTING_FIELDS, "nets", "notNets", "ports", "notPorts"])


def convert_calico(policy: PolicyObject) -> Policy:
    """A NetworkPolicy, GlobalNetworkPolicy, or a staged one of these."""
    spec, problem = policy.spec, ""
    selected = None
    types: frozenset[Direction] = frozenset(DIRECTIONS)
    try:
        selected = selector(_policy_selector(spec, policy.namespace))
        types = _types(spec)
    except Unreadable as unreadable:
        problem = str(unreadable)
    return Policy(
        key=PolicyKey(policy.kind, policy.namespace, policy.name),
        tier=policy.tier,
        order=math.inf if policy.order is None else policy.order,
        types=types,
        selector=selected,
        ingress=rules_of(spec, "ingress", policy.namespace),
        egress=rules_of(spec, "egress", policy.namespace),
        source=policy,
        apply_on_forward=spec.get("applyOnForward") is True,
        pre_dnat=spec.get("preDNAT") is True,
        do_not_track=spec.get("doNotTrack") is True,
        staged_action=staged_action(policy),
        problem=problem,
    )


def staged_action(policy: PolicyObject) -> str:
    """What becomes of the enforced policy: "" of one that is not staged. One that is not known is Ignore."""
    if not policy.kind.startswith("Staged"):
        return ""
    action = policy.spec.get("stagedAction") or "Set"
    return action if action in STAGED_ACTIONS else "Ignore"


def _types(spec: Mapping[str, Any]) -> frozenset[Direction]:
    """Directions. Calico's API fills them in when a policy is written; for one stored without, Felix takes both.

    That happens to policies written to crd.projectcalico.org directly (api/pkg/defaults/networkpolicy.go,
    ExtractPolicyMetadata in felix/calc/policy_sorter.go).
    """
    given = [str(one).lower() for one in listed(spec.get("types"), "types")] or DIRECTIONS
    return frozenset(way for way in DIRECTIONS if way in given)


def _policy_selector(spec: Mapping[str, Any], namespace: str) -> str:
    found = text(spec.get("selector"), "selector")
    if namespace:
        own = f"{NAMESPACE} == '{namespace}'"
        found = f"({found}) && {own}" if found else own
    elif spaces := text(spec.get("namespaceSelector"), "namespaceSelector"):
        found = _and(found, spaces, NAMESPACE_PREFIX).replace("all()", f"has({NAMESPACE})")
    if accounts := text(spec.get("serviceAccountSelector"), "serviceAccountSelector"):
        found = _and(found, accounts, SERVICE_ACCOUNT_PREFIX)
        if not namespace:
            found = found.replace("all()", f"has({SERVICE_ACCOUNT})")
    return found


def _and(found: str, more: str, prefix: str) -> str:
    under = _prefixed(more, prefix)
    return f"({found}) && {under}" if found else under


def _prefixed(value: str, prefix: str) -> str:
    try:
        return prefixed(value, prefix)
    except SelectorError as error:
        raise Unreadable(f"selector {value[:100]!r}: {error}") from None


def rules_of(spec: Mapping[str, Any], direction: Direction, namespace: str) -> tuple[Rule, ...]:
    """The rules of a direction; what cannot be read becomes a rule that may match anything."""
    try:
        given = listed(spec.get(direction), direction)
    except Unreadable as unreadable:
        return (Rule(0, "Deny", problem=str(unreadable)),)
    return tuple(_rule_or_problem(index, rule, namespace) for index, rule in enumerate(given))


def _rule_or_problem(index: int, rule: object, namespace: str) -> Rule:
    action = rule.get("action") if isinstance(rule, Mapping) else None
    try:
        return calico_rule(index, mapping(rule, "a rule"), namespace)
    except Unreadable as unreadable:
        known = action in ("Allow", "Deny", "Pass", "Log")
        problem = str(unreadable) if known else f"{unreadable}; its action is not known either"
        return Rule(index, cast(Any, action) if known else "Deny", problem=problem)


def calico_rule(index: int, rule: Mapping[str, Any], namespace: str) -> Rule:
    """One rule of Calico's own form, in a policy of that namespace. Raises `Unreadable`."""
    action = rule.get("action")
    if action not in ("Allow", "Deny", "Pass", "Log"):
        raise Unreadable(f"action {action!r} is not known")
    if unknown := set(rule) - _RULE_FIELDS:
        raise Unreadable(f"field {min(map(str, unknown))} is not known")
    annotations = mapping(mapping(rule.get("metadata"), "metadata").get("annotations"), "annotations")
    return Rule(
        index=index,
        action=action,
        ip_version=_ip_version(rule),
        protocol=protocol(rule.get("protocol")),
        not_protocol=protocol(rule.get("notProtocol")),
        icmp=_icmp(rule.get("icmp")),
        not_icmp=_icmp(rule.get("notICMP")),
        source=_side(mapping(rule.get("source"), "source"), namespace),
        destination=_side(mapping(rule.get("destination"), "destination"), namespace),
        name=str(annotations.get("name") or ""),
    )


def _ip_version(rule: Mapping[str, Any]) -> Literal[0, 4, 6]:
    """4 or 6 if the rule says so itself or by its protocol's name (ipVersionToProtoIPVersion in felix/calc)."""
    version = rule.get("ipVersion")
    if version is None:
        name = str(rule.get("protocol")).lower()
        return 4 if name == "icmp" else 6 if name == "icmpv6" else 0
    if version not in (4, 6):
        raise Unreadable(f"ipVersion {version!r} is neither 4 nor 6")
    return cast(Literal[4, 6], version)


def _icmp(value: object) -> tuple[int, int | None] | None:
    given = mapping(value, "icmp")
    kind, code = given.get("type"), given.get("code")
    if kind is None:
        return None
    return number(kind, "ICMP type", 255), None if code is None else number(code, "ICMP code", 255)


def _side(given: Mapping[str, Any], namespace: str) -> Side:
    if unknown := set(given) - _SIDE_FIELDS:
        raise Unreadable(f"field {min(map(str, unknown))} is not known")
    wanted, not_selector = _side_selector(given, namespace), text(given.get("notSelector"), "notSelector")
    numeric, named = ports(given.get("ports"))
    not_numeric, not_named = ports(given.get("notPorts"))
    service = mapping(given.get("services"), "services")
    return Side(
        selector=selector(wanted) if wanted else None,
        not_selector=selector(not_selector) if not_selector else None,
        nets=networks(given.get("nets")),
        not_nets=networks(given.get("notNets")),
        ports=numeric,
        named_ports=named,
        not_ports=not_numeric,
        not_named_ports=not_named,
        service=(text(service.get("namespace"), "a namespace") or namespace, text(service.get("name"), "a service"))
        if service
        else None,
    )


def _side_selector(given: Mapping[str, Any], namespace: str) -> str:
    """One selector of all that a side says of endpoints (getEndpointSelector in rules.go)."""
    spaces = text(given.get("namespaceSelector"), "namespaceSelector")
    own, negative = text(given.get("selector"), "selector"), text(given.get("notSelector"), "notSelector")
    parts = [part for part in (_accounts(mapping(given.get("serviceAccounts"), "serviceAccounts")), own) if part]
    for part in (own, negative):
        selector(part)  # each alone must be a selector, or parentheses could reach beyond it
    found = f"({') && ('.join(parts)})" if len(parts) > 1 else "".join(parts)
    if spaces:
        where = _prefixed(spaces, NAMESPACE_PREFIX).replace("all()", f"has({NAMESPACE})")
        where = where.replace("global()", f"!has({NAMESPACE})")
    else:
        where = f"{NAMESPACE} == '{namespace}'" if namespace else ""
    if where and (found or negative or spaces):
        return f"({where}) && ({found})" if found else where
    return found


def _accounts(given: Mapping[str, Any]) -> str:
    names = [text(name, "a service account") for name in listed(given.get("names"), "names")]
    wanted = text(given.get("selector"), "selector")
    labels = _prefixed(wanted, SERVICE_ACCOUNT_PREFIX) if wanted else ""
    if not names:
        return labels
    listing = "', '".join(names)
    try:
        named = parse(f"{SERVICE_ACCOUNT} in {{ '{listing}' }}").text
    except SelectorError as error:
        raise Unreadable(f"service accounts {names}: {error}") from None
    return f"({labels}) && ({named})" if labels else named
