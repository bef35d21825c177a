from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.decode.nft_netlink_normal import MatchContext, narrow, narrow_key, narrow_set
from calico_debug.model.nft import Bitwise, Constant, Element, Interval, Match, Meta, Payload, SetContent, SetPayload

if TYPE_CHECKING:
    from calico_debug.model.nft import Expression, Statement

DSCP = Bitwise(Payload("network", 8, 8), 0xFC, 0)
ECN = Bitwise(Payload("network", 8, 8), 0x03, 0)


def compared(family: str, *questions: tuple[Expression, str, int]) -> list[Statement]:
    context, statements = MatchContext(family), []
    for left, operator, right in questions:
        context.compare(statements, left, operator, right)
    return statements


def test_ports_loaded_at_once() -> None:
    tcp = (Meta("l4proto"), "==", 6)
    assert compared("ip", tcp, (Payload("transport", 0, 32), "==", 5 << 16 | 6))[1:] == [
        Match(Payload("transport", 0, 16), "==", 5),
        Match(Payload("transport", 16, 16), "==", 6),
    ]


def test_ports_that_differ_together_stay_together() -> None:
    whole = (Payload("transport", 0, 32), "!=", 5)
    assert compared("ip", (Meta("l4proto"), "==", 6), whole)[1:] == [Match(*whole)]


def test_prefix_of_whole_bytes() -> None:
    assert compared("ip", (Payload("network", 96, 8), "!=", 10)) == [
        Match(Bitwise(Payload("network", 96, 32), 0xFF000000, 0), "!=", 10 << 24)
    ]
    one_byte_of_a_port = (Payload("transport", 0, 8), "==", 5)
    assert compared("ip", one_byte_of_a_port) == [Match(*one_byte_of_a_port)]


def test_header_is_the_one_that_the_rule_asked_for() -> None:
    load = (Payload("network", 64, 64), "==", 0xFD << 56)
    assert compared("inet", load) == [Match(*load)]
    assert compared("inet", (Meta("nfproto"), "==", 10), load)[1:] == [
        Match(Bitwise(Payload("network", 64, 128), ((1 << 64) - 1) << 64, 0), "==", 0xFD << 120)
    ]


def test_range_of_two_comparisons() -> None:
    port = Payload("transport", 16, 16)
    assert compared("ip", (port, ">=", 5), (port, "<=", 9)) == [Match(port, "==", Interval(5, 9))]
    other = Payload("transport", 0, 16)
    assert len(compared("ip", (port, ">=", 5), (other, "<=", 9))) == 2


def test_field_within_bytes() -> None:
    assert narrow(DSCP, 0x20) == (Payload("network", 8, 6), 8)
    assert narrow(DSCP, 0x21) == (DSCP, 0x21)
    assert narrow(DSCP, Interval(0x20, 0x60)) == (Payload("network", 8, 6), Interval(8, 24))
    assert narrow_key(ECN) == Payload("network", 14, 2)
    assert narrow_key(DSCP) == DSCP


def test_set_for_a_field_within_bytes() -> None:
    content = SetContent((8,), {0x20: Element(0x20)}, (Element(Interval(0x40, 0x60)),))
    keys, moved = narrow_set([DSCP], content)
    assert keys == [Payload("network", 8, 6)]
    assert moved == SetContent((6,), {8: Element(8)}, (Element(Interval(16, 24)),))
    odd = SetContent((8,), {0x21: Element(0x21)})
    assert narrow_set([DSCP], odd) == ([DSCP], odd)


def test_bits_that_are_written_back_are_not_written() -> None:
    load = Payload("network", 0, 16)
    written = MatchContext("ip").set_payload(load, Bitwise(load, 0xFF03, 0x0020))
    assert written == SetPayload(Payload("network", 8, 6), Constant(8))
    flipped = Bitwise(load, 0xFFFF, 0x0001)
    assert MatchContext("ip").set_payload(load, flipped) == SetPayload(load, flipped)
