"""Routes behind fib expressions, and addresses that translation takes."""

from __future__ import annotations

import pytest

from calico_debug.model.routing import Interface
from calico_debug.walk.packet import Packet
from calico_debug.walk.routing import Router
from calico_debug.walk.surroundings import NodeSurroundings
from tests.walk.worlds import CLIENT, OWN, SERVER, SERVICE, packet, state

EAST, WEST = Interface("eth-c", 2), Interface("eth-s", 3)


def _surroundings() -> NodeSurroundings:
    made = state()
    return NodeSurroundings(made, Router(made))


def _fib(about: Packet, result: str, *selectors: str, hook: str = "prerouting", present: bool = False) -> object:
    return _surroundings().fib(about, hook, result, frozenset(selectors), present)


def _arrived() -> Packet:
    made = packet()
    made.incoming = EAST
    return made


@pytest.mark.parametrize(
    ("result", "selectors", "value"),
    [
        ("oif", ("saddr",), 2),
        ("oifname", ("daddr",), "eth-s"),
        ("oif", ("saddr", "iif"), 2),
        ("oif", ("daddr", "iif"), 0),
        ("type", ("daddr",), 1),
    ],
)
def test_lookups(result: str, selectors: tuple[str, ...], value: object) -> None:
    assert _fib(_arrived(), result, *selectors) == value


def test_presence() -> None:
    assert _fib(_arrived(), "oif", "saddr", "iif", present=True) == 1
    assert _fib(_arrived(), "oif", "daddr", "iif", present=True) == 0


def test_own_addresses_are_local_and_have_no_interface() -> None:
    made = packet(destination=OWN)
    made.incoming = EAST
    assert _fib(made, "type", "daddr") == 2
    assert _fib(made, "oif", "daddr") == 0


@pytest.mark.parametrize("hook", ["prerouting", "input"])
def test_what_comes_out_of_loopback_came_from_there(hook: str) -> None:
    made = packet()
    made.incoming = Interface("lo", 1)
    assert _fib(made, "oifname", "saddr", "iif", hook=hook) == "lo"


def test_masquerading_takes_the_outgoing_interface() -> None:
    made = packet(destination=SERVICE)
    made.outgoing = WEST
    assert _surroundings().masquerade_address(made) == 0x0A020001


def test_redirecting_takes_the_incoming_interface_or_loopback() -> None:
    assert _surroundings().redirect_address(_arrived()) == OWN
    assert _surroundings().redirect_address(packet(SERVER, CLIENT)) == 0x7F000001
    assert _surroundings().redirect_address(Packet(6, 6, 1, 2, 3, 4)) == 1
