"""Header bits, translation of connections, and what the next node gets."""

from __future__ import annotations

from calico_debug.model.conntrack import STATE_BITS, STATUS_BITS
from calico_debug.model.values import Partial, unknown
from calico_debug.walk.packet import ICMP, TCP, TCP_FLAGS, UDP, Ends, Packet, Tracking
from tests.walk.worlds import CLIENT, SERVER, SERVICE, packet


def test_fields_of_ipv4_and_tcp() -> None:
    made = packet()
    assert made.field("network", 0, 4) == 4
    assert made.field("network", 72, 8) == TCP
    assert (made.field("network", 96, 32), made.field("network", 128, 32)) == (CLIENT, SERVER)
    assert (made.field("transport", 0, 16), made.field("transport", 16, 16)) == (20_000, 80)
    assert made.field("transport", 104, 8) == TCP_FLAGS["syn"]


def test_fields_of_ipv6_and_icmp() -> None:
    made = Packet(6, 58, 1, 2, icmp=(128, 0))
    assert (made.field("network", 48, 8), made.field("network", 192, 128)) == (58, 2)
    assert made.field("transport", 0, 16) == 128 << 8
    assert Packet(4, ICMP, 1, 2, icmp=(8, 0)).field("transport", 0, 8) == 8


def test_bits_that_nobody_gave_say_so() -> None:
    made = Packet(4, UDP, 1, 2, unknown(16, "the source port was not given"), 53)
    port, length = made.field("transport", 0, 16), made.field("network", 16, 16)
    beyond = made.field("transport", 160, 8)
    assert isinstance(port, Partial)
    assert port.why == "the source port was not given"
    assert isinstance(length, Partial)
    assert "length" in length.why
    assert isinstance(beyond, Partial)
    assert "beyond byte 20" in beyond.why


def test_new_addresses_are_read_back() -> None:
    made = packet()
    assert made.field("network", 128, 32) == SERVER
    made.readdress(Ends(CLIENT, SERVICE, 1, 2))
    assert (made.field("network", 128, 32), made.field("transport", 16, 16)) == (SERVICE, 2)


def test_translation_counts_only_when_it_changes_something() -> None:
    ends, back = Ends(1, 2, 10, 20), Ends(2, 1, 20, 10)
    tracking = Tracking(STATE_BITS["new"], ends, back)
    tracking.translate("dst", 2, 20)
    assert tracking.status == 0
    tracking.translate("dst", 3, 21)
    assert tracking.reply == Ends(3, 1, 21, 10)
    assert tracking.status == STATUS_BITS["dnat"]
    tracking.translate("src", 1, unknown(16, "kept where it can be"))
    assert tracking.status == STATUS_BITS["dnat"]
    tracking.translate("src", 9, 10)
    assert tracking.status == STATUS_BITS["dnat"] | STATUS_BITS["snat"]


def test_the_next_node_gets_the_headers_alone() -> None:
    made = packet()
    made.mark, made.tracking = 7, Tracking(8, made.ends(), made.ends())
    fresh = made.on_the_wire(keep_mark=False)
    assert (fresh.ends(), fresh.mark, fresh.tracking) == (made.ends(), 0, None)
    assert made.on_the_wire(keep_mark=True).mark == 7
