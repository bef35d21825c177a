"""Trace events from bytes: what the kernel of Linux 6.18 sent, and what it might."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from calico_debug.decode.netlink_attributes import attribute, nested, string_attribute
from calico_debug.decode.nft_trace import ATTRIBUTES, KINDS, decode_event
from calico_debug.model.observation import Headers

IPV4 = bytes.fromhex("45000028cdb60000400600000af4010c0af4010a")
"""10.244.1.12 to 10.244.1.10, TCP, not a fragment."""
SYN = bytes.fromhex("4e2000500000000100000000500204000000 0000")
UDP = bytes.fromhex("4e200035000c0000")
IPV6 = bytes.fromhex("60000000 0008 3a 40 fd000244000100000000000000000012 fd000244000100000000000000000010")
ECHO = bytes.fromhex("8000000012340001")


def number(kind: str, value: int) -> bytes:
    return attribute(ATTRIBUTES[kind].number, value.to_bytes(8 if kind == "rule_handle" else 4))


def message(*parts: bytes, family: int = 2) -> bytes:
    place = string_attribute(1, "calico") + string_attribute(2, "filter-cali-FORWARD")
    return bytes([family, 0, 0, 0]) + place + number("id", 7) + b"".join(parts)


def verdict(code: int, chain: str = "") -> bytes:
    return nested(5, attribute(1, code.to_bytes(4, signed=True)) + (string_attribute(2, chain) if chain else b""))


def test_a_rule_that_drops() -> None:
    event = decode_event(message(number("type", 3), number("rule_handle", 103), verdict(0)))
    assert (event.family, event.table, event.chain, event.kind) == ("ip", "calico", "filter-cali-FORWARD", "rule")
    assert (event.packet, event.handle, event.verdict, event.target) == (7, 103, "drop", "")
    assert (event.headers, event.input_index, event.output_index, event.direction) == (None, None, None, "")


def test_a_jump_names_its_chain() -> None:
    event = decode_event(message(number("type", 3), number("rule_handle", 1), verdict(-3, "filter-cali-fw-x")))
    assert (event.verdict, event.target) == ("jump", "filter-cali-fw-x")


@pytest.mark.parametrize(
    ("code", "word"),
    [(-1, "continue"), (-4, "goto"), (-5, "return"), (1, "accept"), (0x10003, "queue"), (-9, "verdict -9")],
)
def test_verdicts(code: int, word: str) -> None:
    assert decode_event(message(number("type", 3), number("rule_handle", 1), verdict(code))).verdict == word


def test_a_rule_without_a_handle_is_the_end_of_a_chain() -> None:
    assert decode_event(message(number("type", 3), verdict(-1))).kind == "return"


def test_a_policy_says_its_verdict_itself() -> None:
    event = decode_event(message(number("type", 1), number("policy", 0)))
    assert (event.kind, event.verdict) == ("policy", "drop")


def test_an_unknown_type_stays_visible() -> None:
    assert 9 not in KINDS
    assert decode_event(message(number("type", 9))).kind == "type 9"


def test_interfaces_mark_and_direction() -> None:
    parts = [number(kind, value) for kind, value in (("iif", 4), ("oif", 5), ("mark", 0x80000), ("ct_direction", 1))]
    event = decode_event(message(number("type", 1), number("policy", 1), *parts))
    assert (event.input_index, event.output_index, event.mark, event.direction) == (4, 5, 0x80000, "reply")


A, B = ip_address("10.244.1.12"), ip_address("10.244.1.10")
A6, B6 = ip_address("fd00:244:1::12"), ip_address("fd00:244:1::10")
FRAGMENT = IPV4[:6] + b"\x00\x10" + IPV4[8:]
UDP4 = IPV4[:9] + b"\x11" + IPV4[10:]


@pytest.mark.parametrize(
    ("network", "transport", "headers"),
    [
        (IPV4, SYN, Headers(6, A, B, 20000, 80, 0x02)),
        (IPV4, SYN[:8], Headers(6, A, B, 20000, 80)),
        (IPV4, SYN[:3], Headers(6, A, B)),
        (FRAGMENT, SYN, Headers(6, A, B)),
        (UDP4, UDP, Headers(17, A, B, 20000, 53)),
        (IPV6, ECHO, Headers(58, A6, B6, icmp=(128, 0))),
        (IPV6[:6] + b"\x2c" + IPV6[7:], ECHO, Headers(44, A6, B6)),
        (IPV4[:19], SYN, None),
        (IPV6[:39], ECHO, None),
        (b"", b"", None),
    ],
)
def test_headers(network: bytes, transport: bytes, headers: Headers | None) -> None:
    parts = (attribute(8, network), attribute(9, transport))
    assert decode_event(message(number("type", 1), number("policy", 1), *parts)).headers == headers


@pytest.mark.parametrize("broken", [b"", b"\x02\0\0\0", b"\x63\0\0\0", message()[:-3], b"\x02\0\0\0" + number("id", 7)])
def test_what_is_malformed_raises(broken: bytes) -> None:
    with pytest.raises((ValueError, KeyError)):
        decode_event(broken)
