"""Flows over several nodes: legs, tunnels, replies, and where they stop."""

from __future__ import annotations

import pytest

from calico_debug.model.conntrack import STATE_BITS
from calico_debug.walk.choices import Chooser
from calico_debug.walk.context import Undecided
from calico_debug.walk.journey import MAX_LEGS, Journey, Opening, Traveller, opening_packet
from calico_debug.walk.packet import ICMP, TCP, TCP_FLAGS, UDP
from calico_debug.walk.wiring import Place
from tests.explain.world import Node, Tier, World, endpoint, policy
from tests.walk.test_wiring import number, tunnel

POD11, POD12, POD21 = "10.244.1.1", "10.244.1.2", "10.244.2.1"
START = Place("n1", "cali1")


def opening(to: str, protocol: int = TCP, source: str = POD11, place: Place = START, family: int = 4) -> Opening:
    ports = (None, None) if protocol == ICMP else (40000, 80)
    return Opening(family, protocol, number(source), number(to), *ports, place)


def travel(world: World, start: Opening, existing: bool = False) -> Journey:
    return world.engine._traveller.travel(start, Chooser(), existing)


def legs(journey: Journey) -> list[tuple[str, str, str, str]]:
    """(node, in, out, direction) of each leg."""
    words = {(False, False): "request", (True, False): "reply", (False, True): "tunnel", (True, True): "reply tunnel"}
    return [(x.made.node, x.made.arrived, x.made.interface, words[x.reply, x.outer]) for x in journey.legs]


def test_on_one_node() -> None:
    journey = travel(World(Node(1)), opening(POD12))
    assert legs(journey) == [("n1", "cali1", "cali2", "request"), ("n1", "cali2", "cali1", "reply")]
    assert (journey.arrived, journey.place, journey.replied) == ("workload", Place("n1", "cali2"), True)
    assert (journey.stopped, journey.reply_stopped, journey.existing) == ("", "", False)


def test_across_nodes() -> None:
    journey = travel(World(Node(1), Node(2)), opening(POD21))
    assert legs(journey) == [
        ("n1", "cali1", "eth0", "request"),
        ("n2", "eth0", "cali1", "request"),
        ("n2", "cali1", "eth0", "reply"),
        ("n1", "eth0", "cali1", "reply"),
    ]
    state = [leg.made.packet.tracking.state for leg in journey.legs if leg.made.packet.tracking]
    assert state == [STATE_BITS["new"]] * 2 + [STATE_BITS["established"]] * 2


@pytest.mark.parametrize("protocol", [UDP, ICMP])
def test_other_protocols_are_answered_too(protocol: int) -> None:
    assert travel(World(Node(1), Node(2)), opening(POD21, protocol)).replied


def test_to_a_node_and_out_of_the_cluster() -> None:
    world = World(Node(1), Node(2))
    assert travel(world, opening("172.30.0.2")).arrived == "host"
    assert travel(world, opening("172.30.0.1")).place == Place("n1")
    journey = travel(world, opening("8.8.8.8"))
    assert (journey.arrived, journey.place) == ("outside", Place("n1", "eth0"))
    assert legs(journey)[-1] == ("n1", "eth0", "cali1", "reply")


def test_from_a_process_of_the_node() -> None:
    journey = travel(World(Node(1), Node(2)), opening(POD21, source="172.30.0.1", place=Place("n1")))
    assert legs(journey)[0] == ("n1", "", "eth0", "request")
    assert journey.replied


def test_a_tunnel_is_walked_as_the_packet_it_is() -> None:
    world = World(tunnel(Node(1)), tunnel(Node(2)))
    journey = travel(world, opening(POD21))
    assert legs(journey) == [
        ("n1", "cali1", "vxlan.calico", "request"),
        ("n1", "", "eth0", "tunnel"),
        ("n2", "eth0", "", "tunnel"),
        ("n2", "vxlan.calico", "cali1", "request"),
        ("n2", "cali1", "vxlan.calico", "reply"),
        ("n2", "", "eth0", "reply tunnel"),
        ("n1", "eth0", "", "reply tunnel"),
        ("n1", "vxlan.calico", "cali1", "reply"),
    ]
    outer = journey.legs[1].made.packet
    assert (outer.protocol, outer.dport, outer.destination) == (UDP, 4789, number("172.30.0.2"))
    steps = world.ask("11:40000", "21:80").steps
    assert [step.node for step in steps if step.stage == "reply"] == ["n2", "n1"]
    assert [step.detail for step in steps if "tunnel" in step.detail][:1] == [
        "tunnel packet: out of eth0 (route 172.30.0.0/24)"
    ]


