"""What the kernel checks before it takes a packet in."""

from __future__ import annotations

from calico_debug.walk.reception import Reception, unreceivable
from calico_debug.walk.routing import Router
from tests.walk.worlds import CLIENT, OWN, SERVER, state


def _reception(sysctl: str = "") -> Reception:
    made = state(routes=[], rules=[], sysctl=sysctl)
    return Reception(made, Router(made))


def _refused(source: int, via: str, sysctl: str, leaving: str = "eth-s") -> str:
    return _reception(sysctl=sysctl).reverse_path_failure(4, source, SERVER, 0, via, leaving)


def test_reverse_paths() -> None:
    strict, loose = "net.ipv4.conf.all.rp_filter = 1\n", "net.ipv4.conf.eth-c.rp_filter = 2\n"
    assert _refused(SERVER, "eth-c", "") == ""
    assert "strict" in _refused(SERVER, "eth-c", strict)
    assert _refused(CLIENT, "eth-c", strict) == ""
    assert _refused(SERVER, "eth-c", loose) == ""
    assert "address of node1 itself" in _refused(OWN, "eth-s", "")
    assert _refused(OWN, "eth-s", "net.ipv4.conf.eth-s.accept_local = 1\n") == ""


def test_a_loose_check_needs_an_address_on_the_interface() -> None:
    bare = _reception(sysctl="net.ipv4.conf.cali1.rp_filter = 2\n")
    assert "cali1 has no address" in bare.reverse_path_failure(4, SERVER, CLIENT, 0, "cali1", "eth-c")


def test_martians() -> None:
    reception = _reception()
    assert "route_localnet" in reception.martian(4, 0x7F000001, SERVER, "eth-c")
    assert "route_localnet" in reception.martian(4, CLIENT, 0x7F000001, "eth-c")
    assert "no host's address" in reception.martian(4, 0xFFFFFFFF, SERVER, "eth-c")
    assert reception.martian(4, CLIENT, SERVER, "eth-c") == ""
    assert _reception(sysctl="net.ipv4.conf.all.route_localnet = 1\n").martian(4, 0x7F000001, SERVER, "eth-c") == ""


def test_what_ipv6_does_not_even_receive() -> None:
    client, server = (0xFD01 << 112) + 2, (0xFD02 << 112) + 2
    assert "destination ::1" in unreceivable(6, client, 1, "eth-c")
    assert "source ::1" in unreceivable(6, 1, server, "eth-c")
    assert "multicast" in unreceivable(6, (0xFF02 << 112) + 1, server, "eth-c")
    assert unreceivable(6, 1, 1, "lo") == ""
    assert unreceivable(6, client, server, "eth-c") == ""
    assert unreceivable(4, 1, 1, "eth-c") == ""


def test_forwarding_is_asked_by_interface() -> None:
    off = _reception(sysctl="net.ipv4.conf.eth-c.forwarding = 0\n")
    assert (off.forwards(4, "eth-c"), off.forwards(4, "eth-s")) == (False, True)
    six = "net.ipv6.conf.all.forwarding = 0\nnet.ipv6.conf.eth-c.force_forwarding = 1\n"
    assert (_reception(sysctl=six).forwards(6, "eth-c"), _reception(sysctl=six).forwards(6, "eth-s")) == (True, False)
