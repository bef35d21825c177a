"""The bytes that the tracing program gives and takes."""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import IPv4Address, ip_address

import pytest

from calico_debug.decode.packet_events import (
    ADDRESS_BITS,
    ANY_PEER,
    ANY_PORTS,
    ANY_SOURCE_PORT,
    DROPS_ONLY,
    EVENT,
    FULL,
    SETTINGS,
    TOTALS,
    TUPLE,
    address_bits,
    decode_event,
    decode_losses,
    encode_ends,
    encode_settings,
    filter_entries,
    mixed,
    reason_name,
)
from calico_debug.model.packet_event import Ends, Losses, PacketEvent, everything_of

CLIENT, SERVER = ip_address("10.244.1.10"), ip_address("10.244.2.11")
FLOW = Ends(6, CLIENT, SERVER, 0, 80)
SIX = Ends(58, ip_address("fd00::1"), ip_address("fd00::2"))
REASONS = {8: "SKB_DROP_REASON_NETFILTER_DROP", 1: "SKB_CONSUMED"}


def raw(
    kind: int = 1,
    which: int = 0,
    version: int = 4,
    protocol: int = 6,
    how: int = 1,
    answers: tuple[int, int, int] = (2, 0, 0),
    data: bytes = b"",
) -> bytes:
    source, destination = (CLIENT, SERVER) if version == 4 else (SIX.source, SIX.destination)
    return (
        EVENT.pack(
            *(5_000, 0xFFFF888800000000, 0xFFFFFFFF81000104),
            *(4026531840, 7, 60, 0x10000, 8, 0xABCD, kind, which, b"cali12345\0junk"),
            *(source.packed.ljust(16, b"\0"), destination.packed.ljust(16, b"\0")),
            *(40000, 80, protocol, version, 0, how, *answers, len(data), 0),
        )
        + data
    )


def decoded(data: bytes, filtered: bool = True) -> PacketEvent:
    return decode_event(
        data, boot=1_000_000, filtered=filtered, reasons=REASONS, place={0xFFFFFFFF81000104: "nft_do_chain"}.__getitem__
    )


def test_sizes_are_those_of_the_program() -> None:
    """struct event up to its data, struct tuple, settings and totals of records.bpf.h."""
    assert (EVENT.size, TUPLE.size, SETTINGS.size, TOTALS.size) == (116, 40, 1064, 56)


def test_a_received_packet() -> None:
    event = decoded(raw(data=b"E\0\0<"))
    assert event == PacketEvent(
        time=1_005_000,
        kind="received",
        packet=(0xFFFF888800000000, 0xABCD),
        namespace=4026531840,
        interface="cali12345",
        interface_index=7,
        length=60,
        mark=0x10000,
        ends=Ends(6, CLIENT, SERVER, 40000, 80),
        flow=0,
        flags=2,
        data=b"E\0\0<",
    )


def test_a_drop_has_its_reason_and_its_place() -> None:
    event = decoded(raw(kind=3, which=5))
    assert (event.kind, event.reason, event.place) == ("dropped", "NETFILTER_DROP", "nft_do_chain")
    assert (event.flow, event.reply) == (2, True)


def test_how_a_packet_was_recognised() -> None:
    event = decoded(raw(how=2))
    assert (event.followed, event.tunnelled, event.about) == (True, False, False)
    event = decoded(raw(how=1 | 4 | 8, protocol=1, answers=(0, 3, 4)))
    assert (event.followed, event.tunnelled, event.about) == (False, True, True)
    assert (event.flags, event.icmp) == (None, (3, 4))


def test_ipv6() -> None:
    event = decoded(raw(version=6, protocol=58, answers=(0, 128, 0)))
    assert (event.ends.source, event.ends.destination) == (SIX.source, SIX.destination)
    assert event.icmp == (128, 0)


def test_without_a_filter_there_is_no_flow() -> None:
    event = decoded(raw(kind=3, which=1), filtered=False)
    assert (event.flow, event.reply) == (None, False)


@pytest.mark.parametrize("data", [b"", raw()[:-1], raw(kind=9), raw(version=0)])
def test_what_is_not_understood(data: bytes) -> None:
    with pytest.raises(ValueError, match="event of"):
        decoded(data)


