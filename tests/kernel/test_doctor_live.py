"""The doctor on a real node: what it finds in a kernel, and what it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from calico_debug.doctor.examine import Report, examine
from tests.doctor.patients import codes, seen
from tests.explain.world import Node
from tests.kernel.small_node import NAME, SmallNode, small_node
from tests.lab import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def node() -> Iterator[SmallNode]:
    with small_node() as made:
        yield made


def looked_at(node: SmallNode) -> Report:
    with namespaces.entered(node.host):
        return examine(node.source(), [NAME])


def test_a_healthy_node(node: SmallNode) -> None:
    node.program(Node(1, pods=[1, 2]))
    assert codes(looked_at(node)) == []


def test_rules_of_others(node: SmallNode) -> None:
    """Drops count what they met; notrack is found behind a jump."""
    own = {"c@forward:10": ["protocol=udp drop"], "raw@prerouting:-300": ["jump:n"], "n": ["notrack"]}
    node.program(Node(1, pods=[1, 2], tables={"inet own": own}))
    found = looked_at(node)
    assert {code for _, code in codes(found)} == {"foreign-drop-rule", "notrack"}
    assert seen(found, "notrack") == ["table inet own, chain n (from hook prerouting): 1 rule with notrack"]


def test_an_interface_that_felix_does_not_know(node: SmallNode) -> None:
    node.program(Node(1, pods=[1]))
    found = looked_at(node)
    assert codes(found) == [("error", "unknown-interface")]
    assert seen(found, "unknown-interface") == ["cali2 has no endpoint among those that Felix programmed"]


def test_a_table_without_endpoints(node: SmallNode) -> None:
    node.program(Node(1, calico=False, tables={"ip calico": {"filter-FORWARD@forward:0": []}}))
    assert codes(looked_at(node)) == [("error", "node-not-programmed")]


def test_packets_that_do_not_fit(node: SmallNode) -> None:
    """A tunnel device with the MTU that the kernel gives it; it keeps that when the device below changes its own."""
    node.program(Node(1, pods=[1, 2]))
    add = "link add vxlan.calico type vxlan id 4096 local 172.30.0.1 dev eth0 dstport 4789"
    namespaces.ip(node.host, [add, "link set vxlan.calico up"])
    try:
        assert codes(looked_at(node)) == [("warning", "mtu-pod")]
        namespaces.ip(node.host, ["link set cali1 mtu 1450", "link set cali2 mtu 1450"])
        assert codes(looked_at(node)) == []
        namespaces.ip(node.host, ["link set eth0 mtu 1400"])
        assert codes(looked_at(node)) == [("warning", "mtu-pod"), ("warning", "mtu-tunnel")]
    finally:
        after = ["link del vxlan.calico", *(f"link set {name} mtu 1500" for name in ("eth0", "cali1", "cali2"))]
        namespaces.ip(node.host, after)
