"""The nodes that a flow touches, by the cluster's objects."""

from __future__ import annotations

from ipaddress import ip_address

from calico_debug.model.flow import Endpoint, Flow
from calico_debug.state.cluster import load_cluster
from calico_debug.state.flow_nodes import flow_nodes
from tests.recordings import DATA, Recording

CLUSTER = load_cluster(Recording(DATA / "v3.32.1-nft.tar.xz").source)
A, B = ip_address("10.244.1.30"), ip_address("10.244.2.32")


def flow(source: Endpoint, destination: Endpoint, via: str | None = None) -> Flow:
    return Flow(source, destination, 6, via)


def test_both_ends_each_once() -> None:
    assert flow_nodes(flow(Endpoint(A, node="n1"), Endpoint(B, node="n2")), CLUSTER) == ("n1", "n2")
    assert flow_nodes(flow(Endpoint(A, node="n1"), Endpoint(B, node="n1")), CLUSTER) == ("n1",)


def test_where_it_comes_in() -> None:
    assert flow_nodes(flow(Endpoint(A, external=True), Endpoint(B, node="n2"), "n3"), CLUSTER) == ("n3", "n2")


def test_where_backends_are() -> None:
    service = CLUSTER.service("management-ui", "management-ui")
    assert service is not None
    wanted = {backend.node for backend in service.backends}
    found = flow_nodes(
        flow(Endpoint(A, node="n1"), Endpoint(B, service=("management-ui", "management-ui", ""))), CLUSTER
    )
    assert found[0] == "n1"
    assert set(found[1:]) == wanted != set()


def test_nobody_knows() -> None:
    assert flow_nodes(flow(Endpoint(A), Endpoint(B, service=("no", "service", ""))), CLUSTER) == ()
