"""Sets that policies ask for: Felix's ids and names, and the members that objects give them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from calico_debug.drift.intended_sets import IntendedSet, intended_sets
from calico_debug.intent.applies import Applicability
from calico_debug.model.cluster import Backend, Cluster, NetworkSet, Pod, PolicyObject, Service

POD = Pod(
    "team",
    "web",
    "node1",
    (ip_address("10.0.0.1"), ip_address("fd00::1")),
    phase="Running",
    labels={"app": "web"},
    named_ports=(("TCP", "http", 80), ("UDP", "http", 8080)),
)
SETS = NetworkSet("", "bad", (ip_network("192.0.2.0/24"),), {"app": "web"})
SERVICE = Service(
    "team", "api", "ClusterIP", (), (), backends=(Backend(ip_address("10.0.0.9"), 443, "TCP", "https", ready=False),)
)


def sets(source: dict[str, object], **rule: object) -> list[IntendedSet]:
    spec = {"selector": "all()", "types": ["Ingress"], "ingress": [{"action": "Allow", "source": source, **rule}]}
    policy = PolicyObject("GlobalNetworkPolicy", "", "p", "default", 1.0, spec)
    cluster = Cluster(
        pods=(POD,),
        policies=(policy,),
        network_sets=(SETS,),
        services=(SERVICE,),
        namespaces={"team": {}},
        service_accounts={("team", "default"): {}},
    )
    assert not intended_sets(Applicability(cluster), "node2")
    return list(intended_sets(Applicability(cluster), "node1").values())


def test_names_in_each_dataplane() -> None:
    one = IntendedSet("s:csK5X0js2E9bSmwDfdvYEF1AOVt2U6hfHRHgJw", "")
    assert one.names(4) == ("cali40s:csK5X0js2E9bSmwDfdvYEF1", "cali40s-csK5X0js2E9bSmwDfdvYEF1")
    assert one.names(6)[0].startswith("cali60s:")


def test_ids_are_those_that_felix_gave() -> None:
    """Ids of a v3.32.1 node."""
    (one,) = sets({"selector": "role == 'attacker'", "namespaceSelector": "all()"})
    assert one.id == "s:csK5X0js2E9bSmwDfdvYEF1AOVt2U6hfHRHgJw"


def test_what_a_selector_selects() -> None:
    (one,) = sets({"selector": "app == 'web'"})
    assert one.spans == {
        4: {(0x0A000001, 0x0A000001): "team/web", (0xC0000200, 0xC00002FF): "network set bad"},
        6: {(int(ip_address("fd00::1")),) * 2: "team/web"},
    }
    assert list(one.users) == ["GlobalNetworkPolicy p"]


@pytest.mark.parametrize(
    ("protocol", "ports"),
    [
        ("TCP", {(0x0A000001, 6, 80)}),
        ("UDP", {(0x0A000001, 17, 8080)}),
        (None, {(0x0A000001, 6, 80), (0x0A000001, 17, 8080)}),
    ],
)
def test_named_ports(protocol: str | None, ports: set[tuple[int, int, int]]) -> None:
    (one,) = sets({"ports": ["http"], "selector": "app == 'web'"}, **({"protocol": protocol} if protocol else {}))
    assert one.id.startswith("n:")
    assert one.ports[4].keys() == ports


def test_numbers_beside_names_need_the_selector_too() -> None:
    ids = {
        one.id.partition(":")[0] for one in sets({"ports": ["http", 81], "selector": "app == 'web'"}, protocol="TCP")
    }
    assert ids == {"n", "s"}


def test_services() -> None:
    (one,) = sets({"services": {"name": "api", "namespace": "team"}})
    assert one.id.startswith("svcnoport:")
    assert one.spans[4] == {(0x0A000009, 0x0A000009): ""}


def test_negated_selectors() -> None:
    (one,) = sets({"notSelector": "app == 'web'"})
    assert len(one.spans[4]) == 2


def test_labels_that_are_not_known_make_it_doubtful() -> None:
    spec = {
        "selector": "all()",
        "types": ["Ingress"],
        "ingress": [{"action": "Allow", "source": {"namespaceSelector": "team == 'a'"}}],
    }
    policy = PolicyObject("GlobalNetworkPolicy", "", "p", "default", 1.0, spec)
    (one,) = intended_sets(Applicability(Cluster(pods=(POD,), policies=(policy,))), "node1").values()
    assert "evidence does not have labels" in one.doubt
