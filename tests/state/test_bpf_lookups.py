"""Questions about one flow, and filtered lists."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from calico_debug.decode.bpf_keys import ordered_key
from calico_debug.model.bpf import RouteTarget
from calico_debug.model.bpf_nat import FrontendTarget, NatBackend
from calico_debug.state.bpf import BpfState
from calico_debug.state.bpf_lookups import BpfLookups
from calico_debug.state.connection_filter import ConnectionFilter
from tests.evidence.bpf_node import BpfNode

A = ip_address
CLIENT, OTHER, SERVICE, SERVER = A("10.0.0.1"), A("10.0.0.7"), A("10.96.0.1"), A("10.0.0.9")
B_TO_A = 0x1


def key(source: Any, sport: int, destination: Any, dport: int, protocol: int = 6) -> dict[str, Any]:
    found = ordered_key(protocol, source, sport, destination, dport)
    return {name: getattr(found, name) for name in ("protocol", "address_a", "address_b", "port_a", "port_b")}


def connection(source: Any, sport: int, destination: Any, dport: int, **value: Any) -> tuple[Any, Any]:
    fields = key(source, sport, destination, dport, value.pop("protocol", 6))
    reversed_ends = fields["address_a"] != source or (source == destination and fields["port_a"] != sport)
    return fields, {"type": 0, "flags_8": B_TO_A if reversed_ends else 0, **value}


ENTRIES = {
    "cali_v4_ct4": [
        (
            key(CLIENT, 4000, SERVICE, 80),
            {"type": 1, **{f"reverse_{k}": v for k, v in key(CLIENT, 4000, SERVER, 8080).items()}},
        ),
        connection(CLIENT, 4000, SERVER, 8080, type=2, original_ip=SERVICE, original_port=80),
        connection(OTHER, 5000, SERVER, 8080),
        connection(SERVER, 6000, CLIENT, 53, protocol=17),
    ],
    "cali_v4_nat_fe3": [
        (
            {"prefix_length": 56 + 24, "address": SERVICE, "port": 80, "protocol": 6, "source": A("10.0.0.0")},
            {"service_id": 1, "count": 2},
        ),
        ({"prefix_length": 56, "address": SERVICE, "port": 80, "protocol": 6}, {"count": 0xFFFFFFFF}),
    ],
    "cali_v4_nat_be": [({"service_id": 1, "ordinal": 1}, {"address": SERVER, "port": 8080})],
    "cali_v4_routes": [
        ({"prefix_length": 16, "address": A("10.0.0.0")}, {"flags": 1}),
        ({"prefix_length": 32, "address": SERVER}, {"flags": 4, "next_hop_or_ifindex": A("172.30.0.2").packed}),
    ],
    "cali_counters6": [({"ifindex": 3, "hook": 1}, {"cells": tuple(range(27))})],
    "cali_iface4": [({"ifindex": 3}, {"flags": 3, "name": "cali1"})],
}


@pytest.fixture
def lookups() -> BpfLookups:
    return BpfLookups(BpfState(BpfNode(ENTRIES).evidence()))


def test_a_connection_in_both_directions_and_behind_a_service(lookups: BpfLookups) -> None:
    asked = lookups.connection(6, CLIENT, 4000, SERVICE, 80)
    assert asked is not None
    assert asked.type_word == "nat-forward"
    behind = lookups.connection_behind(asked)
    assert behind is not None
    assert (behind.client, behind.server) == ((CLIENT, 4000), (SERVER, 8080))
    assert lookups.connection(6, SERVER, 8080, CLIENT, 4000) == behind == lookups.connection_behind(behind)
    assert lookups.connection(6, CLIENT, 4001, SERVICE, 80) is None
    assert lookups.connection(6, A("fd00::1"), 1, A("fd00::2"), 2) is None


@pytest.mark.parametrize(
    ("wanted", "clients"),
    [
        (ConnectionFilter(), [CLIENT, OTHER, SERVER]),
        (ConnectionFilter(clients=frozenset({CLIENT})), [CLIENT]),
        (ConnectionFilter(servers=frozenset({SERVER})), [CLIENT, OTHER]),
        (ConnectionFilter(servers=frozenset({SERVICE})), [CLIENT]),
        (ConnectionFilter(servers=frozenset({SERVICE}), port=80), [CLIENT]),
        (ConnectionFilter(servers=frozenset({SERVICE}), port=8080), []),
        (ConnectionFilter(port=8080), [CLIENT, OTHER]),
        (ConnectionFilter(port=53), [SERVER]),
        (ConnectionFilter(port=4000), []),
        (ConnectionFilter(protocol=17), [SERVER]),
        (ConnectionFilter(clients=frozenset({CLIENT}), servers=frozenset({A("10.9.9.9")})), []),
        (ConnectionFilter(clients=frozenset({A("fd00::1")})), []),
    ],
)
def test_filtered_connections(lookups: BpfLookups, wanted: ConnectionFilter, clients: list[Any]) -> None:
    assert sorted(entry.client[0] for entry in lookups.connections(4, wanted)) == sorted(clients)
    assert list(lookups.connections(6, wanted)) == []


def test_the_newest_connection_is_found_without_decoding() -> None:
    entries = {"cali_v4_ct4": [connection(CLIENT, n, SERVER, 80, last_seen=10**12 - n) for n in (5, 3, 4)]}
    lookups = BpfLookups(BpfState(BpfNode(entries).evidence()))
    assert lookups.newest_connection(4) == 10**12 - 3
    assert lookups.newest_connection(6) == 0


@pytest.mark.parametrize("state", ["unreplied", "established", "syn-sent"])
def test_states(lookups: BpfLookups, state: str) -> None:
    """Entries without packets and flags: of TCP nobody has answered, of UDP neither."""
    found = [entry.key.protocol for entry in lookups.connections(4, ConnectionFilter(state=state))]
    assert sorted(found) == {"unreplied": [6, 6, 17], "established": [], "syn-sent": [6, 6]}[state]


def test_services(lookups: BpfLookups) -> None:
    assert lookups.frontend(6, SERVICE, 80, CLIENT) == FrontendTarget(1, 2, 0, 0, 0)
    outside = lookups.frontend(6, SERVICE, 80, A("192.0.2.1"))
    assert outside is not None
    assert outside.blackhole
    assert lookups.frontend(17, SERVICE, 80, CLIENT) is None
    assert lookups.backend(4, 1, 1) == NatBackend(1, 1, SERVER, 8080)
    assert lookups.backend(4, 1, 0) is None
    assert lookups.affinity(6, SERVICE, 80, CLIENT) is None  # no such map on this node


def test_routes_interfaces_and_counters(lookups: BpfLookups) -> None:
    assert lookups.route(SERVER) == RouteTarget(4, next_hop=A("172.30.0.2"))
    assert lookups.route(A("10.0.200.1")) == RouteTarget(1)
    assert lookups.route(A("192.0.2.1")) is None
    assert lookups.interfaces[3].name == "cali1"
    counters = lookups.counters(3, 1)
    assert counters is not None
    assert counters.cells == tuple(range(27))
    assert lookups.counters(3, 0) is None
    assert [one.ifindex for one in lookups.all_counters()] == [3]
    assert lookups.rule_counter(1) is None
    assert not lookups.in_ip_set(1, SERVER)
    assert not lookups.failsafe(6, 22, CLIENT, outbound=False)
    assert not lookups.may_send_from(3, OTHER)
