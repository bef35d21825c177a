"""Addresses keep their neighbours, and what is special stays special."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.redact.addresses import SCRAMBLED, SPECIAL, Address, AddressMap

MAP = AddressMap(bytes(range(32)))
ADDRESSES = st.ip_addresses(v=4) | st.ip_addresses(v=6)
PAIRS = st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)) | st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6))


def shared(one: Address, other: Address) -> int:
    return one.max_prefixlen - (int(one) ^ int(other)).bit_length()


def embeds(address: Address) -> bool:
    return isinstance(address, IPv6Address) and any(
        address in ip_network(text) for text in ("::/96", "::ffff:0:0/96", "64:ff9b::/96")
    )


@given(PAIRS)
def test_as_many_leading_bits_are_shared(pair: tuple[Address, Address]) -> None:
    if not any(map(embeds, pair)):
        assert shared(MAP.address(pair[0]), MAP.address(pair[1])) == shared(*pair)


@given(ADDRESSES, st.integers(0, 128))
def test_networks_hold_what_they_held(address: Address, length: int) -> None:
    network = ip_network((int(address).to_bytes(address.max_prefixlen // 8), min(length, address.max_prefixlen)), False)
    if not embeds(address):
        assert MAP.address(address) in MAP.network(network)
        assert MAP.network(network).prefixlen == network.prefixlen


@given(ADDRESSES)
def test_special_networks_are_closed(address: Address) -> None:
    for text in (*SPECIAL, *SCRAMBLED):
        network = ip_network(text)
        if network.version == address.version:
            assert (MAP.address(address) in network) is (address in network)


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0/8",
        "127.0.0.1",
        "169.254.1.1",
        "224.0.0.5",
        "255.255.255.255",
        "255.255.0.0",
        "0.0.0.0/0",
        "::",
        "::1",
        "::/0",
        "ff02::1",
        "fe80::ecee:eeff:feee:eeee",
        "fe80::/10",
    ],
)
def test_kept(text: str) -> None:
    assert MAP.text(text) == text


@pytest.mark.parametrize(
    "text", ["10.0.0.1", "172.30.0.11", "192.168.1.1", "8.8.8.8", "fd00::1", "2001:db8::7", "fe80::1"]
)
def test_not_kept(text: str) -> None:
    found = {AddressMap(bytes([number]) * 32).text(text) for number in range(8)}
    assert len(found) > 4


def test_addresses_in_other_addresses() -> None:
    inner = MAP.address(IPv4Address("10.1.2.3"))
    assert MAP.address(ip_address("::ffff:10.1.2.3")) == ip_address(f"::ffff:{inner}")
    assert MAP.address(ip_address("64:ff9b::10.1.2.3")) == ip_address(f"64:ff9b::{inner}")


def test_text() -> None:
    network = MAP.network(IPv4Network("10.1.2.0/24"))
    assert MAP.text("10.1.2.0/24") == str(network)
    assert MAP.text("10.1.2.9/24") == f"{MAP.address(IPv4Address('10.1.2.9'))}/24"
    assert MAP.text("10.1.2.9/80") is None
    assert MAP.text("node1") is None


def test_macs() -> None:
    assert MAP.mac("EE:ee:ee:ee:ee:ee") == "EE:ee:ee:ee:ee:ee"
    assert MAP.mac("33:33:00:00:00:01") == "33:33:00:00:00:01"
    mapped = MAP.mac("02:42:ac:11:00:02")
    assert mapped == MAP.mac("02:42:AC:11:00:02") != "02:42:ac:11:00:02"
    assert int(mapped[:2], 16) & 3 == 2
