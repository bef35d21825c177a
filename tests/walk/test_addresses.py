"""Kinds of addresses, and what interfaces lend to packets."""

from __future__ import annotations

from calico_debug.walk.addresses import Addresses
from calico_debug.walk.routing import Question, Router
from tests.walk.worlds import OWN, SERVER, state


def _addresses() -> Addresses:
    made = state(routes=[], rules=[])
    return Addresses(made, Router(made))


def test_address_types() -> None:
    addresses = _addresses()

    def kind(address: int, device: str = "") -> str:
        return addresses.address_type(4, address, device, Question(4, address, 0, 0))

    assert kind(OWN) == "local"
    assert (kind(OWN, "eth-c"), kind(OWN, "eth-s")) == ("local", "unicast")
    assert kind(0x0A0100FF) == "broadcast"
    assert kind(0x00000001) == "broadcast"
    assert kind(0xE0000001) == "multicast"
    assert kind(SERVER) == "unicast"


def test_addresses_that_interfaces_lend() -> None:
    addresses = _addresses()
    assert addresses.interface_address(4, "eth-s", SERVER) == 0x0A020001
    # Loopback's own address stays at home: another interface's is taken.
    assert addresses.interface_address(4, "lo", None) == OWN
