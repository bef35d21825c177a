"""Policies as manifests for kubectl: enforced, or staged where Calico has a staged kind (since v3.30)."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from calico_debug.model.cluster import PolicyObject

CALICO: Final = "projectcalico.org/v3"

KINDS: Final[Mapping[str, tuple[str, str]]] = {
    "NetworkPolicy": (CALICO, "NetworkPolicy"),
    "GlobalNetworkPolicy": (CALICO, "GlobalNetworkPolicy"),
    "KubernetesNetworkPolicy": ("networking.k8s.io/v1", "NetworkPolicy"),
    "ClusterNetworkPolicy": ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"),
    "AdminNetworkPolicy": ("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy"),
    "BaselineAdminNetworkPolicy": ("policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy"),
}
"""API version and kind of the manifest by `PolicyObject.kind`."""

STAGED: Final[Mapping[str, str]] = {
    "NetworkPolicy": "StagedNetworkPolicy",
    "GlobalNetworkPolicy": "StagedGlobalNetworkPolicy",
    "KubernetesNetworkPolicy": "StagedKubernetesNetworkPolicy",
}
"""The kind that stages a change of another."""


def manifest(policy: PolicyObject, *, staged: bool) -> Mapping[str, Any] | None:
    """The policy as a document for ``kubectl apply``; None for a kind that is not known.

    ``staged`` makes it a policy that changes nothing yet: flow logs show what it would do.
    """
    if policy.kind not in KINDS:
        return None
    version, kind = KINDS[policy.kind]
    spec: dict[str, Any] = deepcopy(dict(policy.spec))
    if staged:
        version, kind = CALICO, STAGED[policy.kind]
        spec["stagedAction"] = "Set"
    metadata = {"name": policy.name, **({"namespace": policy.namespace} if policy.namespace else {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}
