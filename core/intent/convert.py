"""Every kind of policy in one form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from calico_debug.intent.convert_calico import convert_calico, staged_action
from calico_debug.intent.convert_kubernetes import convert_cluster_policy, convert_network_policy
from calico_debug.intent.model import DIRECTIONS, Policy, PolicyKey
from calico_debug.model.cluster import PolicyObject

_CONVERSIONS: Final[Mapping[str, Callable[[PolicyObject], Policy]]] = {
    "NetworkPolicy": convert_calico,
    "GlobalNetworkPolicy": convert_calico,
    "StagedNetworkPolicy": convert_calico,
    "StagedGlobalNetworkPolicy": convert_calico,
    "KubernetesNetworkPolicy": convert_network_policy,
    "StagedKubernetesNetworkPolicy": convert_network_policy,
    "ClusterNetworkPolicy": convert_cluster_policy,
    "AdminNetworkPolicy": convert_cluster_policy,
    "BaselineAdminNetworkPolicy": convert_cluster_policy,
}


def convert(policy: PolicyObject) -> Policy:
    """The policy in one form. Nothing raises: what is not understood becomes a ``problem`` of policy or rule."""
    conversion = _CONVERSIONS.get(policy.kind)
    if conversion is not None:
        return conversion(policy)
    return Policy(
        key=PolicyKey(policy.kind, policy.namespace, policy.name),
        tier=policy.tier,
        order=math.inf if policy.order is None else policy.order,
        types=frozenset(DIRECTIONS),
        selector=None,
        ingress=(),
        egress=(),
        source=policy,
        staged_action=staged_action(policy),
        problem=f"policies of kind {policy.kind} are not known here",
    )