def test_a_tunnel_packet_that_is_refused() -> None:
    refuse = "dport=4789 drop # cali:t; Drop IPv4 VXLAN packets from non-allowed hosts"
    world = World(tunnel(Node(1)), tunnel(Node(2, chains={"filter-cali-INPUT": [refuse]})))
    answer = world.ask("11:40000", "21:80")
    assert answer.decision is not None
    assert (answer.verdict, answer.decision.reason, answer.decision.node) == ("denied", "encapsulation", "n2")
    assert answer.decision.detail.startswith("tunnel packet: ")


def test_tunnels_that_cannot_be_followed() -> None:
    world = World(tunnel(Node(1), "wireguard", "wg0"), tunnel(Node(2), "wireguard", "wg0"))
    journey = travel(world, opening(POD21))
    assert journey.stopped == "packets in the wireguard tunnel wg0 of n1 are not followed"


def test_a_denied_packet_has_no_reply() -> None:
    chains = {"filter-cali-tw-cali1": ["drop"]}
    journey = travel(World(Node(1), Node(2, chains=chains)), opening(POD21))
    assert (journey.arrived, journey.replied) == ("", False)
    assert [word for *_, word in legs(journey)] == ["request", "request"]


def test_a_hypothetical_rest_has_no_reply() -> None:
    chains = {**endpoint("cali-fw-cali1", [Tier("t", ["gnp/x"])]), **policy("gnp", "x", "egress")}
    journey = travel(World(Node(1, chains=chains), Node(2)), opening(POD21))
    assert (journey.arrived, journey.replied) == ("workload", False)
    assert journey.legs[-1].made.trace.hypothetical


def test_the_reply_stops_where_evidence_does() -> None:
    world = World(Node(1), Node(2), absent=["n1"])
    journey = travel(world, opening(POD21, place=Place("n2", "eth0")))
    assert journey.arrived == "workload"
    assert not journey.replied
    assert journey.reply_stopped == "the packet goes on to node n1 at 172.30.0.1, of which there is no evidence"


def test_loops_are_bounded() -> None:
    lost = {"dst": "10.245.0.0/16", "dev": "eth0"}
    nodes = (Node(1, routes=[{**lost, "gateway": "172.30.0.2"}]), Node(2, routes=[{**lost, "gateway": "172.30.0.1"}]))
    journey = travel(World(*nodes), opening("10.245.0.1"))
    assert len(journey.legs) == MAX_LEGS
    assert journey.stopped == f"the packet crosses more than {MAX_LEGS} nodes: the routes form a loop"


def test_a_node_that_may_not_be_entered() -> None:
    engine = World(Node(1), Node(2)).engine

    def admit(walker: object) -> None:
        if walker is engine._walkers["n2"]:
            raise Undecided("n2 is closed")

    journey = Traveller(engine._walkers, engine._wiring, admit=admit).travel(opening(POD21), Chooser(), False)
    assert journey.stopped == "n2 is closed"
    assert len(journey.legs) == 1


ALIVE = (
    "tcp      6 86000 ESTABLISHED src=10.244.1.1 dst=10.244.1.2 sport=40000 dport=80 "
    "src=10.244.1.2 dst=10.244.1.1 sport=80 dport=40000 [ASSURED] mark=0 use=1\n"
)


def test_existing_connections_are_joined_only_when_asked() -> None:
    world = World(Node(1, conntrack=ALIVE))
    assert travel(world, opening(POD12), existing=True).existing
    assert not travel(world, opening(POD12), existing=False).existing


def test_opening_packets() -> None:
    bare = Opening(4, TCP, 1, 2, None, None, START)
    packet = opening_packet(bare, mid_stream=False)
    assert packet.tcp_flags == TCP_FLAGS["syn"]
    assert not isinstance(packet.sport, int)
    assert opening_packet(bare, mid_stream=True).tcp_flags == TCP_FLAGS["ack"]
    ping = opening_packet(Opening(4, ICMP, 1, 2, None, None, START), mid_stream=False)
    assert (ping.icmp_type, ping.icmp_code, ping.sport) == (8, 0, None)
    ping = opening_packet(Opening(6, 58, 1, 2, None, None, START), mid_stream=False)
    assert ping.icmp_type == 128
    other = opening_packet(Opening(4, ICMP, 1, 2, None, None, START, (13, 0)), mid_stream=False)
    assert other.icmp_type == 13
