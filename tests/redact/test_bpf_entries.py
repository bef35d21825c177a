"""Entries of every map there is a layout for: nothing of the original is left, and look-ups find what they found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode.bpf_globals import TC_GLOBALS, XDP_GLOBALS, decode_tc_globals, decode_xdp_globals
from calico_debug.decode.bpf_keys import conntrack_key, ordered_key
from calico_debug.decode.bpf_layout_types import MapLayout, Role
from calico_debug.decode.bpf_layouts import BY_NAME
from calico_debug.decode.bpf_maps import decode_entry
from calico_debug.decode.bpf_structs import Kind, Layout
from calico_debug.errors import EvidenceError
from calico_debug.model.bpf import RouteTarget
from calico_debug.model.bpf_conntrack import ConntrackEntry, ConntrackKey
from calico_debug.model.bpf_objects import MapInfo, RawEntries
from calico_debug.redact.bpf_entries import LEFT_OUT, EntryRedactor
from calico_debug.redact.numbers import NumberMap
from calico_debug.redact.text import TextRedactor
from calico_debug.walk.bpf_sets import PrefixTrie
from tests.decode.bpf_samples import FILLABLE, IDS, draw, draw_key, map_info

KEY = bytes(range(32))
ENTRIES = 40
TEXT = TextRedactor(KEY, addresses=True, names=True, chains={True: {}, False: {}})
NUMBERS = NumberMap(KEY, names=True)
REDACTOR = EntryRedactor(TEXT, NUMBERS)
REST = ("type", "last_seen", "rst_seen", "tunnel_ip", "original_ip", "original_source_ip", "reverse_key")
"""Of a connection's entry."""
WRITTEN = [layout for layout in FILLABLE if layout.role not in LEFT_OUT]


def expected(value: Any, name: str = "") -> Any:
    """A typed entry as it should be afterwards; ends of connections are compared by what they mean."""
    addresses = TEXT.addresses
    assert addresses is not None
    if isinstance(value, IPv4Address | IPv6Address):
        return addresses.address(value)
    if isinstance(value, IPv4Network | IPv6Network):
        return addresses.network(value)
    if isinstance(value, ConntrackKey):
        return {expected_end(value, "a"), expected_end(value, "b")}, value.protocol
    if isinstance(value, ConntrackEntry):
        ends = [(expected(address), port) for address, port in (value.client, value.server)]
        rest = {name: expected(getattr(value, name)) for name in REST}
        return expected(value.key), ends, value.client_leg, value.server_leg, rest
    if is_dataclass(value):
        return {field.name: expected(getattr(value, field.name), field.name) for field in fields(value)}
    if isinstance(value, tuple):
        return tuple(expected(one, name) for one in value)
    if isinstance(value, str):
        return addresses.mac(value) if value.count(":") == 5 else TEXT.text(value, is_name=True)
    return NUMBERS.ip_set(value) if name == "set_id" else value


def expected_end(key: ConntrackKey, end: str) -> tuple[Any, int]:
    return expected(getattr(key, f"address_{end}")), getattr(key, f"port_{end}")


def plain(value: Any) -> Any:
    """A typed entry in the form of `expected`, as it is."""
    if isinstance(value, ConntrackKey):
        return {(value.address_a, value.port_a), (value.address_b, value.port_b)}, value.protocol
    if isinstance(value, ConntrackEntry):
        rest = {name: plain(getattr(value, name)) for name in REST}
        return plain(value.key), [value.client, value.server], value.client_leg, value.server_leg, rest
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return tuple(map(plain, value)) if isinstance(value, tuple) else value


def samples(layout: MapLayout) -> Iterator[tuple[bytes, bytes]]:
    rng = random.Random(f"{layout.name} {layout.value.size}")
    for number in range(ENTRIES):
        values = draw(layout.value, rng)
        if layout.role is Role.INTERFACES:
            values["name"] = f"nic{rng.randrange(10**6)}"
        yield layout.key.pack(draw_key(layout, rng, number)), layout.value.pack(values)


