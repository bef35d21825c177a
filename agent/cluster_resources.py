"""What is ever read of a cluster: the resources by API group, and where their lists are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from calico_debug.decode.policies import CALICO_GROUPS

SLICES = "discovery.k8s.io"

CALICO_RESOURCES = (
    "tiers",
    "networkpolicies",
    "globalnetworkpolicies",
    "stagednetworkpolicies",
    "stagedglobalnetworkpolicies",
    "stagedkubernetesnetworkpolicies",
    "networksets",
    "globalnetworksets",
    "hostendpoints",
    "ippools",
    "felixconfigurations",
    "clusterinformations",
)

RESOURCES: Mapping[str, tuple[str, ...]] = {
    "": ("pods", "services", "nodes", "namespaces", "serviceaccounts", "endpoints"),
    SLICES: ("endpointslices",),
    "networking.k8s.io": ("networkpolicies",),
    "policy.networking.k8s.io": (
        "clusternetworkpolicies",
        "adminnetworkpolicies",
        "baselineadminnetworkpolicies",
    ),
    "operator.tigera.io": ("installations",),
    **dict.fromkeys(CALICO_GROUPS, CALICO_RESOURCES),
}
"""What is ever read, by API group ("" is the core group). daemonset/base/rbac.yaml grants the same, a test compares."""

TIERED = frozenset({"networkpolicies", "globalnetworkpolicies", "stagednetworkpolicies", "stagedglobalnetworkpolicies"})
"""Of these Calico's API server leaves out, in silence, what is in tiers that the user may not get (v3.30 to v3.32,
apiserver/pkg/registry/projectcalico/util/rbac.go). Asked for tiers by their names it says so.
"""

TIER_LABEL = "projectcalico.org/tier"

ASSUMED: Mapping[str, str] = {SLICES: "v1", "networking.k8s.io": "v1", "crd.projectcalico.org": "v1"}
"""Versions to try where the server does not say which it has."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Where a list is served. ``name`` is the only one that its objects may have, "" for any."""

    group: str
    version: str
    plural: str
    name: str = ""

    @property
    def resource(self) -> str:
        """As kubectl and roles name it: ``pods``, ``tiers.projectcalico.org``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def file(self) -> str:
        """The file of a bundle that holds it."""
        return f"{self.resource}-{self.name}.json" if self.name else f"{self.resource}.json"

    @property
    def path(self) -> str:
        """The path of the list over all namespaces."""
        return f"/apis/{self.group}/{self.version}/{self.plural}" if self.group else f"/api/v1/{self.plural}"


NAMED = (
    Listing("", "v1", "configmaps", "kubernetes-services-endpoint"),
    Listing("apps", "v1", "daemonsets", "kube-proxy"),
)
"""Lists of which only objects of one name are read, in any namespace: the API server's address that Calico is told of,
and kube-proxy. daemonset/base/rbac.yaml grants these names alone.
"""
