"""The rules of policy objects in words: whole, and clause by clause as the dataplane matches them.

Meanings: api/pkg/apis/projectcalico/v3 of Calico, and the API references of Kubernetes' NetworkPolicy,
ClusterNetworkPolicy (v1alpha2), AdminNetworkPolicy and BaselineAdminNetworkPolicy (v1alpha1). A value that is not what
the API allows is quoted as it is: nothing here raises for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from calico_debug.model.cluster import PolicyObject
from calico_debug.policy.phrases import (
    as_list,
    counted,
    label_selector,
    labels,
    listed,
    mappings,
    namespaces,
    port_list,
    prefixed,
    protocol_name,
    quote,
    selects_all,
    words,
)

ICMP_NAMES: Final = {
    4: {0: "echo reply", 3: "destination unreachable", 8: "echo request", 11: "time exceeded"},
    6: {1: "destination unreachable", 2: "packet too big", 3: "time exceeded", 128: "echo request", 129: "echo reply"},
}
"""Names of ICMP types by IP family (IANA registries icmp-parameters and icmpv6-parameters)."""


def describe_rule(policy: PolicyObject, direction: str, index: int) -> str:
    """The rule in a sentence, as in "Allow TCP to namespace stars, ports 80, 6379"."""
    rule = _rule(policy, direction, index)
    if rule is None:
        return f"{direction} rule {index}, which the object does not have"
    said = clauses(policy, direction, index)
    parts = [
        quote(_action(rule)),
        said.get("icmp") or said.get("protocol") or ("" if "not protocol" in said else "all traffic"),
    ]
    if "not protocol" in said:
        parts.append(said["not protocol"])
    if "ip version" in said:
        parts.append(f"over {said['ip version']}")
    source = _side(said, "source", "source ")
    destination = _side(said, "destination", "")
    if source:
        parts.append(f"from {source}")
    if destination:
        parts.append(f"to {destination}")
    rest = [said[key] for key in ("not icmp", "http", "unread") if key in said]
    name = rule.get("name")
    text = ", ".join([" ".join(part for part in parts if part), *rest])
    return f'{text} ("{name}")' if isinstance(name, str) and name else text


def clauses(policy: PolicyObject, direction: str, index: int) -> Mapping[str, str]:
    """What must hold for the rule to match, each in words; empty if it matches everything or does not exist.

    Keys, in this order where given: "ip version", "protocol", "not protocol", "icmp", "not icmp", "source",
    "not source", "source ports", "not source ports", "destination", "not destination", "destination ports",
    "not destination ports", "http" (which the dataplane does not check) and "unread" (what is not understood).
    """
    rule = _rule(policy, direction, index)
    if rule is None:
        return {}
    reader = _READERS.get(policy.kind, _calico_clauses)
    return {key: text for key, text in reader(policy, rule, direction).items() if text}


def rule_count(policy: PolicyObject, direction: str) -> int:
    """How many rules the object has for "ingress" or "egress"."""
    return len(as_list(policy.spec.get(direction)))


def _rule(policy: PolicyObject, direction: str, index: int) -> Mapping[str, Any] | None:
    rules = as_list(policy.spec.get(direction))
    rule = rules[index] if 0 <= index < len(rules) else None
    return rule if isinstance(rule, Mapping) else None


def _action(rule: Mapping[str, Any]) -> object:
    action = rule.get("action", "Allow")  # Kubernetes' NetworkPolicy has none and allows
    return "Allow" if action == "Accept" else action


def _side(said: Mapping[str, str], side: str, before_ports: str) -> str:
    parts = [said[key] for key in (side, f"not {side}") if key in said]
    parts += [before_ports + said[key] for key in (f"{side} ports", f"not {side} ports") if key in said]
    return ", ".join(parts)


# --- Calico's own kinds ------------------------------------------------------------------------------------------


_RULE_FIELDS: Final = frozenset(
    ["action", "metadata", "ipVersion", "protocol", "notProtocol", "icmp", "notICMP", "source", "destination", "http"]
)
_SELECTOR_FIELDS: Final = ("selector", "notSelector", "namespaceSelector", "serviceAccounts")
_ENTITY_FIELDS: Final = frozenset((*_SELECTOR_FIELDS, "nets", "notNets", "services", "ports", "notPorts"))


def _calico_clauses(policy: PolicyObject, rule: Mapping[str, Any], _direction: str) -> dict[str, str]:
    family = 6 if rule.get("ipVersion") == 6 or str(rule.get("protocol")).lower() == "icmpv6" else 4
    said = {
        "ip version": f"IPv{rule['ipVersion']}" if rule.get("ipVersion") is not None else "",
        "protocol": protocol_name(rule.get("protocol")),
        "not protocol": prefixed("any protocol but ", protocol_name(rule.get("notProtocol"))),
        "icmp": _icmp(rule.get("icmp"), family),
        "not icmp": prefixed("not ", _icmp(rule.get("notICMP"), family)),
    }
    unread = _unread(rule, _RULE_FIELDS)
    for side in ("source", "destination"):
        given = rule.get(side)
        entity = given if isinstance(given, Mapping) else {}
        said[side] = _entity(entity, policy.namespace) if entity or given is None else quote(given)
        said[f"not {side}"] = _not_entity(entity)
        said[f"{side} ports"] = port_list(entity.get("ports"))
        said[f"not {side} ports"] = prefixed("not ", port_list(entity.get("notPorts")))
        unread += _unread(entity, _ENTITY_FIELDS, f"{side}.")
    said["http"] = "HTTP match, not checked in the dataplane" if rule.get("http") else ""
    said["unread"] = ", ".join(unread)
    return said


def _unread(given: Mapping[str, Any], known: frozenset[str], prefix: str = "") -> list[str]:
    return [f"unknown field {prefix}{quote(key)}" for key in given if key not in known]


def _entity(entity: Mapping[str, Any], namespace: str) -> str:
    return " and ".join(
        part
        for part in (
            _endpoints(entity, namespace),
            listed(entity.get("nets")),
            _service(entity.get("services"), namespace),
        )
        if part
    )


def _endpoints(entity: Mapping[str, Any], namespace: str) -> str:
    """Endpoints that the selectors of a side take together. Where only the namespace matters, just that."""
    selector, spaces = entity.get("selector"), entity.get("namespaceSelector")
    account = entity.get("serviceAccounts")
    if not (selector or spaces or account or (entity.get("notSelector") and namespace)):
        return ""
    where = namespaces(spaces) if spaces else prefixed("namespace ", namespace)
    accounts = _accounts(account)
    if selects_all(selector) and not accounts:
        return where or "any endpoint or network set"
    noun = "pods" if where and spaces != "global()" else "anything"
    wanted = " and ".join(part for part in (labels(selector), accounts) if part)
    return f"{noun} with {wanted}" + prefixed(" in ", where)


def _not_entity(entity: Mapping[str, Any]) -> str:
    parts = [listed(entity.get("notNets"))]
    if selector := entity.get("notSelector"):
        parts.append(f"endpoints with {quote(selector)}")
    return prefixed("not ", " and not ".join(part for part in parts if part))


def _accounts(account: object) -> str:
    if not account:
        return ""
    if not isinstance(account, Mapping):
        return f"service accounts {quote(account)}"
    names = as_list(account.get("names"))
    parts = [counted("service account", names)] if names else []
    if selector := account.get("selector"):
        parts.append(f"service account labels {quote(selector)}")
    return " and ".join(parts)


def _service(service: object, namespace: str) -> str:
    if not service:
        return ""
    if not isinstance(service, Mapping):
        return f"services {quote(service)}"
    return f"service {quote(service.get('namespace') or namespace)}/{quote(service.get('name'))}"


def _icmp(icmp: object, family: int) -> str:
    if not icmp:
        return ""
    if not isinstance(icmp, Mapping):
        return f"ICMP {quote(icmp)}"
    name = "ICMPv6" if family == 6 else "ICMP"
    kind, code = icmp.get("type"), icmp.get("code")
    known = ICMP_NAMES[family].get(kind, "") if isinstance(kind, int) else ""
    text = f"{name} type {quote(kind)}" + (f" ({known})" if known else "")
    return text if code is None else f"{text} code {quote(code)}"


# --- Kubernetes' kinds -------------------------------------------------------------------------------------------


def _kubernetes_clauses(policy: PolicyObject, rule: Mapping[str, Any], direction: str) -> dict[str, str]:
    ports = [
        (protocol_name(port.get("protocol")) or "TCP", _kubernetes_port(port)) for port in mappings(rule.get("ports"))
    ]
    peers = [_kubernetes_peer(peer, policy.namespace) for peer in mappings(rule.get(_peer_key(direction)))]
    return _entry_clauses(rule, direction, ports, peers, ("ports",))


def _kubernetes_port(port: Mapping[str, Any]) -> str:
    if port.get("port") is None:
        return ""
    return quote(port["port"]) + (f"-{quote(port['endPort'])}" if port.get("endPort") is not None else "")


def _kubernetes_peer(peer: Mapping[str, Any], namespace: str) -> str:
    block = peer.get("ipBlock")
    if isinstance(block, Mapping):
        return quote(block.get("cidr")) + prefixed(" except ", listed(block.get("except")))
    if block is not None:
        return quote(block)
    spaces = peer.get("namespaceSelector")
    where = f"namespace {namespace}" if spaces is None else namespaces(label_selector(spaces))
    return _pods(peer.get("podSelector"), where)


def _cluster_clauses(policy: PolicyObject, rule: Mapping[str, Any], direction: str) -> dict[str, str]:
    ports = [_cluster_port(protocol) for protocol in mappings(rule.get("protocols"))]
    ports += [_admin_port(port) for port in mappings(rule.get("ports"))]
    peers = [_cluster_peer(peer) for peer in mappings(rule.get(_peer_key(direction)))]
    return _entry_clauses(
        rule, direction, ports, peers, ("protocols",) if policy.kind == "ClusterNetworkPolicy" else ("ports",)
    )


def _cluster_port(protocol: Mapping[str, Any]) -> tuple[str, str]:
    for name in ("tcp", "udp", "sctp"):
        if (given := protocol.get(name)) is not None:
            port = given.get("destinationPort") if isinstance(given, Mapping) else given
            return name.upper(), _number_or_range(port)
    named = protocol.get("destinationNamedPort")
    return "", "" if named is None else quote(named)


def _admin_port(port: Mapping[str, Any]) -> tuple[str, str]:
    given = port.get("portNumber") if port.get("portNumber") is not None else port.get("portRange")
    if isinstance(given, Mapping):
        number = given.get("port")
        return protocol_name(given.get("protocol")) or "TCP", _number_or_range(
            given if number is None else {"number": number}
        )
    return "", ""  # a named port too: Calico takes it for every port (conversion.go of v3.29 to v3.31)


def _number_or_range(port: object) -> str:
    if port is None:
        return ""
    if not isinstance(port, Mapping):
        return quote(port)
    if port.get("number") is not None:
        return quote(port["number"])
    span = port.get("range", port)
    if not isinstance(span, Mapping):
        return quote(span)
    return f"{quote(span.get('start'))}-{quote(span.get('end'))}"


def _cluster_peer(peer: Mapping[str, Any]) -> str:
    if peer.get("networks"):
        return listed(peer["networks"])
    pods = peer.get("pods")
    if isinstance(pods, Mapping):
        return _pods(pods.get("podSelector"), namespaces(label_selector(pods.get("namespaceSelector"))))
    if peer.get("namespaces") is not None:
        return namespaces(label_selector(peer["namespaces"]))
    return f"{quote(', '.join(map(str, peer)) or 'an empty peer')} (not supported by Calico)"


_ENTRY_FIELDS: Final = ("action", "name")


def _peer_key(direction: str) -> str:
    return "from" if direction == "ingress" else "to"


def _entry_clauses(
    rule: Mapping[str, Any],
    direction: str,
    ports: Sequence[tuple[str, str]],
    peers: Sequence[str],
    fields: Sequence[str],
) -> dict[str, str]:
    """Clauses of an entry with alternatives: one of the ports, and one of the peers."""
    if any(not protocol and not port for protocol, port in ports):
        ports = ()
    protocols = list(dict.fromkeys(protocol for protocol, _ in ports))
    if len(protocols) == 1:
        numbers = [port for _, port in ports]
        port_text = "" if "" in numbers else counted("port", numbers)
    else:
        port_text = " or ".join(words([f"{protocol} {port or '(any port)'}".strip() for protocol, port in ports]))
    lists = (_peer_key(direction), *fields)
    unread = _unread(rule, frozenset((*lists, *_ENTRY_FIELDS)))
    for key in lists:
        items = rule.get(key)
        unread += [f"{key}: {quote(items)}"] if not isinstance(items, list | tuple | None) else []
        unread += [f"{key}: {quote(item)}" for item in as_list(items) if not isinstance(item, Mapping)]
    return {
        "protocol": "" if "" in protocols else " or ".join(protocols),
        "source" if direction == "ingress" else "destination": " or ".join(words(peers)),
        "destination ports": "" if all(not port for _, port in ports) else port_text,
        "unread": ", ".join(unread),
    }


def _pods(selector: object, where: str) -> str:
    labels = label_selector(selector)
    return where if selects_all(labels) else f"pods with {labels} in {where}"


_Reader = Callable[[PolicyObject, Mapping[str, Any], str], dict[str, str]]
_READERS: Final[Mapping[str, _Reader]] = {
    "KubernetesNetworkPolicy": _kubernetes_clauses,
    "StagedKubernetesNetworkPolicy": _kubernetes_clauses,
    "ClusterNetworkPolicy": _cluster_clauses,
    "AdminNetworkPolicy": _cluster_clauses,
    "BaselineAdminNetworkPolicy": _cluster_clauses,
}
