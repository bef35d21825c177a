"""Generated routes, routing rules and source checks: the walk's decision against real packets."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calico_debug.walk.node import NodeWalker
from tests.kernel.frames import UDP, Datagram
from tests.kernel.probes import Probe, fresh, judge, predict, watch
from tests.kernel.router import LINKS
from tests.lab import namespaces

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tests.kernel.router import Router

pytestmark = pytest.mark.kernel

NETS = {4: ("10.50.0.0/16", "10.50.1.0/24", "10.50.1.7/32", "default"), 6: ("fd50::/32", "fd50:0:1::/48", "default")}
TARGETS = {4: ("10.50.1.7", "10.50.9.9", "10.2.0.2", "10.1.0.1"), 6: ("fd50:0:1::7", "fd50:0:9::9", "fd02::2")}
SOURCES = {
    4: ("10.1.0.2", "10.2.0.2", "10.3.0.2", "10.50.1.7", "10.99.0.1", "10.2.0.1", "127.0.0.1"),
    6: ("fd01::2", "fd02::2"),
}
TABLES = ("main", "100", "101")
MARKING = """table inet marking {
    chain c { type filter hook prerouting priority -300
        udp dport 80 meta mark set 0x1
        udp dport 443 meta mark set 0x10
    }
}"""
PORTS = (53, 80, 443)
SWITCHES = ("accept_local", "src_valid_mark", "route_localnet")


@dataclass(frozen=True, slots=True)
class Configuration:
    """Arguments of ``ip route add`` and ``ip rule add``, and sysctls."""

    family: int
    routes: tuple[str, ...]
    rules: tuple[str, ...]
    sysctls: tuple[tuple[str, str], ...]


@st.composite
def configurations(draw: Callable[[Any], Any]) -> Configuration:
    """Routes of a few tables and the rules that lead to them."""
    family = draw(st.sampled_from((4, 4, 6)))
    routes = [_route(draw, family) for _ in range(draw(st.integers(0, 5)))]
    rules = [_rule(draw, family, 100 + 10 * n) for n in range(draw(st.integers(0, 4)))]
    sysctls = []
    if family == 4:
        for link in ("all", *LINKS):
            sysctls.append((f"net/ipv4/conf/{link}/rp_filter", draw(st.sampled_from("0012"))))
            sysctls += [(f"net/ipv4/conf/{link}/{key}", draw(st.sampled_from("00001"))) for key in SWITCHES]
        sysctls.append(("net/ipv4/conf/eth-c/forwarding", draw(st.sampled_from("1110"))))
    return Configuration(family, tuple(routes), tuple(rules), tuple(sysctls))


def _route(draw: Callable[[Any], Any], family: int) -> str:
    net, table = draw(st.sampled_from(NETS[family])), draw(st.sampled_from(TABLES))
    metric = draw(st.sampled_from((5, 6, 7)))
    kind = draw(st.sampled_from(("via", "via", "via", "hops", "blackhole", "unreachable", "prohibit", "throw")))
    gateways = ["10.{}.0.254" if family == 4 else "fd0{}::fe"]
    hops = [(link, gateways[0].format(number)) for link, number in LINKS.items()]
    if kind == "via":
        link, gateway = draw(st.sampled_from(hops))
        return f"{net} via {gateway} dev {link} table {table} metric {metric}"
    if kind == "hops":
        return f"{net} table {table} metric {metric} " + " ".join(f"nexthop via {g} dev {k}" for k, g in hops[:2])
    return f"{kind} {net} table {table} metric {metric}"


def _rule(draw: Callable[[Any], Any], family: int, priority: int) -> str:
    picks = {
        "from": SOURCES[family][:2],
        "to": [net for net in NETS[family] if net != "default"],
        "fwmark": ("0x1", "0x10/0xf0"),
        "iif": ("eth-c", "lo", "eth-s"),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(picks)), max_size=2, unique=True))
    selectors = " ".join(f"{key} {draw(st.sampled_from(picks[key]))}" for key in chosen)
    inverted = "not " if selectors and draw(st.integers(0, 3)) == 3 else ""
    action = draw(
        st.sampled_from(
            (
                "lookup 100",
                "lookup 101",
                "lookup main suppress_prefixlength 0",
                "lookup 100 suppress_prefixlength 16",
                "blackhole",
                "unreachable",
                "prohibit",
                "goto 32766",
                f"goto {priority + 10}",
            )
        )
    )
    return f"{inverted}{selectors or 'from all'} priority {priority} {action}"


@st.composite
def packets(draw: Callable[[Any], Any], family: int) -> Probe:
    """A datagram from anywhere, with any source, or of the router itself."""
    link = draw(st.sampled_from(("eth-c", "eth-c", "eth-s", "alt0", "")))
    own = ("10.1.0.1", "10.2.0.1") if family == 4 else ("fd01::1", "fd02::1")
    source = draw(st.sampled_from(SOURCES[family] if link else own))
    target, port = draw(st.sampled_from(TARGETS[family])), draw(st.sampled_from(PORTS))
    mark = 0 if link else draw(st.sampled_from((0, 1, 0x10)))
    return Probe(link, Datagram(ip_address(source), ip_address(target), UDP, 20_000, port), mark)


def _apply(router: Router, configuration: Configuration) -> None:
    family = f"-{configuration.family}"
    commands = [f"route append {route}" for route in configuration.routes]
    commands += [f"rule add {rule}" for rule in configuration.rules]
    # The same route twice is refused; the rest of the batch goes on, and the evidence shows what came of it.
    namespaces.run(
        router.namespace, ["sh", "-c", f"ip {family} -force -batch - 2>/dev/null || true"], "\n".join(commands) + "\n"
    )
    router.set(dict(configuration.sysctls))


def _batch(router: Router, family: str, commands: list[str]) -> None:
    batch = ["sh", "-c", f"ip {family} -force -batch - 2>/dev/null || true"]
    namespaces.run(router.namespace, batch, "\n".join(commands) + "\n")


def _undo(router: Router, configuration: Configuration) -> None:
    family = f"-{configuration.family}"
    commands = [f"rule del priority {100 + 10 * n}" for n in range(len(configuration.rules))]
    commands += [f"route flush table {table}" for table in TABLES[1:]]
    commands += [f"route flush table main metric {metric}" for metric in (5, 6, 7)]
    namespaces.run(
        router.namespace, ["sh", "-c", f"ip {family} -force -batch - 2>/dev/null || true"], "\n".join(commands) + "\n"
    )
    router.set({key: "1" if key.endswith("/forwarding") else "0" for key, _ in configuration.sysctls})


def _run(router: Router, examples: int) -> int:
    compared = 0
    assert not router.load(MARKING)

    @settings(
        max_examples=examples, deadline=None, print_blob=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.data(), configurations())
    def compare(data: st.DataObject, configuration: Configuration) -> None:
        nonlocal compared
        probes = data.draw(st.lists(packets(configuration.family), min_size=4, max_size=8))
        _apply(router, configuration)
        try:
            walker = NodeWalker(router.live(router.evidence()))
            listing = router.listing()
            for packet in probes:
                probe = fresh(packet)
                router.forget()
                expected = predict(walker, [probe.step()])
                real, listing = watch(router, listing, probe)
                difference = judge(expected, real, probe)
                assert not difference, f"{difference}\n{configuration}"
                compared += 1
        finally:
            _undo(router, configuration)

    try:
        compare()
    finally:
        router.clear([("inet", "marking")])
    return compared


def test_generated_routing(router: Router) -> None:
    assert _run(router, 100) > 400


@pytest.mark.slow
def test_much_generated_routing(router: Router) -> None:
    assert _run(router, 1_000) > 4_000
