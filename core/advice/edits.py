"""Small edits of one policy object: a rule more, a port more.

Forms of rules: api/pkg/apis/projectcalico/v3 of Calico, and the API reference of Kubernetes' NetworkPolicy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from calico_debug.policy.wording import describe_rule
from calico_debug.state.successors import lasting_labels

if TYPE_CHECKING:
    from calico_debug.intent.model import Direction, Endpoint, PolicyFlow
    from calico_debug.model.cluster import PolicyObject

CALICO_KINDS: Final = frozenset({"NetworkPolicy", "GlobalNetworkPolicy"})
KUBERNETES: Final = "KubernetesNetworkPolicy"
CLUSTER_ALLOWS: Final[Mapping[str, str]] = {
    "ClusterNetworkPolicy": "Accept",
    "AdminNetworkPolicy": "Allow",
    "BaselineAdminNetworkPolicy": "Allow",
}
"""Kubernetes' kinds for whole clusters, and the word of each for letting through (network-policy-api)."""

NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"
"""Every namespace has it, with its name (Kubernetes since 1.21)."""

CALICOS_NAMESPACE_LABEL: Final = "projectcalico.org/name"
"""Calico itself gives it to every namespace, for its own policies alone."""

CALICOS_PREFIXES: Final = ("pcns.", "pcsa.", "projectcalico.org/")
"""Labels that pods have from their namespace, their service account and Calico."""

PROTOCOLS: Final[Mapping[int, str]] = {
    1: "ICMP",
    6: "TCP",
    17: "UDP",
    58: "ICMPv6",
    132: "SCTP",
    136: "UDPLite",
}
"""Names in Calico's API (api/pkg/lib/numorstring/protocol.go)."""

WITH_PORTS: Final = frozenset({6, 17, 132})
"""Protocols whose ports a Kubernetes policy can name; Calico's can those of UDPLite, too."""

ICMP: Final = frozenset({1, 58})


@dataclass(frozen=True, slots=True)
class Edit:
    """``policy`` is ``before`` with one change; ``before`` None if it is a new one. ``text`` says it in words.

    ``direction`` is where the change is. ``rank`` orders edits that flip the same: simpler ones first.
    """

    before: PolicyObject | None
    policy: PolicyObject
    direction: Direction
    text: str
    rank: int


@dataclass(frozen=True, slots=True)
class Peer:
    """The other side of a flow. ``endpoint`` is the pod that has the address, None if no pod has it."""

    address: str
    endpoint: Endpoint | None


def additions(
    policy: PolicyObject, direction: Direction, flow: PolicyFlow, peer: Peer, action: str, before: int | None
) -> Iterator[Edit]:
    """The policy with one rule more: at the end, or ``before`` the rule of that index.

    ``action`` is Allow or Deny. Nothing for a kind that cannot say it.
    """
    for rank, rule in enumerate(_rules(policy, direction, flow, peer, action)):
        spec = _editable(policy)
        rules = spec.setdefault(direction, [])
        at = len(rules) if before is None else before
        rules.insert(at, rule)
        edited = replace(policy, spec=spec)
        words = describe_rule(edited, direction, at)
        article = "an" if direction[0] in "aeiou" else "a"
        if before is None:
            text = f"add to {name(policy)} {article} {direction} rule: {words}"
        else:
            text = f"put before {direction} rule {before} of {name(policy)}: {words}"
        yield Edit(policy, edited, direction, text, rank + 1)


def more_ports(policy: PolicyObject, direction: Direction, flow: PolicyFlow) -> Iterator[Edit]:
    """The policy with the flow's port among those of an allowing rule that names ports; one edit for each such rule."""
    port = flow.destination_port
    if port is None or flow.protocol not in WITH_PORTS:
        return
    for index, rule in enumerate(policy.spec.get(direction) or ()):
        if not isinstance(rule, Mapping):
            return
        spec = _editable(policy)
        if policy.kind in CALICO_KINDS and rule.get("action") == "Allow":
            side = spec[direction][index].get("destination") or {}
            if not isinstance(side, dict) or not side.get("ports"):
                continue
            side["ports"] = [*side["ports"], port]
        elif policy.kind == KUBERNETES and rule.get("ports"):
            entry: dict[str, Any] = {"protocol": PROTOCOLS[flow.protocol], "port": port}
            spec[direction][index]["ports"] = [*rule["ports"], entry]
        else:
            continue
        text = f"add port {port} to {direction} rule {index} of {name(policy)}"
        yield Edit(policy, replace(policy, spec=spec), direction, text, 0)


def new_denial(
    template: PolicyObject, pod: Endpoint, direction: Direction, flow: PolicyFlow, peer: Peer, *, lets_others: bool
) -> Iterator[Edit]:
    """A policy of its own that denies the flow at a pod. ``template`` gives namespace, name, tier and order.

    With ``lets_others`` everything else goes on to the pod's profile, as for a pod that no policy selects.
    """
    selector = " && ".join(f"{key} == '{value}'" for key, value in sorted(lasting(pod).items()))
    for rank, rule in enumerate(_rules(template, direction, flow, peer, "Deny")):
        rules = [rule, {"action": "Pass"}] if lets_others else [rule]
        spec = {
            "tier": template.tier,
            "order": template.order,
            "selector": selector or "all()",
            "types": [direction.capitalize()],
            direction: rules,
        }
        policy = replace(template, spec=spec)
        chosen = f"pods with {selector}" if selector else "every pod"
        text = f"add {name(policy)}, which selects {chosen} of namespace {pod.namespace}, with the {direction} rule: "
        yield Edit(None, policy, direction, text + describe_rule(policy, direction, 0), rank + 4)