def secrets(layout: Layout, data: bytes) -> Iterator[bytes]:
    values = layout.unpack(data)
    variants = [field for _, variant in layout.variants for field in variant.fields]
    for field in (*layout.fields, *variants):
        if field.name in values and field.kind in (Kind.ADDRESS, Kind.MAC):
            yield data[field.offset : field.offset + field.size]
        elif field.name in values and field.kind is Kind.TEXT and values[field.name]:
            yield values[field.name].encode()
        elif field.name in ("set_id", "rule_id"):
            yield data[field.offset : field.offset + field.size]


def is_secret(data: bytes) -> bool:
    """Whether bytes tell anything: not so group MAC addresses, addresses that everybody has, and a few first bits."""
    addresses = TEXT.addresses
    assert addresses is not None
    if len(data) in (4, 16) and addresses.address(ip_address(data)).packed == data:
        return False
    return len(data.rstrip(b"\0")) > 2 and not (len(data) == 6 and data[0] & 1)


@pytest.mark.parametrize(
    "layout", WRITTEN, ids=[i for i, layout in zip(IDS, FILLABLE, strict=True) if layout in WRITTEN]
)
def test_every_entry_is_changed_and_means_the_same(layout: MapLayout) -> None:
    info = map_info(layout)
    for key, value in samples(layout):
        new_key, new_value = REDACTOR.entry(layout, key, value)
        for secret in (*secrets(layout.key, key), *secrets(layout.value, value)):
            if is_secret(secret):
                assert secret not in new_key + new_value
                assert secret[::-1] not in new_key + new_value
        stride = info.value_stride
        [before], [after] = (
            list(decode_entry(layout, info, k, v.ljust(stride, b"\0"))) for k, v in ((key, value), (new_key, new_value))
        )
        if isinstance(before, tuple):  # a rule and its count
            assert after == (NUMBERS.rule(before[0]), before[1])
        elif isinstance(before, ConntrackEntry):
            assert {*after.flag_words} - {"B-A"} == {*before.flag_words} - {"B-A"}
            assert compared(plain(after)) == compared(expected(before))
        elif not isinstance(getattr(before, "target", None), RouteTarget) or before.target.next_hop is not None:
            assert plain(after) == expected(before)


def compared(entry: tuple[Any, ...]) -> tuple[Any, ...]:
    """Of a packet's entry only the key has a meaning."""
    key, ends, client, server, rest = entry
    return (key, ends, client, server, rest) if client is not None else (key, rest)


def test_an_interface_of_a_route_is_no_address() -> None:
    layout = BY_NAME["cali_v4_routes"][-1]
    value = layout.value.pack({"flags": 0xC, "next_hop_or_ifindex": bytes((10, 0, 0, 1))})
    key = layout.key.pack({"prefix_length": 32, "address": ip_address("10.0.0.1")})
    assert REDACTOR.entry(layout, key, value)[1] == value


V4 = st.integers(0, (1 << 32) - 1).map(IPv4Address)
NETS = st.builds(lambda address, length: IPv4Network((address, length), strict=False), V4, st.integers(0, 32))


@given(st.lists(NETS, min_size=1, max_size=12), V4, st.integers(0, 31))
def test_the_longest_prefix_is_that_of_before(networks: list[IPv4Network], address: IPv4Address, near: int) -> None:
    layout = BY_NAME["cali_v4_ip_sets"][-1]
    asked = [address, IPv4Address(int(networks[0].network_address) ^ (1 << near))]

    def key(found: Any, length: int) -> bytes:
        return layout.key.pack({"prefix_length": 64 + length, "set_id": 7, "address": found})

    before = PrefixTrie(20, [key(one.network_address, one.prefixlen) for one in networks])
    value = layout.value.pack({"value": 1})
    changed = [REDACTOR.entry(layout, key(one.network_address, one.prefixlen), value)[0] for one in networks]
    after = PrefixTrie(20, changed)
    for one in asked:
        mapped = layout.key.pack({"prefix_length": 128, "set_id": NUMBERS.ip_set(7), "address": expected(one)})
        whole = layout.key.pack({"prefix_length": 128, "set_id": 7, "address": one})
        assert after.contains(mapped) == before.contains(whole)


