"""Pods replaced by a roll-out go by their first name."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from calico_debug.diff.model import FlowText
from calico_debug.diff.replaced import Replaced
from calico_debug.model.cluster import Backend, Cluster, Service, ServicePort
from calico_debug.model.flow import Endpoint, Flow
from calico_debug.state.cluster import ClusterState
from calico_debug.state.held import HeldCluster
from tests.evidence.memory import MemorySource
from tests.intent.clusters import PODS, cluster, pod

WEB = pod("shop/web-a", 11, app="new")
NEXT = replace(WEB, name="web-b", addresses=(ip_address("10.0.0.12"),))
SERVICE = Service("shop", "web", "ClusterIP", (ip_address("10.96.0.1"),), (ServicePort("http", "TCP", 80, 8080),))


def state(made: Cluster) -> ClusterState:
    return HeldCluster(made, ClusterState(MemorySource({})))


def backend(number: int, owner: tuple[str, str] | None) -> Backend:
    return Backend(ip_address(f"10.0.0.{number}"), 8080, "TCP", "http", True, "n1", owner)


BEFORE = state(cluster(pods=(*PODS, WEB)))
AFTER = state(
    cluster(
        pods=(*PODS, NEXT),
        services=(replace(SERVICE, backends=(backend(9, None), backend(12, ("shop", "web-b")))),),
    )
)


def test_the_second_state_by_the_names_of_the_first() -> None:
    renamed = Replaced(BEFORE, AFTER).renamed(AFTER)
    found = renamed.pod("shop", "web-a")
    assert found is not None
    assert found.addresses == NEXT.addresses
    assert renamed.pod("shop", "web-b") is None
    assert {one.pod for one in renamed.services[0].backends} == {None, ("shop", "web-a")}
    assert renamed.cluster.pods == renamed.pods


def test_and_back() -> None:
    target = Endpoint(ip_address("10.0.0.2"), 80, ("shop", "db"))
    flow = Flow(Endpoint(ip_address("10.0.0.12"), pod=("shop", "web-a")), target, 6)
    real = Replaced(BEFORE, AFTER).real(flow)
    assert (real.source.pod, real.destination) == (("shop", "web-b"), target)


def test_who_asks_may_use_either_name() -> None:
    replaced = Replaced(BEFORE, AFTER)

    def first(source: str, destination: str = "svc/shop/web", namespace: str | None = None) -> tuple[str, str]:
        asked = replaced.first_names(FlowText(source, destination), namespace)
        return asked.source, asked.destination

    assert first("pod/shop/web-b", "shop/web-b:http") == ("pod/shop/web-a", "pod/shop/web-a:http")
    assert first("web-b", "web-b:80", "shop") == ("pod/shop/web-a", "pod/shop/web-a:80")
    assert first("web-b") == ("pod/shop/web-a", "svc/shop/web")
    assert first("web-b", namespace="bank") == ("web-b", "svc/shop/web")
    assert first("pod/shop/web-a", "10.0.0.12:80") == ("pod/shop/web-a", "10.0.0.12:80")
    assert first("pod/shop/", "::::") == ("pod/shop/", "::::")


def test_it_is_said() -> None:
    assert list(Replaced(BEFORE, AFTER).notes()) == [
        "1 of the pods were replaced by others alike, and go by their old names: shop/web-a by shop/web-b"
    ]


def test_nothing_was_replaced() -> None:
    replaced = Replaced(BEFORE, BEFORE)
    assert replaced.renamed(BEFORE) is BEFORE
    assert list(replaced.notes()) == []
