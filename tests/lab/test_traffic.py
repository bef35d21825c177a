"""Outcomes told apart on a cluster whose only rules are the test's own."""

from __future__ import annotations

import time

import pytest

from tests.lab import namespaces
from tests.lab.topology import OUTSIDE_OTHER_V4, WORLD_V4, Wiring, small_cluster
from tests.lab.traffic import SILENCE, Flow, Traffic

pytestmark = pytest.mark.kernel

PAIRS = [
    ("red/web1", "red/cli1"),
    ("red/web1", "red/db2"),
    ("red/web1", "node1"),
    ("red/web1", "node2"),
    ("node1", "red/web1"),
    ("node1", "red/db2"),
    ("external", "red/db2"),
    ("external", "node2"),
    ("red/db2", "external"),
]

REFUSALS = """
add table {family} lab
add chain {family} lab forward {{ type filter hook forward priority 0; }}
add chain {family} lab output {{ type filter hook output priority 0; }}
add rule {family} lab forward tcp dport 443 reject with tcp reset
add rule {family} lab forward tcp dport 80 reject
add rule {family} lab forward tcp dport 9001 drop
add rule {family} lab forward udp dport 53 reject
add rule {family} lab forward udp dport 8053 drop
add rule {family} lab output tcp dport 80 reject
add rule {family} lab output udp dport 53 reject
add rule {family} lab output udp dport 8053 drop
"""


@pytest.mark.parametrize("version", [4, 6])
def test_without_rules_everything_is_reached(wired: tuple[Wiring, Traffic], version: int) -> None:
    wiring, traffic = wired
    topology = wiring.topology
    for source, target in PAIRS:
        destination = topology.address(target, version)
        flows = [
            Flow(source, destination, "tcp", 80),
            Flow(source, destination, "udp", 53),
            Flow(source, destination, "icmp" if version == 4 else "icmpv6"),
        ]
        tcp, udp, icmp = traffic.send_all(flows)
        assert [tcp.verdict, udp.verdict, icmp.verdict] == ["allowed"] * 3, (source, target)
        assert tcp.answered_by == udp.answered_by == target
        assert tcp.seen_source == (topology.address(source, version), tcp.source_port)


@pytest.mark.parametrize(("version", "family"), [(4, "ip"), (6, "ip6")])
def test_refusal_and_silence_are_told_apart(wired: tuple[Wiring, Traffic], version: int, family: str) -> None:
    wiring, traffic = wired
    namespaces.nft(wiring.names["node1"], REFUSALS.format(family=family))
    target = wiring.topology.address("red/db2", version)
    unreachable = "icmp type 3 code 3" if version == 4 else "icmpv6 type 1 code 4"
    wanted = {
        Flow("red/web1", target, "tcp", 443): ("rejected", "RST"),
        Flow("red/web1", target, "tcp", 80): ("rejected", unreachable),
        Flow("red/web1", target, "tcp", 9001): ("denied", "silence"),
        Flow("red/web1", target, "tcp", 22): ("allowed", "answered"),
        Flow("red/web1", target, "udp", 53): ("rejected", unreachable),
        Flow("red/web1", target, "udp", 8053): ("denied", "silence"),
        Flow("node1", target, "tcp", 80): ("rejected", unreachable),
        Flow("node1", target, "udp", 53): ("rejected", unreachable),
        Flow("node1", target, "udp", 8053): ("denied", "silence"),
    }
    outcomes = traffic.send_all(wanted)
    assert {flow: (o.verdict, o.detail) for flow, o in zip(wanted, outcomes, strict=True)} == wanted


def test_a_closed_port_refuses_and_a_missing_route_is_no_silence(wired: tuple[Wiring, Traffic]) -> None:
    wiring, traffic = wired
    pod = wiring.topology.address("red/db2")
    assert traffic.send(Flow("red/web1", pod, "tcp", 81)).detail == "RST"
    namespaces.ip(wiring.names["red/web1"], ["route del default"])
    assert traffic.send(Flow("red/web1", pod, "tcp", 80)).verdict == "unroutable"


def test_source_port_and_address_can_be_chosen(wired: tuple[Wiring, Traffic]) -> None:
    wiring, traffic = wired
    flow = Flow("external", wiring.topology.address("red/db2"), "tcp", 80, 40404, OUTSIDE_OTHER_V4)
    assert traffic.send(flow).seen_source == (OUTSIDE_OTHER_V4, 40404)


def test_addresses_beyond_the_gateway_answer_as_themselves(wired: tuple[Wiring, Traffic]) -> None:
    _, traffic = wired
    assert [traffic.send(Flow("node1", address, "udp", 53)).verdict for address in WORLD_V4] == ["allowed"] * 2


def test_a_vxlan_cluster_carries_pod_traffic_in_the_tunnel() -> None:
    reason = namespaces.supported()
    if reason:
        pytest.skip(reason)
    wiring = Wiring(small_cluster(vxlan=True, ipv6=False))
    traffic = Traffic(wiring.topology, wiring.names)
    try:
        count = "add table ip t\nadd chain ip t c { type filter hook input priority 0; }\n"
        namespaces.nft(wiring.names["node2"], count + "add rule ip t c udp dport 4789 counter")
        outcome = traffic.send(Flow("red/web1", wiring.topology.address("red/db2"), "tcp", 80))
        listing = namespaces.run(wiring.names["node2"], ["nft", "list", "table", "ip", "t"])
    finally:
        traffic.close()
        wiring.close()
    assert outcome.verdict == "allowed"
    assert "packets 0" not in listing


def test_refusals_do_not_shorten_the_wait_for_others(wired: tuple[Wiring, Traffic]) -> None:
    """Refused connections stay readable; they must not pass for activity, nor use up the turns of the loop."""
    wiring, traffic = wired
    pod = wiring.topology.address("red/db2")
    refused = [Flow("red/web1", pod, "tcp", port) for port in range(5000, 5020)]
    started = time.monotonic()
    outcomes = traffic.send_all([*refused, Flow("red/web1", "10.244.2.99", "udp", 53)])
    assert time.monotonic() - started >= SILENCE
    assert [outcome.detail for outcome in outcomes] == ["RST"] * 20 + ["silence"]
