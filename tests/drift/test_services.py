"""Services: what counts as a backend, and what is nobody's business."""

from __future__ import annotations

from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

from calico_debug.drift.services import compare
from calico_debug.model.cluster import Backend, Node, Service, ServicePort

PORT = ServicePort("http", "TCP", 80, 8080, 30080)


def backend(address: str, *, ready: bool = True, node: str = "n1", name: str = "http") -> Backend:
    return Backend(ip_address(address), 8080, "TCP", name, ready, node)


def service(*backends: Backend, addresses: tuple[str, ...] = ("10.96.0.1",), **more: Any) -> Service:
    return Service("ns", "s", "ClusterIP", tuple(map(ip_address, addresses)), (PORT,), backends=backends, **more)


def row(ip: str, *backends: str, **more: Any) -> dict[str, Any]:
    return {
        "ip": ip,
        "port": 80,
        "protocol": "tcp",
        "backends": [{"ip": one, "port": 8080} for one in backends],
        **more,
    }


def codes(one: Service | None, *rows: dict[str, Any]) -> list[str]:
    cluster = SimpleNamespace(
        services=[one or service()], nodes=[Node("n1", (ip_address("172.16.0.1"),), (ip_address("10.1.0.0"),))]
    )
    return sorted(drift.code for drift in compare("n1", cluster, "kube-proxy", rows))  # type: ignore[arg-type]


def test_the_same() -> None:
    assert codes(service(backend("10.0.0.1"), backend("10.0.0.2")), row("10.96.0.1", "10.0.0.2", "10.0.0.1")) == []


def test_backends_that_are_not_ready_are_not_wanted_unless_no_other_is() -> None:
    ending = backend("10.0.0.2", ready=False)
    assert codes(service(backend("10.0.0.1"), ending), row("10.96.0.1", "10.0.0.1")) == []
    assert codes(service(backend("10.0.0.1"), ending), row("10.96.0.1", "10.0.0.1", "10.0.0.2")) == ["backends-left"]
    assert codes(service(ending), row("10.96.0.1", "10.0.0.2")) == []
    assert codes(service(ending), row("10.96.0.1")) == []


def test_local_services_keep_to_the_node() -> None:
    both = backend("10.0.0.1"), backend("10.0.0.2", node="n2")
    assert codes(service(*both, internal_policy="Local"), row("10.96.0.1", "10.0.0.1")) == []
    assert codes(service(*both), row("10.96.0.1", "10.0.0.1")) == ["backends-missing"]


def test_calicos_map_holds_all_backends_of_a_local_service() -> None:
    both = backend("10.0.0.1"), backend("10.0.0.2", node="n2")
    local = service(*both, internal_policy="Local")
    assert codes(local, row("10.96.0.1", "10.0.0.1", "10.0.0.2")) == []
    assert codes(local, row("10.96.0.1", "10.0.0.2")) == ["backends-missing"]
    assert codes(local, row("10.96.0.1", "10.0.0.1", "10.0.0.3")) == ["backends-left"]


def test_each_ip_version_has_its_own() -> None:
    dual = service(backend("10.0.0.1"), backend("fd00::1"), addresses=("10.96.0.1", "fd00:96::1"))
    assert codes(dual, row("10.96.0.1", "10.0.0.1"), row("fd00:96::1", "fd00::1")) == []
    assert codes(dual, row("10.96.0.1", "10.0.0.1")) == []
    assert codes(dual, row("10.96.0.1", "10.0.0.1"), row("fd00:96::2", "fd00::1")) == [
        "service-left",
        "service-missing",
    ]


def test_other_ports_of_the_slices_do_not_count() -> None:
    assert codes(service(backend("10.0.0.1"), backend("10.0.0.2", name="x")), row("10.96.0.1", "10.0.0.1")) == []


def test_services_without_backends_may_be_there_or_not() -> None:
    assert codes(service(), row("10.96.0.1")) == []
    assert codes(service(), row("10.96.0.9")) == ["service-left"]


def test_node_ports_and_nodes_addresses_are_no_services() -> None:
    assert codes(None, row("172.16.0.1", "10.0.0.1"), row("10.1.0.0", "10.0.0.1")) == []
    elsewhere = {"ip": "192.0.2.1", "port": 30080, "protocol": "tcp", "backends": []}
    assert codes(service(backend("10.0.0.1")), row("10.96.0.1", "10.0.0.1"), elsewhere) == []
    assert codes(None, {"port": 30000, "protocol": "tcp", "nodePort": True, "backends": []}) == []
