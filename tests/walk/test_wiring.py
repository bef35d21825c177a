"""Where addresses live and where packets go next."""

from __future__ import annotations

import json
from ipaddress import ip_address

import pytest

from calico_debug.walk.context import Undecided
from calico_debug.walk.wiring import Absent, Arriving, Attached, Outside, Place, Wiring
from tests.explain.rules import Json
from tests.explain.world import Node, World


def number(text: str) -> int:
    return int(ip_address(text))


def wiring(*nodes: Node, absent: tuple[str, ...] = (), cluster: dict[str, str] | None = None) -> Wiring:
    return World(*nodes, absent=absent, cluster=cluster).engine._wiring


BOTH = (Node(1), Node(2))


@pytest.mark.parametrize(
    ("address", "owner", "place"),
    [
        ("172.30.0.1", "n1", Place("n1")),
        ("172.30.0.2", "n2", Place("n2")),
        ("10.244.1.1", None, Place("n1", "cali1")),
        ("10.244.2.2", None, Place("n2", "cali2")),
        ("10.244.2.9", None, None),
        ("172.30.0.77", None, None),
        ("8.8.8.8", None, None),
        ("127.0.0.1", None, None),
    ],
)
def test_places(address: str, owner: str | None, place: Place | None) -> None:
    found = wiring(*BOTH)
    for _ in range(2):  # asked, then remembered
        assert found.owner(4, number(address)) == owner
        assert found.place(4, number(address)) == place


def test_ipv6_places() -> None:
    found = wiring(Node(1, family=6), Node(2, family=6))
    assert found.place(6, number("fd00:244:2::1")) == Place("n2", "cali1")
    assert found.owner(6, number("fd00:30::1")) == "n1"
    assert found.owner(6, 1) is None


def test_a_pod_behind_a_subnet_route_is_found_by_its_object() -> None:
    """Other plug-ins route whole subnets to one device; a pod that the API knows is there, a stranger is not."""
    bridge = [{"dst": "10.245.0.0/24", "dev": "cali1", "scope": "link"}]
    nodes = (Node(1, routes=bridge), Node(2))
    assert wiring(*nodes).place(4, number("10.245.0.5")) is None
    known = World(*nodes).engine
    found = Wiring(known._walkers, lambda _family, _address: "pod shop/x")
    assert found.place(4, number("10.245.0.5")) == Place("n1", "cali1")


def test_where_packets_arrive() -> None:
    found = wiring(*BOTH)
    assert found.arrival_interface("n1", 4, number("10.244.1.2")) == "cali2"
    assert found.arrival_interface("n1", 4, number("8.8.8.8")) == "eth0"
    nowhere = Node(1, routes=[{"type": "blackhole", "dst": "9.0.0.0/8"}])
    with pytest.raises(Undecided, match=r"n1 has no route to 9\.9\.9\.9"):
        wiring(nowhere).arrival_interface("n1", 4, number("9.9.9.9"))


def test_the_next_stop() -> None:
    found = wiring(*BOTH)
    pod2, node2, world = number("10.244.2.1"), number("172.30.0.2"), number("8.8.8.8")
    assert found.follow("n1", "cali1", None, 4, number("10.244.1.1")) == Attached(Place("n1", "cali1"))
    assert found.follow("n1", "eth0", node2, 4, pod2) == Arriving("n2", "eth0")
    assert found.follow("n1", "eth0", None, 4, node2) == Arriving("n2", "eth0")
    gone = found.follow("n1", "eth0", number("172.30.0.254"), 4, world)
    assert gone == Outside("out of the cluster through eth0 of n1")


def test_what_evidence_does_not_cover() -> None:
    found = wiring(*BOTH, absent=("n2",))
    stop = found.follow("n1", "eth0", number("172.30.0.2"), 4, number("10.244.2.1"))
    assert stop == Absent("node n2 at 172.30.0.2, of which there is no evidence")
    stop = found.follow("n1", "eth0", number("172.30.0.254"), 4, number("10.244.2.1"))
    assert stop == Absent("pod shop/pod21 at 10.244.2.1: no evidence of the node it is on")
    stop = found.follow("n1", "eth0", number("172.30.0.254"), 4, number("10.244.9.9"))
    assert stop == Absent("172.30.0.254, which n1 sends to through eth0: no evidence says what is there")
    bare = wiring(*BOTH, cluster={})
    assert isinstance(bare.follow("n1", "eth0", number("172.30.0.254"), 4, number("8.8.8.8")), Absent)


def tunnel(node: Node, kind: str = "vxlan", name: str = "vxlan.calico", **attributes: object) -> Node:
    """The node with a tunnel device, and the route to the other node's pods through it."""
    other = 3 - node.number
    links: list[Json] = node._links()
    info = {"info_kind": kind, "info_data": {"local": node.address, "port": 4789, "id": 1, **attributes}}
    own = {"family": "inet", "local": f"10.244.{node.number}.0", "prefixlen": 32, "scope": "global"}
    links.append(
        {"ifindex": 99, "ifname": name, "flags": ["UP"], "operstate": "UNKNOWN", "linkinfo": info, "addr_info": [own]}
    )

    node.files = {"ip-addr.json": json.dumps(links), "ip-link.json": json.dumps(links)}
    node.peers = ()
    node.routes = [
        {"dst": f"10.244.{other}.0/24", "gateway": f"10.244.{other}.0", "dev": name, "flags": ["onlink"]},
        {"type": "local", "dst": f"10.244.{node.number}.0", "dev": name, "table": "local", "scope": "host"},
    ]
    return node


def test_through_a_tunnel() -> None:
    found = wiring(tunnel(Node(1)), tunnel(Node(2)))
    hop = number("10.244.2.0")
    stop = found.follow("n1", "vxlan.calico", hop, 4, number("10.244.2.1"))
    assert isinstance(stop, Arriving)
    assert (stop.node, stop.interface, stop.tunnel and stop.tunnel.kind) == ("n2", "vxlan.calico", "vxlan")
    one_sided = wiring(
        tunnel(Node(1)), Node(2, routes=[{"type": "local", "dst": "10.244.2.0", "table": "local", "dev": "eth0"}])
    )
    stop = one_sided.follow("n1", "vxlan.calico", hop, 4, number("10.244.2.1"))
    assert stop == Absent("n2 has no vxlan interface to take packets from vxlan.calico of n1")
