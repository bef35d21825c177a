"""Policies of every kind that Calico programs, from the files of both of Calico's API groups and of Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from calico_debug.decode.kubernetes import decode_order, metadata
from calico_debug.model.cluster import PolicyObject

CALICO_GROUPS = ("projectcalico.org", "crd.projectcalico.org")
"""The groups that show the same Calico objects. The first is what users work with, so it goes first where both are."""

CLUSTER_POLICY_TIERS = {"Admin": "kube-admin", "Baseline": "kube-baseline"}
"""``spec.tier`` of a ClusterNetworkPolicy and Calico's tier (Calico v3.32, libcalico-go/lib/names)."""


class PolicySource(NamedTuple):
    """Where policies of a kind are listed. ``tier`` and ``order`` are set where the object itself has none.

    ``order_field`` is the field of ``spec`` that orders the policies of a tier.
    """

    kind: str
    resource: str
    groups: tuple[str, ...]
    tier: str = ""
    order: float | None = None
    order_field: str = "order"

    @property
    def files(self) -> tuple[str, ...]:
        """File names in a bundle's ``cluster/``, the preferred first."""
        return tuple(f"{self.resource}.{group}.json" for group in self.groups)


KUBERNETES_ORDER = 1000.0
"""Order of policies that Calico converts and that have none of their own: Kubernetes' NetworkPolicy and
BaselineAdminNetworkPolicy (libcalico-go/lib/backend/k8s/conversion/conversion.go, v3.30 and v3.32).
"""

POLICY_SOURCES: tuple[PolicySource, ...] = (
    PolicySource("NetworkPolicy", "networkpolicies", CALICO_GROUPS),
    PolicySource("GlobalNetworkPolicy", "globalnetworkpolicies", CALICO_GROUPS),
    PolicySource("StagedNetworkPolicy", "stagednetworkpolicies", CALICO_GROUPS),
    PolicySource("StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies", CALICO_GROUPS),
    PolicySource(
        "StagedKubernetesNetworkPolicy",
        "stagedkubernetesnetworkpolicies",
        CALICO_GROUPS,
        tier="default",
        order=KUBERNETES_ORDER,
    ),
    PolicySource(
        "KubernetesNetworkPolicy",
        "networkpolicies",
        ("networking.k8s.io",),
        tier="default",
        order=KUBERNETES_ORDER,
    ),
    PolicySource(
        "ClusterNetworkPolicy", "clusternetworkpolicies", ("policy.networking.k8s.io",), order_field="priority"
    ),
    PolicySource(
        "AdminNetworkPolicy",
        "adminnetworkpolicies",
        ("policy.networking.k8s.io",),
        tier="adminnetworkpolicy",
        order_field="priority",
    ),
    PolicySource(
        "BaselineAdminNetworkPolicy",
        "baselineadminnetworkpolicies",
        ("policy.networking.k8s.io",),
        tier="baselineadminnetworkpolicy",
        order=KUBERNETES_ORDER,
    ),
)
"""Every kind of policy of Calico v3.28 to v3.32 (policy kinds: libcalico-go/lib/apis/v3, conversion: see above)."""


def decode_policy(entry: Mapping[str, Any], source: PolicySource) -> PolicyObject:
    """A policy of the kind that ``source`` lists. Raises `KeyError`, `TypeError`, `ValueError` or `AttributeError`."""
    meta, spec = metadata(entry), entry.get("spec") or {}
    if not isinstance(spec, dict):
        raise ValueError("its spec is not an object")
    order = spec.get(source.order_field, source.order)
    name = meta["name"]
    if not isinstance(name, str) or not name:
        raise ValueError(f"its name is {name!r}")
    return PolicyObject(
        kind=source.kind,
        namespace=str(meta.get("namespace") or ""),
        name=name,
        tier=_tier(spec, source),
        order=decode_order(order),
        spec=spec,
        annotations={str(key): str(value) for key, value in (meta.get("annotations") or {}).items()},
    )


def _tier(spec: Mapping[str, Any], source: PolicySource) -> str:
    if source.kind == "ClusterNetworkPolicy":
        return CLUSTER_POLICY_TIERS[spec["tier"]]
    return source.tier or str(spec.get("tier") or "default")
