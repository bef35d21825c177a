"""What the objects decide for flows by names."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from calico_debug.diff.intended import NO_BACKENDS, UNRESOLVED, Intentions
from calico_debug.diff.model import FlowText
from calico_debug.model.cluster import Backend, Cluster, Service, ServicePort
from calico_debug.state.cluster import ClusterState
from calico_debug.state.held import HeldCluster
from tests.evidence.memory import MemorySource
from tests.intent.clusters import cluster, policy

PORTS = (ServicePort("http", "TCP", 80, 8080),)
BACKENDS = tuple(Backend(ip_address(f"10.0.0.{n}"), 8080, "TCP", "http", True) for n in (1, 2))
SERVICE = Service("shop", "all", "ClusterIP", (ip_address("10.96.0.1"),), PORTS, backends=BACKENDS)
TO_SERVICE = FlowText("pod/bank/cli", "svc/shop/all")


def intentions(of: Cluster, namespace: str | None = None) -> Intentions:
    return Intentions(HeldCluster(of, ClusterState(MemorySource({}))), namespace)


def lock(selector: str) -> object:
    return policy("GlobalNetworkPolicy", "lock", selector=selector, types=["Ingress"], ingress=[{"action": "Deny"}])


def test_backends_that_agree_and_that_do_not() -> None:
    assert intentions(cluster(services=(SERVICE,))).of(TO_SERVICE).verdict == "allowed"
    both = intentions(cluster(lock("app in {'web', 'db'}"), services=(SERVICE,))).of(TO_SERVICE)  # type: ignore[arg-type]
    assert (both.verdict, len(both.reasons)) == ("denied", 1)
    one = intentions(cluster(lock("app == 'db'"), services=(SERVICE,))).of(TO_SERVICE)  # type: ignore[arg-type]
    assert (one.verdict, {reason.verdict for reason in one.reasons}) == ("undetermined", {"allowed", "denied"})
    assert len({found.key for found in (both, one)}) == 2


def test_no_backends() -> None:
    assert intentions(cluster(services=(replace(SERVICE, backends=()),))).of(TO_SERVICE).verdict == NO_BACKENDS


def test_ends_that_are_not_there() -> None:
    found = intentions(cluster(services=(SERVICE,))).of(FlowText("pod/bank/none", "svc/shop/all"))
    assert found.verdict == UNRESOLVED
    assert "cannot be looked up" in str(found.error)


def test_names_without_a_namespace() -> None:
    assert intentions(cluster(), "shop").of(FlowText("web", "db:80", "tcp")).verdict == "allowed"
    assert intentions(cluster(), "bank").of(FlowText("web", "db:80", "tcp")).verdict == UNRESOLVED


def test_a_question_is_asked_once() -> None:
    made = intentions(cluster())
    flow = FlowText("pod/shop/web", "pod/shop/db:80", "tcp")
    assert made.of(flow) is made.of(flow)
