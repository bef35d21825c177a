"""Packets through one node of the recorded eBPF cluster, step by step."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from calico_debug.model.conntrack import STATE_BITS
from calico_debug.walk.bpf_marks import Marks
from calico_debug.walk.bpf_outcomes import MASQUERADE_SELF, NAT_OUT, SEEN
from calico_debug.walk.choices import Chooser
from calico_debug.walk.context import PassedUnasked, PolicyRan, Translated, Unrouted
from calico_debug.walk.packet import ICMP, TCP, UDP, Ends, Packet, Tracking
from calico_debug.walk.passage import DELIVERED, DENIED, LOST, SENT, Pass
from tests.walk.recorded_bpf import CUSTOMER_DEVICE, RecordedCluster

CUSTOMER, SUMMARY, SUMMARY_B, DATABASE = "10.244.1.10", "10.244.1.11", "10.244.2.11", "10.244.2.12"
FRONTEND, FRONTEND_SERVICE, GHOST = "10.244.1.31", "10.96.20.1", "10.96.10.9"
NODE1, NODE2, OUTSIDE = "172.30.0.11", "172.30.0.12", "198.51.100.9"
CUSTOMER_PORT = 30180
FRONTEND_DEVICE = "cali1e6a8145a25"


@pytest.fixture(scope="module")
def cluster() -> RecordedCluster:
    return RecordedCluster()


def new(packet: Packet) -> Tracking:
    ends = packet.ends()
    return Tracking(
        STATE_BITS["new"], ends, Ends(ends.destination, ends.source, ends.destination_port, ends.source_port)
    )


def packet(source: str, destination: str, dport: int = 80, protocol: int = TCP) -> Packet:
    return Packet(4, protocol, int(ip_address(source)), int(ip_address(destination)), 40000, dport)


def received(cluster: RecordedCluster, node: str, interface: str, sent: Packet) -> Pass:
    return cluster.walkers[node].receive(sent, interface, new, Chooser())


def policies(made: Pass) -> list[tuple[str, str, bool]]:
    ran = (event.result for event in made.trace.events if isinstance(event, PolicyRan))
    return [(result.interface, result.direction, result.denied) for result in ran]


def lost(made: Pass) -> tuple[str, str]:
    assert made.ending == LOST
    event = made.trace.events[-1]
    assert isinstance(event, Unrouted)
    return event.reason, event.answer


def test_pod_to_pod_on_one_node(cluster: RecordedCluster) -> None:
    made = received(cluster, "node1", CUSTOMER_DEVICE, packet(CUSTOMER, SUMMARY))
    assert made.ending == SENT
    assert made.interface == "cali9a93f16e8a3"
    assert policies(made) == [(CUSTOMER_DEVICE, "egress", False), (made.interface, "ingress", False)]
    assert made.packet.mark == SEEN


def test_a_denial_ends_the_packet(cluster: RecordedCluster) -> None:
    made = received(cluster, "node1", CUSTOMER_DEVICE, packet(CUSTOMER, DATABASE, 5432))
    assert made.ending == DENIED
    assert policies(made) == [(CUSTOMER_DEVICE, "egress", True)]


def test_a_pod_that_reaches_itself_through_a_service(cluster: RecordedCluster) -> None:
    made = received(cluster, "node1", FRONTEND_DEVICE, packet(FRONTEND, FRONTEND_SERVICE))
    assert made.ending == SENT
    assert made.interface == FRONTEND_DEVICE
    assert policies(made) == [(FRONTEND_DEVICE, "egress", False)]  # its own ingress is not asked
    assert made.packet.mark == MASQUERADE_SELF
    assert made.packet.source != int(ip_address(FRONTEND))  # by the rules that Felix leaves


@pytest.fixture
def older(cluster: RecordedCluster, monkeypatch: pytest.MonkeyPatch) -> RecordedCluster:
    """The same as if the programs were those of v3.29."""
    for walker in cluster.walkers.values():
        assert walker.datapath is not None
        monkeypatch.setitem(vars(walker.datapath), "marks", Marks(bits_count=False, refuses_own=False))
    return cluster


def test_up_to_v3_31_3_its_own_ingress_is_asked_about_its_own_address(older: RecordedCluster) -> None:
    """Seen with v3.29.7 and v3.30.7: rules see the pod's address, though the host masquerades."""
    made = received(older, "node1", FRONTEND_DEVICE, packet(FRONTEND, FRONTEND_SERVICE))
    assert policies(made) == [(FRONTEND_DEVICE, "egress", False), (FRONTEND_DEVICE, "ingress", True)]
    asked = [event.result.asked for event in made.trace.events if isinstance(event, PolicyRan)][-1]
    assert asked is not None
    assert asked.source == int(ip_address(FRONTEND))
    assert asked.from_host  # the masqueraded address was, when that was looked up


