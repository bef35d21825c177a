"""Rules, tables, longest prefixes, refusals and the checks on the way in."""

from __future__ import annotations

import pytest

from calico_debug.model.values import unknown
from calico_debug.walk.choices import Chooser
from calico_debug.walk.context import Undecided
from calico_debug.walk.routing import Question, Router, refusal, unreceivable
from tests.walk.worlds import CLIENT, OWN, SERVER, SERVICE, state

FAR = 0x0A320107  # 10.50.1.7


def _router(
    routes: list[dict[str, object]] | None = None, rules: list[dict[str, object]] | None = None, **given: str
) -> Router:
    return Router(state(routes=routes or [], rules=rules or [], **given))


def _way(router: Router, destination: int = FAR, mark: object = 0, incoming: str = "eth-c") -> tuple[str, str]:
    way = router.look_up(Question(4, destination, CLIENT, mark, incoming))  # type: ignore[arg-type]
    return (way.type, way.interface) if way else ("", "")


def test_the_longest_prefix_wins_and_then_the_lowest_metric() -> None:
    router = _router(
        [
            {"dst": "10.50.0.0/16", "dev": "eth-s"},
            {"dst": "10.50.1.0/24", "dev": "eth-s", "metric": 9},
            {"dst": "10.50.1.0/24", "dev": "eth-c", "metric": 5},
        ]
    )
    assert _way(router) == ("unicast", "eth-c")
    assert _way(router, SERVICE) == ("unicast", "eth-s")
    assert _way(router, OWN) == ("local", "eth-c")


@pytest.mark.parametrize(
    ("kind", "answer"), [("blackhole", ""), ("unreachable", "host-unreachable"), ("prohibit", "admin-prohibited")]
)
def test_refused_routes(kind: str, answer: str) -> None:
    way = _router([{"type": kind, "dst": "10.50.0.0/16"}]).look_up(Question(4, FAR, CLIENT, 0))
    assert way is not None
    assert (way.type, refusal(4, way)) == (kind, answer)


@pytest.mark.parametrize(
    ("kind", "answer"), [("blackhole", ""), ("unreachable", "net-unreachable"), ("prohibit", "admin-prohibited")]
)
def test_refused_rules(kind: str, answer: str) -> None:
    way = _router(rules=[{"priority": 5, "src": "all", "action": kind}]).look_up(Question(4, FAR, CLIENT, 0))
    assert way is not None
    assert (way.type, refusal(4, way)) == (kind, answer)


def test_refusals_without_a_route() -> None:
    assert (refusal(4, None), refusal(6, None)) == ("net-unreachable", "no-route")


def test_throw_leaves_the_table() -> None:
    rules: list[dict[str, object]] = [{"priority": 5, "src": "all", "table": "100"}]
    router = _router(
        [
            {"type": "throw", "dst": "10.50.1.0/24", "table": "100"},
            {"dst": "10.0.0.0/8", "dev": "eth-c", "table": "100"},
        ],
        rules,
    )
    assert _way(router) == ("unicast", "eth-s")
    assert _way(router, SERVICE) == ("unicast", "eth-c")


def test_short_prefixes_are_suppressed_but_not_refusals() -> None:
    rules: list[dict[str, object]] = [{"priority": 5, "src": "all", "table": "100", "suppress_prefixlen": 8}]
    assert _way(_router([{"dst": "10.0.0.0/8", "dev": "eth-c", "table": "100"}], rules)) == ("unicast", "eth-s")
    assert _way(_router([{"type": "blackhole", "dst": "10.0.0.0/8", "table": "100"}], rules)) == ("blackhole", "")


def test_rules_select_by_mark_source_and_interface() -> None:
    table: list[dict[str, object]] = [{"dst": "default", "dev": "eth-c", "table": "100"}]
    marked = _router(table, [{"priority": 5, "src": "all", "fwmark": "0x10", "fwmask": "0xf0", "table": "100"}])
    assert (_way(marked, mark=0x1F)[1], _way(marked, mark=0x2F)[1]) == ("eth-c", "eth-s")
    inverted = _router(table, [{"priority": 5, "not": None, "src": "10.1.0.0", "srclen": 24, "table": "100"}])
    assert _way(inverted)[1] == "eth-s"
    arriving = _router(table, [{"priority": 5, "src": "all", "iif": "eth-s", "table": "100"}])
    assert (_way(arriving, incoming="eth-s")[1], _way(arriving)[1]) == ("eth-c", "eth-s")


def test_goto_skips_rules() -> None:
    rules: list[dict[str, object]] = [
        {"priority": 5, "src": "all", "goto": 32766},
        {"priority": 6, "src": "all", "action": "blackhole"},
    ]
    assert _way(_router(rules=rules)) == ("unicast", "eth-s")


