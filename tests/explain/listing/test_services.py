"""kube-proxy's services, read back from its rules in both modes."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from calico_debug.errors import EvidenceError
from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.listing.node import NodeListings
from calico_debug.explain.listing.services import services
from calico_debug.state.connection_filter import ANY_CONNECTION, ConnectionFilter
from tests.explain.services import BALANCED, GHOST, SERVICE, kube_proxy
from tests.explain.world import Node, World
from tests.recordings import DATA

MODES = ("nft", "iptables")


def recorded(mode: str, wanted: ConnectionFilter = ANY_CONNECTION, node: str = "node1") -> list[Any]:
    listing = NodeListings(open_bundle(str(DATA / f"v3.32.1-{mode}.tar.xz")), node).nat(wanted)
    rows = list(listing.rows)
    assert {(len(row.cells), len(row.more)) for row in rows} <= {(len(listing.headings), len(listing.more))}
    return [row.document for row in rows]


@pytest.mark.parametrize("node", ["node1", "node2"])
@pytest.mark.parametrize("mode", MODES)
def test_every_service_has_the_backends_that_its_object_has(mode: str, node: str) -> None:
    """The oracle is the cluster: what EndpointSlices say is what kube-proxy programmed."""
    listings = NodeListings(open_bundle(str(DATA / f"v3.32.1-{mode}.tar.xz")), node)
    expected = {}
    for service in listings.cluster.services:
        name = f"{service.namespace}/{service.name}"
        addresses = (*service.cluster_addresses, *service.external_addresses, *service.load_balancer_addresses)
        for port in service.ports:
            backends = {
                (str(one.address), one.port)
                for one in service.backends
                if one.ready and (one.port_name, one.protocol) == (port.name, port.protocol)
            }
            for key in (*map(str, addresses), *(["node port"] if port.node_port else [])):
                number = port.node_port if key == "node port" else port.port
                expected[key, number, port.protocol.lower()] = (name, backends)
    found = {
        (one.get("ip", "node port"), one["port"], one["protocol"]): (
            one["service"],
            {(end["ip"], end["port"]) for end in one["backends"]},
        )
        for one in recorded(mode, node=node)
    }
    assert found == expected


@pytest.mark.parametrize("mode", MODES)
def test_refusals_local_backends_and_filters(mode: str) -> None:
    by_name = {one["service"]: one for one in recorded(mode)}
    assert (by_name["yaobank/ghost"]["refuses"], by_name["yaobank/ghost"]["backends"]) == (True, [])
    (balanced,) = recorded(mode, ConnectionFilter(servers=frozenset({ip_address("172.30.0.200")})))
    assert (balanced["flags"], balanced["local"], balanced["count"]) == (["local-only"], 1, 1)
    ports = recorded(mode, ConnectionFilter(port=53, protocol=17))
    assert [one["service"] for one in ports] == ["kube-system/kube-dns"]


def test_rules_without_maps() -> None:
    node = Node(tables=kube_proxy("10.244.1.1", "10.244.2.1"))
    listings = NodeListings(World(node).source, "n1")
    found = {one["ip"]: one for one in (row.document for row in listings.nat(ANY_CONNECTION).rows)}
    assert [end["ip"] for end in found[SERVICE]["backends"]] == ["10.244.1.1", "10.244.2.1"]
    assert (found[GHOST]["refuses"], found[GHOST]["count"]) == (True, 0)
    assert found[BALANCED]["flags"] == ["source-ranges"]


def test_a_node_without_kube_proxy_is_refused_with_the_next_step() -> None:
    listings = NodeListings(World(Node()).source, "n1")
    with pytest.raises(EvidenceError, match=r"no rules of kube-proxy .*ipvsadm"):
        services(listings.state.ruleset, listings.names, ANY_CONNECTION, "n1")


def test_chains_that_lead_in_circles_end() -> None:
    tables = kube_proxy("10.244.1.1")
    tables["ip kube-proxy"]["service-shop"] = ["goto:external-shop"]
    listings = NodeListings(World(Node(tables=tables)).source, "n1")
    found = {one["ip"]: one for one in (row.document for row in listings.nat(ANY_CONNECTION).rows)}
    assert found[SERVICE]["backends"] == []
