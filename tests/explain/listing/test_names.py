"""Addresses with their names."""

from __future__ import annotations

from ipaddress import ip_address

from calico_debug.explain.listing.names import Names, address_words, end_words, label, protocol_word
from calico_debug.state.cluster import load_cluster
from tests.evidence.memory import MemorySource
from tests.explain.services import SERVICE, service_objects
from tests.explain.world import Node, objects

A = ip_address


def test_pods_services_and_nodes_by_their_addresses() -> None:
    names = Names(load_cluster(MemorySource(objects((Node(1),), **service_objects("10.244.1.1")))))
    assert names.end(A("10.244.1.1"), 80) == {"ip": "10.244.1.1", "port": 80, "pod": "shop/pod11"}
    assert names.of(A(SERVICE), 80, 6) == {"service": "shop/web"}
    assert names.of(A("172.30.0.1")) == {"node": "n1"}
    assert names.of(A("172.30.0.1"), 30080, 6) == {"service": "shop/web"}
    assert names.of(A("192.0.2.1")) == {}


def test_without_objects_numbers_stay() -> None:
    names = Names(load_cluster(MemorySource({})))
    assert names.end(A("10.244.1.1"), None) == {"ip": "10.244.1.1"}


def test_words() -> None:
    assert end_words({"ip": "10.0.0.1", "port": 80, "pod": "a/b"}) == "a/b (10.0.0.1:80)"
    assert end_words({"ip": "fd00::1", "port": 80, "node": "n1"}) == "node n1 ([fd00::1]:80)"
    assert address_words({"ip": "fd00::1"}) == "fd00::1"
    assert label({}) == ""
    assert (protocol_word(6), protocol_word(200)) == ("tcp", "200")
