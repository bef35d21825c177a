"""Filters from what is typed: names become addresses, and what cannot be meant is refused."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from calico_debug.errors import UsageError
from calico_debug.state.connection_filter import ANY_CONNECTION, STATES, ConnectionFilter, connection_filter, state_word
from tests.explain.services import GHOST, SERVICE, service_objects
from tests.explain.world import Node, World, objects

A = ip_address
POD, OTHER = A("10.244.1.1"), A("10.244.2.1")


@pytest.fixture(scope="module")
def world() -> World:
    nodes = (Node(1), Node(2))
    return World(*nodes, cluster={**objects(nodes, **service_objects("10.244.1.1"))})


def made(world: World, **typed: Any) -> ConnectionFilter:
    return connection_filter(world.resolver, namespace="shop", **typed)


def test_names_become_addresses_and_ports(world: World) -> None:
    assert made(world) == ANY_CONNECTION
    assert made(world, source="pod11") == ConnectionFilter(clients=frozenset({POD}))
    assert made(world, source="10.244.1.1:4000").client_port == 4000
    assert made(world, destination="10.244.2.1:80", protocol=6) == ConnectionFilter(
        servers=frozenset({OTHER}), port=80, protocol=6
    )
    assert made(world, destination="node/n1", port=30080).port == 30080
    assert A("172.30.0.1") in (made(world, destination="node/n1").servers or ())


def test_a_service_stands_for_all_its_addresses(world: World) -> None:
    found = made(world, destination="svc/shop/web").servers
    assert found is not None
    assert A(SERVICE) in found
    assert A(GHOST) not in found


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"source": "external"}, "--from external is not one address"),
        ({"source": "svc/shop/web"}, "a service opens no connections"),
        ({"destination": "10.0.0.1:80", "port": 81}, "name two ports"),
        ({"destination": "10.0.0.1:http"}, "'http' names no ports there"),
        ({"destination": "nobody"}, "no pod is named"),
    ],
)
def test_what_cannot_be_meant(typed: dict[str, Any], message: str, world: World) -> None:
    with pytest.raises(UsageError, match=message):
        made(world, **typed)


def test_admission_looks_at_every_field() -> None:
    connection = (6, (POD, 4000), ((OTHER, 8080), (A("10.96.0.1"), 80)), ("established", "assured"))
    for wanted in (
        ANY_CONNECTION,
        ConnectionFilter(clients=frozenset({POD, OTHER})),
        ConnectionFilter(servers=frozenset({OTHER}), port=8080),
        ConnectionFilter(servers=frozenset({A("10.96.0.1")}), port=80, client_port=4000, protocol=6),
        ConnectionFilter(state="assured"),
    ):
        assert wanted.admits(*connection)
    for unwanted in (
        ConnectionFilter(clients=frozenset({OTHER})),
        # The port is that of the address, not of the other one.
        ConnectionFilter(servers=frozenset({OTHER}), port=80),
        ConnectionFilter(client_port=80),
        ConnectionFilter(protocol=17),
        ConnectionFilter(state="closed"),
    ):
        assert not unwanted.admits(*connection)


def test_families() -> None:
    both = ConnectionFilter(clients=frozenset({POD, A("fd00::1")}))
    assert [both.has_family(family) for family in (4, 6)] == [True, True]
    mixed = ConnectionFilter(clients=frozenset({POD}), servers=frozenset({A("fd00::1")}))
    assert [mixed.has_family(family) for family in (4, 6)] == [False, False]


@pytest.mark.parametrize(
    ("written", "word"), [("SYN_SENT", "syn-sent"), ("CLOSE", "closed"), ("SYN_SENT2", "syn-sent")]
)
def test_states_of_the_kernel_are_words_of_the_table(written: str, word: str) -> None:
    assert state_word(written) == word
    assert word in STATES