def test_bits_behind_a_prefix_are_not_kept() -> None:
    layout = BY_NAME["cali_v4_routes"][-1]
    keys = [layout.key.pack({"prefix_length": 16, "address": ip_address(f"10.9.{n}.77")}) for n in (0, 8)]
    value = layout.value.pack({"flags": 1, "next_hop_or_ifindex": bytes(4)})
    assert len({REDACTOR.entry(layout, key, value)[0] for key in keys}) == 1


@given(V4, V4, st.integers(0, 65535), st.integers(0, 65535))
def test_connections_are_found_by_their_ends(one: IPv4Address, other: IPv4Address, sport: int, dport: int) -> None:
    layout = BY_NAME["cali_v4_ct4"][-1]
    value = layout.value.pack({"type": 0, "a_to_b_ifindex": 3, "b_to_a_ifindex": 4})
    key, _ = REDACTOR.entry(layout, conntrack_key(ordered_key(6, one, sport, other, dport)), value)
    assert key == conntrack_key(ordered_key(6, expected(one), sport, expected(other), dport))


@pytest.mark.parametrize("layout", TC_GLOBALS, ids=lambda layout: str(layout.size))
def test_settings_of_interfaces(layout: Layout) -> None:
    four = {name: ip_address(f"10.3.0.{n}").packed.ljust(16, b"x") for n, name in enumerate(HOST_FIELDS)}
    six = {name: ip_address(f"fd00:3::{n + 1}").packed for n, name in enumerate(HOST_FIELDS)}
    rest = {"interface": "secretnic".ljust(15, "-"), "jumps": (*range(40),), "flags": 7, "log_filter_jump": 0xFFFFFFFF}
    data = layout.pack({**four, **rest}) + layout.pack({**six, **rest})
    info = MapInfo(5, "tc_pream.rodata", "array", 4, len(data), 1)
    [batch] = REDACTOR.batches(info, [RawEntries(bytes(4), data, 1)])
    before, after = decode_tc_globals(data), decode_tc_globals(batch.values)
    for family in (4, 6):
        assert plain(after[family]) == expected(before[family])
    assert b"secretnic" not in batch.values
    assert b"\x0a\x03\x00" not in batch.values
    assert b"xxx" not in batch.values


HOST_FIELDS = ("host_ip", "interface_ip", "host_tunnel_ip")


def test_settings_of_xdp() -> None:
    data = XDP_GLOBALS.pack({"interface": "secretnic", "jumps": (*range(16),)}) * 2
    [batch] = REDACTOR.batches(MapInfo(5, "xdp_prea.rodata", "array", 4, 160, 1), [RawEntries(bytes(4), data, 1)])
    assert plain(decode_xdp_globals(batch.values)[4]) == expected(decode_xdp_globals(data)[4])


@pytest.mark.parametrize(
    ("info", "why"),
    [
        (MapInfo(1, "mine", "hash", 4, 4), "is not known"),
        (MapInfo(1, "cali_v4_ct9", "hash", 16, 99), "is version 9"),
        (MapInfo(1, "cali_v4_ct4", "hash", 16, 99), "keys of 16 and values of 99 bytes"),
        (MapInfo(1, "cali_state6", "percpu_array", 4, 512), "what is left of packets"),
        (MapInfo(1, ".rodata.str1.1", "array", 4, 77), "keys of 4"),
        (MapInfo(1, "tc_pream.rodata", "array", 4, 77), "settings of 77 bytes are not known"),
    ],
)
def test_maps_of_unknown_form_are_left_out(info: MapInfo, why: str) -> None:
    with pytest.raises(EvidenceError, match=why):
        next(REDACTOR.batches(info, []))


def test_padding_is_not_copied() -> None:
    layout = BY_NAME["cali_v4_nat_be"][-1]
    key = layout.key.pack({"service_id": 1, "ordinal": 2})
    value = layout.value.pack({"address": ip_address("10.0.0.1"), "port": 80})
    assert REDACTOR.entry(layout, key, value[:6] + b"ab")[1][6:] == bytes(2)
