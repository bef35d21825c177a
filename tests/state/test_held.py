"""A cluster that is held, where a state is asked for."""

from __future__ import annotations

from dataclasses import replace

from calico_debug.state.cluster import load_cluster
from calico_debug.state.held import HeldCluster
from calico_debug.state.resolve import Resolver
from tests.recordings import recordings

(RECORDING,) = recordings("v3.32.1-nft")[:1]


def test_it_is_the_cluster_that_was_given() -> None:
    like = load_cluster(RECORDING.source)
    held = HeldCluster(like.cluster, like)
    assert held.cluster is like.cluster
    assert (held.pods, held.services, held.nodes, held.pools) == (like.pods, like.services, like.nodes, like.pools)
    assert list(held.policies()) == list(like.policies())
    assert list(held.policies("NetworkPolicy")) == list(like.policies("NetworkPolicy"))
    assert held.origin == like.origin


def test_names_are_those_of_what_was_replaced() -> None:
    like = load_cluster(RECORDING.source)
    moved = [replace(pod, namespace="moved") if pod.namespace == "client" else pod for pod in like.pods]
    held = HeldCluster(replace(like.cluster, pods=moved), like)
    flow = Resolver(held, {}).resolve("moved/client-5f8b", "svc/stars/frontend")
    assert flow.source.pod == ("moved", "client-5f8b")
    assert held.pod("client", "client-5f8b") is None
    assert held.pod_by_address(flow.source.address) is moved[[pod.name for pod in moved].index("client-5f8b")]