def test_what_is_open_or_not_understood_is_undecided() -> None:
    with pytest.raises(Undecided, match="mark that is open: from outside"):
        _way(
            _router(rules=[{"priority": 5, "src": "all", "fwmark": "0x1", "table": "100"}]),
            mark=unknown(32, "from outside"),
        )
    for inverted in ({}, {"not": None}):
        with pytest.raises(Undecided, match="uidrange"):
            _way(_router(rules=[{"priority": 5, "src": "all", "uidrange": "1-5", "table": "100", **inverted}]))
    with pytest.raises(Undecided, match="type of service"):
        _way(_router([{"dst": "10.50.0.0/16", "dev": "eth-c", "tos": "0x10"}]))


def test_next_hops_are_a_question() -> None:
    hops = [
        {"dev": "eth-c", "gateway": "10.1.0.9"},
        {"dev": "eth-s", "gateway": "10.2.0.9"},
        {"dev": "eth-s", "flags": ["dead"]},
    ]
    router = _router([{"dst": "10.50.0.0/16", "nexthops": hops}])
    chooser = Chooser((1,))
    way = router.look_up(Question(4, FAR, CLIENT, 0), chooser)
    assert way is not None
    assert (way.interface, way.next_hop, chooser.choices[0].options) == ("eth-s", 0x0A020009, 2)


def _refused(source: int, via: str, sysctl: str, leaving: str = "eth-s") -> str:
    return _router(sysctl=sysctl).reverse_path_failure(4, source, SERVER, 0, via, leaving)


def test_reverse_paths() -> None:
    strict, loose = "net.ipv4.conf.all.rp_filter = 1\n", "net.ipv4.conf.eth-c.rp_filter = 2\n"
    assert _refused(SERVER, "eth-c", "") == ""
    assert "strict" in _refused(SERVER, "eth-c", strict)
    assert _refused(CLIENT, "eth-c", strict) == ""
    assert _refused(SERVER, "eth-c", loose) == ""
    assert "address of node1 itself" in _refused(OWN, "eth-s", "")
    assert _refused(OWN, "eth-s", "net.ipv4.conf.eth-s.accept_local = 1\n") == ""


def test_a_loose_check_needs_an_address_on_the_interface() -> None:
    bare = _router(sysctl="net.ipv4.conf.cali1.rp_filter = 2\n")
    assert "cali1 has no address" in bare.reverse_path_failure(4, SERVER, CLIENT, 0, "cali1", "eth-c")


def test_martians() -> None:
    router = _router()
    assert "route_localnet" in router.martian(4, 0x7F000001, SERVER, "eth-c")
    assert "route_localnet" in router.martian(4, CLIENT, 0x7F000001, "eth-c")
    assert "no host's address" in router.martian(4, 0xFFFFFFFF, SERVER, "eth-c")
    assert router.martian(4, CLIENT, SERVER, "eth-c") == ""
    assert _router(sysctl="net.ipv4.conf.all.route_localnet = 1\n").martian(4, 0x7F000001, SERVER, "eth-c") == ""


def test_what_ipv6_does_not_even_receive() -> None:
    client, server = (0xFD01 << 112) + 2, (0xFD02 << 112) + 2
    assert "destination ::1" in unreceivable(6, client, 1, "eth-c")
    assert "source ::1" in unreceivable(6, 1, server, "eth-c")
    assert "multicast" in unreceivable(6, (0xFF02 << 112) + 1, server, "eth-c")
    assert unreceivable(6, 1, 1, "lo") == ""
    assert unreceivable(6, client, server, "eth-c") == ""
    assert unreceivable(4, 1, 1, "eth-c") == ""


def test_address_types() -> None:
    router = _router()

    def kind(address: int, device: str = "") -> str:
        return router.address_type(4, address, device, Question(4, address, 0, 0))

    assert kind(OWN) == "local"
    assert (kind(OWN, "eth-c"), kind(OWN, "eth-s")) == ("local", "unicast")
    assert kind(0x0A0100FF) == "broadcast"
    assert kind(0x00000001) == "broadcast"
    assert kind(0xE0000001) == "multicast"
    assert kind(SERVER) == "unicast"


def test_addresses_that_interfaces_lend() -> None:
    router = _router()
    assert router.interface_address(4, "eth-s", SERVER) == 0x0A020001
    # Loopback's own address stays at home: another interface's is taken.
    assert router.interface_address(4, "lo", None) == OWN


def test_forwarding_is_asked_by_interface() -> None:
    off = _router(sysctl="net.ipv4.conf.eth-c.forwarding = 0\n")
    assert (off.forwards(4, "eth-c"), off.forwards(4, "eth-s")) == (False, True)
    six = "net.ipv6.conf.all.forwarding = 0\nnet.ipv6.conf.eth-c.force_forwarding = 1\n"
    assert (_router(sysctl=six).forwards(6, "eth-c"), _router(sysctl=six).forwards(6, "eth-s")) == (True, False)


def test_equal_ipv6_routes_are_undecided() -> None:
    equal: list[dict[str, object]] = [
        {"dst": "fd50::/32", "dev": "eth-c", "metric": 5},
        {"type": "blackhole", "dst": "fd50::/32", "metric": 5},
    ]
    router = _router(equal)
    with pytest.raises(Undecided, match="several routes to fd50::/32 with metric 5"):
        router.look_up(Question(6, 0xFD50 << 112, 0, 0))
