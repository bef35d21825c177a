"""Keys as Calico's programs build them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode.bpf_keys import conntrack_key, ordered_key, prefix_key
from calico_debug.decode.bpf_layouts import BY_NAME
from calico_debug.decode.bpf_layouts_conntrack import key_layout
from calico_debug.model.bpf_conntrack import ConntrackKey

A = ip_address


@pytest.mark.parametrize(
    ("source", "destination", "first"),
    [
        # As little-endian words: 10.0.0.2 is 0x0200000a, 172.30.0.1 is 0x01001eac.
        (("10.0.0.2", 1), ("172.30.0.1", 2), "172.30.0.1"),
        (("10.0.0.1", 1), ("10.0.0.2", 2), "10.0.0.1"),
        (("10.0.1.0", 1), ("10.2.0.0", 2), "10.2.0.0"),
        # The first word of an IPv6 address counts most.
        (("fd00::ff", 1), ("fd01::", 2), "fd00::ff"),
        (("fd00:0:0:1::", 1), ("fd00::1:0:0", 2), "fd00::1:0:0"),
    ],
)
def test_ends_are_ordered_by_little_endian_words(
    source: tuple[str, int], destination: tuple[str, int], first: str
) -> None:
    key = ordered_key(6, A(source[0]), source[1], A(destination[0]), destination[1])
    assert key.address_a == A(first)
    assert ordered_key(6, A(destination[0]), destination[1], A(source[0]), source[1]) == key


def test_the_same_address_is_ordered_by_port() -> None:
    assert ordered_key(6, A("10.0.0.1"), 9, A("10.0.0.1"), 8) == ConntrackKey(6, A("10.0.0.1"), A("10.0.0.1"), 8, 9)


addresses = st.ip_addresses(v=4)
ports = st.integers(0, 65535)


@given(addresses, ports, addresses, ports)
def test_both_directions_have_one_key(a: object, sport: int, b: object, dport: int) -> None:
    one = ordered_key(17, a, sport, b, dport)  # type: ignore[arg-type]
    other = ordered_key(17, b, dport, a, sport)  # type: ignore[arg-type]
    assert one == other
    assert key_layout(4).unpack(conntrack_key(one))["port_a"] in (sport, dport)


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("cali_v4_nat_fe3", 88),
        ("cali_v6_nat_fe3", 280),
        ("cali_v4_ip_sets", 128),
        ("cali_v6_ip_sets", 224),
        ("cali_v4_routes", 32),
        ("cali_v6_routes", 128),
        ("cali_v4_fsafes2", 64),
        ("cali_v6_sprefix", 160),
    ],
)
def test_prefixes_of_lookups(name: str, bits: int) -> None:
    layout = BY_NAME[name][0]
    assert layout.key.unpack(prefix_key(layout))["prefix_length"] == bits