def test_reasons_without_a_name() -> None:
    assert reason_name(8, REASONS) == "NETFILTER_DROP"
    assert reason_name(1, REASONS) == "CONSUMED"
    assert reason_name(99, REASONS) == "reason 99"
    assert reason_name(0x20003, REASONS) == "reason 3 of subsystem 2"


def test_the_filter_has_both_directions() -> None:
    entries = filter_entries([FLOW, SIX])
    assert {key: struct.unpack("=I", value)[0] for key, value in entries.items()} == {
        encode_ends(FLOW): 0,
        encode_ends(SIX): 2,
        encode_ends(FLOW.reversed()): 1,
        encode_ends(SIX.reversed()): 3,
    }


def test_a_flow_to_itself_is_a_request() -> None:
    same = Ends(17, CLIENT, CLIENT)
    assert filter_entries([same]) == {encode_ends(same): struct.pack("=I", 0)}


def test_settings_of_a_filter() -> None:
    shapes, mode, port, data, *_ = SETTINGS.unpack(encode_settings([FLOW], vxlan_port=4789, data=9000))
    assert (shapes, mode, port, data) == (ANY_SOURCE_PORT | 4, 0, 4789, 2048)
    both = [Ends(6, CLIENT, SERVER, 1, 2), SIX]
    assert SETTINGS.unpack(encode_settings(both))[0] == FULL | ANY_PORTS


def test_everything_of_an_address() -> None:
    """What it sends and what it gets, whatever the protocol; numbers go on behind those before."""
    lone = everything_of(CLIENT)
    found = {key: struct.unpack("=I", value)[0] for key, value in filter_entries([lone], 5).items()}
    assert found == {encode_ends(lone): 10, encode_ends(lone.reversed()): 11}
    assert encode_ends(lone) == CLIENT.packed.ljust(16, b"\0") + bytes(16) + bytes(5) + b"\4" + bytes(2)
    assert encode_ends(lone.reversed())[:16] == bytes(16)
    assert everything_of(SIX.source).destination.version == 6
    shapes, mode, *_ = SETTINGS.unpack(encode_settings([lone, FLOW]))
    assert (shapes, mode) == (ANY_PEER | ANY_SOURCE_PORT | 4, 0)


def bits(*flows: Ends) -> set[int]:
    """Places of the bits that are set."""
    words = struct.unpack(f"={ADDRESS_BITS // 64}Q", address_bits(flows))
    return {at * 64 + bit for at, word in enumerate(words) for bit in range(64) if word >> bit & 1}


def test_bits_of_addresses() -> None:
    """The same both ways, with a port where there is one, and one for each of an address of which all is wanted."""
    assert bits() == set()
    assert bits(FLOW) == bits(FLOW.reversed())
    assert bits(FLOW) != bits(replace(FLOW, destination_port=0, source_port=0))
    assert bits(FLOW, SIX) == bits(FLOW) | bits(SIX)
    assert bits(everything_of(CLIENT)) == {mixed(CLIENT.packed) % ADDRESS_BITS}


def test_bits_are_spread() -> None:
    """Neighbours differ: the more bits collide, the more packets of others are looked up for nothing."""
    found = {mixed(IPv4Address(0x0AF40100 + number).packed) % ADDRESS_BITS for number in range(256)}
    assert len(found) > 200


def test_settings_before_anything_is_looked_for() -> None:
    assert SETTINGS.unpack(encode_settings([]))[:2] == (0, 0)


def test_settings_of_all_drops() -> None:
    _, mode, _, _, flows, purged, *_ = SETTINGS.unpack(encode_settings(None, purged=88))
    assert (mode, flows, purged) == (DROPS_ONLY, 0, 88)


@pytest.mark.parametrize(("rate", "price", "burst"), [(0, 0, 0), (1, 10**9, 4 * 10**9), (50, 2 * 10**7, 4 * 10**9)])
def test_the_price_of_an_event(rate: int, price: int, burst: int) -> None:
    """In nanoseconds, and what may be saved for events: four seconds."""
    assert SETTINGS.unpack(encode_settings([FLOW], rate=rate))[6:8] == (price, burst)


def test_losses_are_summed() -> None:
    rows = TOTALS.pack(10, 1, 2, 3, 99, 99, 99) + TOTALS.pack(5, 0, 1, 0, 99, 99, 99)
    losses = decode_losses(rows, 4)
    assert losses == Losses(15, 1, 3, 3, 4)
    assert losses.lost == 4
