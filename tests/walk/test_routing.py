"""Rules, tables, longest prefixes and refusals."""

from __future__ import annotations

import pytest

from calico_debug.model.values import unknown
from calico_debug.walk.choices import Chooser
from calico_debug.walk.context import Undecided
from calico_debug.walk.routing import Question, Router, refusal
from tests.walk.worlds import CLIENT, OWN, SERVICE, state

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


def test_equal_ipv6_routes_are_undecided() -> None:
    equal: list[dict[str, object]] = [
        {"dst": "fd50::/32", "dev": "eth-c", "metric": 5},
        {"type": "blackhole", "dst": "fd50::/32", "metric": 5},
    ]
    router = _router(equal)
    with pytest.raises(Undecided, match="several routes to fd50::/32 with metric 5"):
        router.look_up(Question(6, 0xFD50 << 112, 0, 0))
