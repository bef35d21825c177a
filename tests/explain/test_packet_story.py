"""From events to what was observed."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from calico_debug.explain.packet_drops import drop_words
from calico_debug.explain.packet_story import MOST_PACKETS, Places, Story, flow_ends
from calico_debug.model.explanation import BackendOutcome, FlowEnd, FlowExplanation
from calico_debug.model.packet_event import DROPPED, RECEIVED, SENT, Ends, PacketEvent

HOME, CLIENT_POD, SERVER_POD = 1, 2, 3
PLACES = Places("node1", HOME, {CLIENT_POD: "red/cli1", SERVER_POD: "red/web1"}, {"caliweb": SERVER_POD})
FLOW = Ends(6, ip_address("10.244.1.12"), ip_address("10.244.1.10"), 20000, 80)
SYN, SYN_ACK, RST = 0x02, 0x12, 0x14


def event(kind: str, namespace: int, interface: str, packet: int = 1, **more: Any) -> PacketEvent:
    reply = more.get("reply", False)
    made = PacketEvent(
        time=0,
        kind=kind,
        packet=(packet, 0),
        namespace=namespace,
        interface=interface,
        interface_index=sum(interface.encode()),  # none is 0, as in the kernel
        length=60,
        mark=0,
        ends=FLOW.reversed() if reply else FLOW,
        flow=0,
        flags=SYN_ACK if reply else SYN,
    )
    return replace(made, **more)


REQUEST = [event(SENT, CLIENT_POD, "eth0"), event(RECEIVED, HOME, "calicli")]
DELIVERED = [*REQUEST, event(SENT, HOME, "caliweb"), event(RECEIVED, SERVER_POD, "eth0")]
LEFT = [*REQUEST, event(SENT, HOME, "eth0")]
DENIED = [*REQUEST, event(DROPPED, HOME, "calicli", reason="NETFILTER_DROP", place="nft_do_chain")]
ANSWER = [event(SENT, SERVER_POD, "eth0", 2, reply=True), event(RECEIVED, CLIENT_POD, "eth0", 2, reply=True)]
RESET = [replace(one, flags=RST) for one in ANSWER]
ERROR = [
    event(SENT, HOME, "calicli", 3, reply=True, about=True, icmp=(3, 13), flags=None, ends=replace(FLOW, protocol=1))
]


def told(*events: PacketEvent) -> tuple[str, str]:
    story = Story(PLACES)
    for one in events:
        story.add(one)
    witness = story.witness("2026-11-21T00:00:00Z")
    assert (witness.node, witness.at) == ("node1", "2026-11-21T00:00:00Z")
    return witness.verdict, witness.detail


@pytest.mark.parametrize(
    ("events", "verdict", "words"),
    [
        ([], "undetermined", "no packet of the flow was seen"),
        (DELIVERED, "allowed", "delivered to eth0 in red/web1"),
        ([*DELIVERED, *ANSWER], "allowed", "answers seen"),
        (DENIED, "denied", "dropped at calicli: NETFILTER_DROP in nft_do_chain (a rule of nftables or iptables)"),
        ([*DENIED, *ERROR], "rejected", "refused by 10.244.1.12: ICMP type 3 code 13"),
        ([*DENIED, *RESET], "rejected", "refused by 10.244.1.10: TCP reset"),
        ([*DELIVERED, *RESET], "allowed", "delivered to eth0 in red/web1; refused by 10.244.1.10: TCP reset"),
        (LEFT, "undetermined", "left node1 by eth0"),
        ([*LEFT, *ANSWER], "allowed", "left node1 by eth0; answers seen"),
        ([*LEFT, *ERROR], "rejected", "left node1 by eth0; refused"),
        (REQUEST, "undetermined", "received by calicli, and then not seen any more"),
        (REQUEST[:1], "undetermined", "sent by eth0 in red/cli1, and not seen to arrive on node1"),
        (DELIVERED[:3], "undetermined", "sent into red/web1 and not seen to arrive"),
        (ANSWER, "undetermined", "packet of the way back only"),
    ],
)
def test_verdicts(events: list[PacketEvent], verdict: str, words: str) -> None:
    found = told(*events)
    assert found[0] == verdict, found
    assert words in found[1]


def test_lost_events_are_told() -> None:
    story = Story(PLACES)
    for one in REQUEST:
        story.add(one)
    assert story.witness("", 3).detail.endswith("and then not seen any more (3 events were lost)")


def test_a_socket_that_does_not_take_a_packet_is_no_denial() -> None:
    refused = event(DROPPED, SERVER_POD, "eth0", reason="NO_SOCKET", place="tcp_v4_rcv")
    verdict, detail = told(*DELIVERED, refused, *RESET)
    assert verdict == "allowed"
    assert "where no socket took it: NO_SOCKET in tcp_v4_rcv (nothing listens there)" in detail


def test_an_answer_that_is_dropped() -> None:
    lost = [
        event(SENT, SERVER_POD, "eth0", 2, reply=True),
        event(DROPPED, HOME, "caliweb", 2, reply=True, reason="NETFILTER_DROP"),
    ]
    verdict, detail = told(*DELIVERED, *lost)
    assert verdict == "denied"
    assert detail.endswith("an answer dropped at caliweb: NETFILTER_DROP (a rule of nftables or iptables)")


def test_an_answer_that_the_clients_socket_drops_arrived() -> None:
    taken = event(DROPPED, CLIENT_POD, "eth0", 2, reply=True, reason="TCP_RESET")
    assert told(*DELIVERED, *ANSWER, taken)[0] == "allowed"


def purged(namespace: int, interface: str, packet: int, **more: Any) -> PacketEvent:
    return event(DROPPED, namespace, interface, packet, reason="QUEUE_PURGE", **more)


def test_what_a_socket_has_not_read_when_it_is_closed_arrived() -> None:
    closed = purged(SERVER_POD, "", 1, place="sk_stream_kill_queues")
    assert told(*DELIVERED, *ANSWER, closed) == ("allowed", "packet delivered to eth0 in red/web1; answers seen")
    closed = purged(CLIENT_POD, "", 2, reply=True, place="sk_stream_kill_queues")
    assert told(*DELIVERED, *ANSWER, closed)[0] == "allowed"
    # A socket of the node itself.
    assert told(*REQUEST, purged(HOME, "", 1)) == ("allowed", "packet delivered to calicli")


def test_what_a_program_hands_into_a_pod_is_first_seen_where_its_socket_is_closed() -> None:
    # bpf_redirect_peer() of the eBPF dataplane, which tells no tracepoint: received by eth0, then in the pod's queue.
    arrived = event(RECEIVED, HOME, "eth0")
    closed = purged(SERVER_POD, "", 1, place="sk_stream_kill_queues")
    assert told(arrived, closed) == ("allowed", "packet delivered to red/web1")
    answer = event(RECEIVED, HOME, "eth0", 2, reply=True)
    closed = purged(CLIENT_POD, "", 2, reply=True, place="sk_stream_kill_queues")
    assert told(*LEFT, answer, closed) == ("allowed", "packet left node1 by eth0; answers seen")
    # An interface of the same name in the pod is another one, and packets wait there for a neighbour.
    assert told(arrived, purged(SERVER_POD, "eth0", 1, place="neigh_destroy"))[0] == "denied"


def test_queues_on_the_way_are_no_sockets() -> None:
    waited = purged(HOME, "caliweb", 1, place="neigh_destroy")
    assert told(*REQUEST, waited)[0] == "denied"
    assert told(*LEFT, purged(HOME, "eth0", 1, place="skb_queue_purge_reason"))[0] == "denied"


def test_copies_for_raw_sockets_are_no_packets_of_the_flow() -> None:
    copy = purged(SERVER_POD, "eth0", 8, place="skb_queue_purge_reason")
    assert told(*DELIVERED, copy) == ("allowed", "packet delivered to eth0 in red/web1")
    assert told(copy) == ("undetermined", "no packet of the flow was seen")


def test_some_answers_are_dropped() -> None:
    large = [
        event(SENT, SERVER_POD, "eth0", 3, reply=True),
        event(DROPPED, HOME, "caliweb", 3, reply=True, reason="PKT_TOO_BIG"),
    ]
    verdict, detail = told(*DELIVERED, *ANSWER, *large)
    assert verdict == "undetermined"
    assert "1 of 2 answers dropped at caliweb: PKT_TOO_BIG" in detail


def test_packets_that_fare_differently() -> None:
    other = [replace(one, packet=(7, 0)) for one in DENIED]
    verdict, detail = told(*DELIVERED, *other)
    assert verdict == "undetermined"
    assert "delivered" in detail
    assert "dropped" in detail


def test_equal_outcomes_are_counted() -> None:
    other = [replace(one, packet=(7, 0)) for one in DENIED]
    assert told(*DENIED, *other)[1].startswith("2 packets dropped at calicli")


def test_memory_that_is_used_again_is_another_packet() -> None:
    story = Story(PLACES)
    assert [story.add(one) for one in [*DELIVERED, *DELIVERED]] == [1, 1, 1, 1, 2, 2, 2, 2]
    assert [story.add(one) for one in [*DENIED, *DENIED]] == [3, 3, 3, 4, 4, 4]
    assert (story.packets, story.events) == (4, 14)


def test_packets_beyond_the_limit_are_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_PACKETS > 1000
    monkeypatch.setattr("calico_debug.explain.packet_story.MOST_PACKETS", 1)
    story = Story(PLACES)
    assert story.add(DELIVERED[0]) == 1
    assert story.add(replace(DELIVERED[0], packet=(9, 9))) == 0
    assert (story.events, story.packets) == (2, 1)


def test_the_answer_to_a_probe_that_resets_what_it_opened() -> None:
    """As Linux 6.18 reports them: the first is dropped while it waits, the other behind the route, at ``lo``."""
    waited = event(DROPPED, SERVER_POD, "eth0", reason="NOT_SPECIFIED", place="tcp_v4_rcv")
    reset = [replace(one, flags=RST, packet=(9, 0)) for one in DELIVERED]
    taken = event(DROPPED, SERVER_POD, "lo", 9, reason="TCP_RESET", place="tcp_rcv_state_process")
    verdict, detail = told(*DELIVERED, waited, *ANSWER, *reset, taken)
    assert (verdict, detail) == ("allowed", "2 packets delivered to eth0 in red/web1; answers seen")
    # Where programs redirect packets straight into the pod, nothing was seen of them there.
    assert "packet delivered to red/web1" in told(*DELIVERED, *ANSWER, *reset[:2], taken)[1]
    full = event(DROPPED, SERVER_POD, "eth0", reason="SOCKET_RCVBUFF", place="udp_queue_rcv_one_skb")
    assert "delivered at eth0 in red/web1, where a socket dropped it: SOCKET_RCVBUFF" in told(*DELIVERED, full)[1]


def test_packets_of_a_connection_that_is_there() -> None:
    going = [replace(one, flags=0x10) for one in DELIVERED]
    assert told(*going)[1].endswith("; none of them opens a connection")
    assert "none of them" not in told(*going, *[replace(one, packet=(9, 0)) for one in DELIVERED])[1]


def test_a_source_that_is_not_the_pods() -> None:
    addresses = {"calicli": ["10.244.1.99"], "eth0": ["10.0.0.2"]}
    places = replace(PLACES, leads={"calicli": CLIENT_POD}, addresses=addresses)
    spoofed = event(DROPPED, HOME, "calicli", reason="TC_INGRESS")
    assert places.foreign_source(spoofed) == "red/cli1"
    assert drop_words(spoofed, places).endswith("; its source is no address of red/cli1, where it came from")
    # To the pod, from it, elsewhere, and where nothing is known.
    assert not places.foreign_source(replace(spoofed, ends=replace(FLOW, destination=ip_address("10.244.1.99"))))
    assert not places.foreign_source(replace(spoofed, ends=replace(FLOW, source=ip_address("10.244.1.99"))))
    assert not places.foreign_source(replace(spoofed, ends=replace(FLOW, source=ip_address("169.254.7.7"))))
    assert not places.foreign_source(replace(spoofed, interface="eth0"))
    assert not PLACES.foreign_source(spoofed)
    story = Story(places)
    for one in (*REQUEST, spoofed):
        story.add(one)
    assert story.witness("").detail.endswith("its source is no address of red/cli1, where it came from")


def test_places() -> None:
    assert PLACES.of(event(SENT, HOME, "")) == "no interface"
    assert PLACES.of(event(SENT, 77, "eth1")) == "eth1 in namespace 77"


def test_ends_before_and_behind_translation() -> None:
    explanation = FlowExplanation(
        "tcp",
        FlowEnd("10.244.1.12"),
        FlowEnd("10.96.1.1", 80),
        "allowed",
        backends=(BackendOutcome("10.244.2.13", 8080, "allowed"), BackendOutcome("10.244.2.14", 8080, "allowed")),
    )
    assert [(str(e.source), e.source_port, str(e.destination), e.destination_port) for e in flow_ends(explanation)] == [
        ("10.244.1.12", 0, "10.96.1.1", 80),
        ("10.244.1.12", 0, "10.244.2.13", 8080),
        ("10.244.1.12", 0, "10.244.2.14", 8080),
    ]


def test_a_protocol_that_has_only_a_number() -> None:
    explanation = FlowExplanation("47", FlowEnd("10.0.0.1"), FlowEnd("10.0.0.2"), "allowed")
    assert flow_ends(explanation) == (Ends(47, ip_address("10.0.0.1"), ip_address("10.0.0.2")),)
