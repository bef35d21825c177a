"""What is wrong with the cluster's own objects: services, and rules of policies that never matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from calico_debug.doctor.model import Symptom, Unknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from calico_debug.doctor.model import ClusterView, Observation
    from calico_debug.model.cluster import PolicyObject

ORDERED_KINDS = frozenset({"NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy"})
"""Kinds whose rules are tried in order and may end the policy for every packet."""

TERMINAL = ("Allow", "Deny", "Pass")

BESIDE_MATCHES = frozenset({"action", "metadata"})
"""Fields of a rule that match nothing (libcalico-go/lib/apis/v3, type Rule)."""


def check_evidence(cluster: ClusterView) -> Iterator[Observation]:
    """Lists of objects that are missing or cannot be read."""
    for file in cluster.state.missing:
        yield Unknown(f"there is no cluster/{file}: what needs it is left out")
    for problem in cluster.state.problems:
        yield Unknown(problem)


def check_services(cluster: ClusterView) -> Iterator[Observation]:
    """Services that have nobody who answers."""
    services = cluster.state.services
    sliced = cluster.has("endpoints") or "endpointslices.discovery.k8s.io.json" in cluster.source.cluster_files()
    if services and not sliced:
        yield Unknown("backends of services are not known: record cluster/endpointslices.discovery.k8s.io.json")
        return
    for service in services:
        if service.type == "ExternalName" or any(backend.ready for backend in service.backends):
            continue
        number = len(service.backends)
        which = f"none of its {number} backends is ready" if number else "it has no backends"
        yield Symptom("service-without-endpoints", "warning", f"service {service.namespace}/{service.name}: {which}")


def check_rules(cluster: ClusterView) -> Iterator[Observation]:
    """Rules behind a rule that ends the policy for every packet."""
    for policy in cluster.state.policies():
        if policy.kind not in ORDERED_KINDS:
            continue
        for direction in ("ingress", "egress"):
            rules = rules_of(policy, direction)
            end = next((index for index, rule in enumerate(rules) if _always(rule)), None)
            if end is None or end == len(rules) - 1:
                continue
            behind = len(rules) - 1 - end
            what = f"rule {end + 1} is" if behind == 1 else f"rules {end + 1} to {len(rules) - 1} are"
            yield Symptom(
                "rule-unreachable",
                "info" if policy.kind.startswith("Staged") else "warning",
                f"{shown(policy)}, {direction}: {what} never reached, rule {end} ({rules[end].get('action')}) matches "
                "everything",
            )


def shown(policy: PolicyObject) -> str:
    """A policy for messages: kind, and the name as kubectl shows it."""
    return f"{policy.kind} {policy.namespace}/{policy.name}" if policy.namespace else f"{policy.kind} {policy.name}"


def rules_of(policy: PolicyObject, direction: str) -> Sequence[Mapping[str, Any]]:
    """A policy's rules of a direction; one that is not understood is empty."""
    rules = policy.spec.get(direction)
    return [rule if isinstance(rule, dict) else {} for rule in rules] if isinstance(rules, list) else []


def _always(rule: Mapping[str, Any]) -> bool:
    """Whether a rule ends the policy whatever the packet."""
    return rule.get("action") in TERMINAL and not any(
        _has_match(value) for field, value in rule.items() if field not in BESIDE_MATCHES
    )


def _has_match(value: object) -> bool:
    """Whether a field of a rule may restrict it: a field of this version or a later one, unless it is empty."""
    if isinstance(value, dict):
        return any(_has_match(one) for one in value.values())
    return value not in (None, "", [])
