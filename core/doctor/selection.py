"""What is wrong with policies, given what they select: nothing at all, or endpoints that they cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.doctor.model import Symptom, Unknown
from calico_debug.doctor.objects import shown
from calico_debug.intent.applies import Applicability

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from calico_debug.doctor.model import ClusterView, Observation
    from calico_debug.intent.model import Direction, Endpoint, Policy

DIRECTIONS: tuple[Direction, ...] = ("ingress", "egress")


def check_selection(cluster: ClusterView) -> Iterator[Observation]:
    """Policies that select nothing, and policies that only log where nothing else allows."""
    objects = cluster.state.cluster
    if not objects.policies:
        return
    if not cluster.has("pods"):
        yield Unknown("what policies select is not known: record cluster/pods.json")
        return
    applicability = Applicability(objects)
    # Endpoints that no selector can tell apart need to be looked at once.
    kinds = list({applicability.class_of(one): one for one in applicability.endpoints}.values())
    hosts_known = cluster.has("hostendpoints")
    for policy in applicability.policies:
        if policy.selector is None:
            yield Unknown(f"what {shown(policy.source)} selects: {policy.problem}")
            continue
        if not any(_may_select(applicability, policy, one) for one in kinds):
            yield _selects_nothing(policy, applicability.endpoints, hosts_known)
        elif not policy.staged:
            yield from _only_logs(applicability, policy, kinds)


def _may_select(applicability: Applicability, policy: Policy, endpoint: Endpoint) -> bool:
    if (policy.pre_dnat or policy.do_not_track) and endpoint.kind != "host":
        return False
    return applicability.selects(policy, endpoint) is not False


def _selects_nothing(policy: Policy, endpoints: Sequence[Endpoint], hosts_known: bool) -> Symptom:
    hosts = sum(one.kind == "host" for one in endpoints)
    said = f"{shown(policy.source)} selects none of {len(endpoints) - hosts} pods"
    unsure = not policy.source.namespace and not hosts_known
    if not policy.source.namespace:
        said += "; host endpoints are not in evidence, if there are any" if unsure else f" and {hosts} host endpoints"
    return Symptom("policy-selects-nothing", "info" if unsure or policy.staged else "warning", said)


def _only_logs(applicability: Applicability, policy: Policy, kinds: Sequence[Endpoint]) -> Iterator[Symptom]:
    for direction in DIRECTIONS:
        if direction not in policy.types or not _logs_only(policy, direction) or not policy.rules(direction):
            continue
        for endpoint in kinds:
            if applicability.selects(policy, endpoint) is True and _denied(applicability, policy, endpoint, direction):
                yield Symptom(
                    "policy-log-only",
                    "warning",
                    f"{shown(policy.source)}, {direction}: its rules only log, and tier {policy.tier} has no other for "
                    f"{endpoint}, so everything is denied there",
                )
                break


def _logs_only(policy: Policy, direction: Direction) -> bool:
    return all(rule.action == "Log" for rule in policy.rules(direction))


def _denied(applicability: Applicability, policy: Policy, endpoint: Endpoint, direction: Direction) -> bool:
    """Whether the end of the policy's tier is reached by everything and denies, for certain."""
    tier = next((one for one in applicability.tiers_of(endpoint, direction) if one.name == policy.tier), None)
    if tier is None or tier.default_action != "Deny":
        return False
    # Empty rules deny on purpose: that is how a default denial is written.
    return all(
        one.certain and one.policy.rules(direction) and _logs_only(one.policy, direction) for one in tier.enforced
    )
