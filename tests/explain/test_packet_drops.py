"""Why the kernel dropped a packet."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from calico_debug.explain.packet_drops import at_socket, drop_words, on_the_way
from calico_debug.explain.packet_story import Places
from calico_debug.model.packet_event import DROPPED, Ends, PacketEvent

PLACES = Places("node1", 1)
ENDS = Ends(6, ip_address("10.244.1.12"), ip_address("10.244.1.10"), 20000, 80)
EVENT = PacketEvent(0, DROPPED, (1, 0), 1, "calicli", 7, 60, 0, ENDS, 0)


@pytest.mark.parametrize(
    ("reason", "place", "arrived"),
    [
        ("NO_SOCKET", "tcp_v4_rcv", True),
        ("TCP_RESET", "tcp_rcv_state_process", True),
        ("NOT_SPECIFIED", "tcp_v4_rcv", True),
        ("NOT_SPECIFIED", "ip_error", False),
        ("TC_EGRESS", "__dev_queue_xmit", False),
        ("NETFILTER_DROP", "nft_do_chain", False),
    ],
)
def test_whether_it_had_arrived(reason: str, place: str, arrived: bool) -> None:
    dropped = replace(EVENT, reason=reason, place=place)
    assert at_socket(dropped) is arrived
    assert on_the_way(dropped) is not arrived


def test_an_emptied_queue_tells_neither() -> None:
    purged = replace(EVENT, reason="QUEUE_PURGE", place="sk_stream_kill_queues")
    assert not at_socket(purged)
    assert not on_the_way(purged)


def test_words() -> None:
    dropped = replace(EVENT, reason="NOT_SPECIFIED", place="ip_error")
    assert drop_words(dropped, PLACES) == "NOT_SPECIFIED in ip_error (no route there, or one that discards)"
    assert drop_words(replace(dropped, reason="reason 99", place=""), PLACES) == "reason 99"