def test_up_to_v3_31_3_programs_note_what_the_host_masqueraded(older: RecordedCluster) -> None:
    """So that the answer to it has an entry, and no host endpoint's policy is asked."""
    made = received(older, "node1", FRONTEND_DEVICE, packet(FRONTEND, "203.0.113.70", 443))
    datapath = older.walkers["node1"].datapath
    assert datapath is not None
    assert datapath.notes_at_exit(made.interface, made.packet.mark)
    vars(datapath)["marks"] = Marks()
    assert not datapath.notes_at_exit(made.interface, made.packet.mark)


def test_up_to_v3_29_a_node_is_not_told_of_a_service_without_backends(older: RecordedCluster) -> None:
    """Seen with v3.29.7: silence, where v3.30.7 refuses."""
    assert lost(older.walkers["node1"].send(packet(NODE1, GHOST), new, Chooser())) == ("no-endpoints", "")
    assert lost(received(older, "node1", CUSTOMER_DEVICE, packet(CUSTOMER, GHOST)))[1] == "port-unreachable"


def test_traffic_that_leaves_the_pools_is_marked_for_the_rules(cluster: RecordedCluster) -> None:
    made = received(cluster, "node1", FRONTEND_DEVICE, packet(FRONTEND, "203.0.113.70", 443))
    assert made.ending == SENT
    assert made.packet.mark == NAT_OUT
    assert made.packet.source == int(ip_address(NODE1))


def test_the_node_s_own_traffic(cluster: RecordedCluster) -> None:
    """To its own pods it is not policed; through another node's port it is, at the pod (tc.c, NP redir on HEP)."""
    walker = cluster.walkers["node1"]
    own = walker.send(packet(NODE1, CUSTOMER), new, Chooser())
    assert (own.ending, own.interface, policies(own)) == (SENT, CUSTOMER_DEVICE, [])
    around = walker.send(packet(NODE1, NODE2, CUSTOMER_PORT), new, Chooser())
    assert (around.ending, around.interface) == (SENT, CUSTOMER_DEVICE)
    assert policies(around) == [(CUSTOMER_DEVICE, "ingress", False)]
    assert any(isinstance(event, Translated) and event.service for event in around.trace.events)
    service = walker.send(packet(NODE1, FRONTEND_SERVICE), new, Chooser())
    assert (service.ending, service.interface, policies(service)) == (SENT, FRONTEND_DEVICE, [])


def test_a_host_endpoint_and_its_failsafe_ports(cluster: RecordedCluster) -> None:
    made = received(cluster, "node2", "eth0", packet("172.30.0.1", NODE2, 9999))
    assert policies(made)[0][:2] == ("eth0", "ingress")
    failsafe = received(cluster, "node2", "eth0", packet("172.30.0.1", NODE2, 22))
    assert failsafe.ending == DELIVERED
    assert policies(failsafe) == []
    assert any(isinstance(event, PassedUnasked) for event in failsafe.trace.events)


@pytest.mark.parametrize(("node", "address", "told"), [("node2", NODE2, 1), ("node1", NODE1, 0)])
def test_failsafe_ports_are_those_of_a_host_endpoint(
    cluster: RecordedCluster, node: str, address: str, told: int
) -> None:
    """Of the recorded nodes only node2 has one; a port of a node without is not policed at all."""
    outbound = cluster.walkers[node].send(packet(address, "172.30.0.1", 53, UDP), new, Chooser())
    inbound = received(cluster, node, "eth0", packet("172.30.0.1", address, 22))
    for made, direction in ((outbound, "egress"), (inbound, "ingress")):
        unasked = [event for event in made.trace.events if isinstance(event, PassedUnasked)]
        assert unasked == [PassedUnasked("failsafe", direction)] * told
        assert policies(made) == []


def test_tunnels_between_nodes_pass_unasked(cluster: RecordedCluster) -> None:
    made = received(cluster, "node2", "eth0", packet(NODE1, NODE2, 4789, UDP))
    assert made.ending == DELIVERED
    assert policies(made) == []


def test_icmp_types_are_the_policy_s_ports(cluster: RecordedCluster) -> None:
    echo = Packet(4, ICMP, int(ip_address(CUSTOMER)), int(ip_address(SUMMARY)), icmp=(8, 0))
    other = Packet(4, ICMP, int(ip_address(CUSTOMER)), int(ip_address(SUMMARY)), icmp=(13, 0))
    assert policies(received(cluster, "node1", CUSTOMER_DEVICE, echo))[0][2] is False
    assert policies(received(cluster, "node1", CUSTOMER_DEVICE, other))[0][2] is True


def test_packets_of_known_connections_pass_policy(cluster: RecordedCluster) -> None:
    def known(asked: Packet) -> Tracking:
        made = new(asked)
        made.state, made.existing = STATE_BITS["established"], True
        return made

    made = cluster.walkers["node1"].receive(packet(CUSTOMER, DATABASE, 5432), CUSTOMER_DEVICE, known, Chooser())
    assert (made.ending, policies(made)) == (SENT, [])
