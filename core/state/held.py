"""A cluster's objects that are held already decoded, where a state is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from calico_debug.state.cluster import ClusterState

if TYPE_CHECKING:
    from calico_debug.model.cluster import Cluster, Node, Pod, PolicyObject, Service
    from calico_debug.model.routing import Network


class HeldCluster(ClusterState):
    """The state of a cluster that is in no evidence as it is: of another one with some objects replaced."""

    def __init__(self, cluster: Cluster, like: ClusterState) -> None:
        """``like`` is what the cluster was made from: the rest is as there."""
        super().__init__(like.source)
        self._held = cluster
        self._like = like

    @cached_property
    def cluster(self) -> Cluster:
        """The objects."""
        return self._held

    @cached_property
    def pods(self) -> Sequence[Pod]:
        """Every pod."""
        return self._held.pods

    @cached_property
    def services(self) -> Sequence[Service]:
        """Every service with its backends."""
        return self._held.services

    @cached_property
    def nodes(self) -> Sequence[Node]:
        """Every node."""
        return self._held.nodes

    @cached_property
    def pools(self) -> Sequence[Network]:
        """The ranges of Calico's IP pools, which are not held."""
        return self._like.pools

    def policies(self, kind: str | None = None) -> Sequence[PolicyObject]:
        """The policies of a kind, or of every kind."""
        return [policy for policy in self._held.policies if kind in (None, policy.kind)]
