"""The kernel's connections: legs, translation, and where policy let them through."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from calico_debug.errors import MissingEvidence
from calico_debug.explain.listing.connections import HEADINGS, MORE, kernel_connections
from calico_debug.explain.listing.names import Names
from calico_debug.explain.listing.rows import Row
from calico_debug.state.cluster import load_cluster
from calico_debug.state.connection_filter import ANY_CONNECTION, ConnectionFilter
from calico_debug.state.node import NodeState
from tests.explain.services import SERVICE, service_objects
from tests.explain.world import Node, World, objects

A = ip_address
LISTED = f"""\
tcp      6 431999 ESTABLISHED src=10.244.1.1 dst={SERVICE} sport=4000 dport=80 packets=5 bytes=500 src=10.244.2.1 dst=10.244.1.1 sport=80 dport=4000 packets=4 bytes=400 [ASSURED] mark=0 use=1
udp      17 29 src=192.0.2.9 dst=172.30.0.1 sport=5000 dport=53 [UNREPLIED] src=172.30.0.1 dst=192.0.2.9 sport=53 dport=5000 mark=7 zone=3 delta-time=12 use=1
icmp     1 29 src=10.244.2.1 dst=10.244.2.2 type=8 code=0 id=9 src=10.244.2.2 dst=172.30.0.1 type=0 code=0 id=9 mark=0 use=1
"""  # noqa: E501


def rows(wanted: ConnectionFilter = ANY_CONNECTION, conntrack: str | None = LISTED) -> list[Row]:
    node = Node(1, files={"conntrack.txt": conntrack})
    both = (node, Node(2))
    world = World(*both, cluster=objects(both, **service_objects("10.244.2.1")))
    return list(kernel_connections(NodeState(world.source.node("n1")), Names(load_cluster(world.source)), wanted).rows)


def documents(**wanted: Any) -> list[Any]:
    return [row.document for row in rows(ConnectionFilter(**wanted))]


def test_a_service_both_legs_and_the_sides_that_are_here() -> None:
    document = rows()[0].document
    assert document["client"] == {"ip": "10.244.1.1", "port": 4000, "pod": "shop/pod11"}
    assert document["service"] == {"ip": SERVICE, "port": 80, "service": "shop/web"}
    assert document["server"] == {"ip": "10.244.2.1", "port": 80, "pod": "shop/pod21"}
    assert (document["state"], document["expiresSeconds"], document["flags"]) == ("established", 431999, ["assured"])
    # The server's node is another one: its policy is asked there.
    assert document["approvedBy"] == ["client side"]
    legs = document["legs"]
    assert (legs["client"]["packets"], legs["server"]["bytes"]) == (5, 400)
    assert legs["client"]["destination"] == {"ip": SERVICE, "port": 80}
    assert legs["server"]["source"] == {"ip": "10.244.2.1", "port": 80}


def test_age_mark_zone_and_a_host_that_answers() -> None:
    document = rows()[1].document
    assert (document["ageSeconds"], document["mark"], document["zone"]) == (12, 7, 3)
    assert (document["approvedBy"], document["flags"]) == (["server side"], ["unreplied"])
    assert "state" not in document
    assert "packets" not in document["legs"]["client"]


def test_icmp_and_masquerading() -> None:
    row = rows()[2]
    assert row.document["legs"]["client"]["icmp"] == {"type": 8, "code": 0, "id": 9}
    assert row.document["clientSeenAs"] == {"ip": "172.30.0.1", "node": "n1"}
    assert row.document["approvedBy"] == []
    assert row.cells[HEADINGS.index("APPROVED BY")] == "not here"
    assert row.more[MORE.index("NAT")] == "client as node n1 (172.30.0.1)"
    assert "type 8 code 0 id 9" in row.more[MORE.index("CLIENT'S PACKETS")]


def test_filters() -> None:
    pod, service = frozenset({A("10.244.1.1")}), frozenset({A(SERVICE)})
    assert len(documents(clients=pod)) == len(documents(servers=service, port=80)) == 1
    assert len(documents(servers=frozenset({A("10.244.2.1")}), state="established")) == 1
    assert len(documents(state="unreplied")) == len(documents(state="assured")) == 1
    assert documents(clients=pod, port=81) == []
    assert documents(clients=frozenset({A("fd00::1")})) == []


def test_no_listing_is_missing_evidence_and_not_an_empty_answer() -> None:
    assert rows(conntrack="") == []
    with pytest.raises(MissingEvidence, match=r"conntrack\.txt"):
        rows(conntrack=None)