def name(policy: PolicyObject) -> str:
    """``ns/name``, or ``name`` of a policy without a namespace."""
    return f"{policy.namespace}/{policy.name}" if policy.namespace else policy.name


def lasting(pod: Endpoint) -> Mapping[str, str]:
    """The pod's own labels that a policy may hang on."""
    own = lasting_labels(pod.labels).items()
    return {key: value for key, value in own if not key.startswith(CALICOS_PREFIXES)}


def _editable(policy: PolicyObject) -> dict[str, Any]:
    spec: dict[str, Any] = deepcopy(dict(policy.spec))
    return spec


def _rules(
    policy: PolicyObject, direction: Direction, flow: PolicyFlow, peer: Peer, action: str
) -> Iterator[dict[str, Any]]:
    """Rules that match the flow in that direction, the widest peer first: its namespace, then its labels too."""
    if policy.kind in CALICO_KINDS:
        yield from _calico_rules(direction, flow, peer, action)
    elif policy.kind == KUBERNETES and action == "Allow":
        yield from _kubernetes_rules(direction, flow, peer)
    elif policy.kind in CLUSTER_ALLOWS:
        word = CLUSTER_ALLOWS[policy.kind] if action == "Allow" else action
        yield from _cluster_rules(policy.kind, direction, flow, peer, word)


def _calico_rules(direction: Direction, flow: PolicyFlow, peer: Peer, action: str) -> Iterator[dict[str, Any]]:
    rule: dict[str, Any] = {"action": action}
    # By its name ICMPv6 does not match in the eBPF dataplane; a number means the same everywhere.
    rule["protocol"] = flow.protocol if flow.protocol == 58 else PROTOCOLS.get(flow.protocol, flow.protocol)
    if flow.protocol in ICMP and flow.icmp is not None:
        rule["icmp"] = {"type": flow.icmp[0]}
    destination: dict[str, Any] = {}
    if flow.destination_port is not None and flow.protocol not in ICMP:
        destination["ports"] = [flow.destination_port]
    for side in _calico_peers(peer):
        if direction == "egress":
            yield {**rule, "destination": {**side, **destination}}
        else:
            yield {**rule, "source": side, **({"destination": destination} if destination else {})}


def _calico_peers(peer: Peer) -> Iterator[dict[str, Any]]:
    if peer.endpoint is None:
        yield {"nets": [f"{peer.address}/{128 if ':' in peer.address else 32}"]}
        return
    label = NAMESPACE_LABEL if f"pcns.{NAMESPACE_LABEL}" in peer.endpoint.labels else CALICOS_NAMESPACE_LABEL
    space = {"namespaceSelector": f"{label} == '{peer.endpoint.namespace}'"}
    yield space
    labels = lasting(peer.endpoint)
    if labels:
        yield {**space, "selector": " && ".join(f"{key} == '{value}'" for key, value in sorted(labels.items()))}


def _kubernetes_rules(direction: Direction, flow: PolicyFlow, peer: Peer) -> Iterator[dict[str, Any]]:
    if flow.protocol not in WITH_PORTS or flow.destination_port is None:
        return  # a Kubernetes policy knows no other protocol
    ports = [{"protocol": PROTOCOLS[flow.protocol], "port": flow.destination_port}]
    key = "to" if direction == "egress" else "from"
    if peer.endpoint is None:
        yield {key: [{"ipBlock": {"cidr": f"{peer.address}/{128 if ':' in peer.address else 32}"}}], "ports": ports}
        return
    space = {"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: peer.endpoint.namespace}}}
    yield {key: [space], "ports": ports}
    labels = lasting(peer.endpoint)
    if labels:
        yield {key: [{**space, "podSelector": {"matchLabels": dict(labels)}}], "ports": ports}


def _cluster_rules(
    kind: str, direction: Direction, flow: PolicyFlow, peer: Peer, action: str
) -> Iterator[dict[str, Any]]:
    if flow.protocol not in WITH_PORTS or flow.destination_port is None:
        return  # these policies know no other protocol
    protocol, port = PROTOCOLS[flow.protocol], flow.destination_port
    ports: dict[str, Any]
    if kind == "ClusterNetworkPolicy":
        ports = {"protocols": [{protocol.lower(): {"destinationPort": {"number": port}}}]}
    else:
        ports = {"ports": [{"portNumber": {"protocol": protocol, "port": port}}]}
    key = "to" if direction == "egress" else "from"
    if peer.endpoint is None:
        if direction == "egress":  # who comes from outside of the cluster cannot be named
            network = f"{peer.address}/{128 if ':' in peer.address else 32}"
            yield {"action": action, key: [{"networks": [network]}], **ports}
        return
    space = {"matchLabels": {NAMESPACE_LABEL: peer.endpoint.namespace}}
    yield {"action": action, key: [{"namespaces": space}], **ports}
    labels = lasting(peer.endpoint)
    if labels:
        pods = {"namespaceSelector": space, "podSelector": {"matchLabels": dict(labels)}}
        yield {"action": action, key: [{"pods": pods}], **ports}
