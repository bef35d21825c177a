"""Generated matches of nftables rules, as text, and the addresses and numbers that rules and probes speak of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.kernel.router import PORTS

Draw = Callable[[Any], Any]
"""Hypothesis' draw inside a composite strategy; what it gives depends on the strategy."""

V4 = ("10.1.0.2", "10.1.0.3", "10.2.0.2", "10.2.0.3", "10.1.0.1", "10.2.0.1", "10.96.0.1", "127.0.0.1")
V6 = ("fd01::2", "fd01::3", "fd02::2", "fd02::3", "fd01::1", "fd02::1", "fd96::1", "::1")
NETS = {4: ("10.1.0.0/24", "10.2.0.0/25", "10.0.0.0/8", "10.96.0.0/16"), 6: ("fd01::/64", "fd02::/65", "fd00::/8")}
RANGES = {4: ("10.1.0.2-10.1.0.9", "10.2.0.1-10.2.0.2"), 6: ("fd01::2-fd01::9", "fd02::1-fd02::2")}
WORDS = {4: ("ip", "ipv4_addr"), 6: ("ip6", "ipv6_addr")}
MARKS = ("0x1", "0x2", "0x10", "0x11", "0xf0", "0x10000")
STATES = ("new", "established", "established,related", "invalid", "untracked", "new,untracked", "invalid,new")


@dataclass(frozen=True, slots=True)
class Surface:
    """Where a rule stands: its table's family, its chain's hook ("" for chains jumped to) and type."""

    family: str
    hook: str = ""
    kind: str = "filter"
    version: int = 0
    protocol: str = ""

    @property
    def versions(self) -> tuple[int, ...]:
        """IP versions that its matches may speak of: nft refuses rules that can match none."""
        return (self.version,) if self.version else {"ip": (4,), "ip6": (6,)}.get(self.family, (4, 6))


def pick(draw: Draw, options: object) -> str:
    return draw(st.sampled_from(options))


def address_of(draw: Draw, version: int) -> str:
    return pick(draw, V4 if version == 4 else V6)


def set_of(draw: Draw, options: object, most: int = 3) -> str:
    members = draw(st.lists(st.sampled_from(options), min_size=1, max_size=most, unique=True))
    return "{ " + ", ".join(str(member) for member in members) + " }"


# ------------------------------------------------------------------------------------------------------- matches


def _by_address(draw: Draw, surface: Surface) -> str:
    version = draw(st.sampled_from(surface.versions))
    word, _ = WORDS[version]
    field = pick(draw, ("saddr", "daddr"))
    sign = pick(draw, ("", "", "!= "))
    right = draw(
        st.one_of(
            st.sampled_from(V4 if version == 4 else V6),
            st.sampled_from(NETS[version]),
            st.sampled_from(RANGES[version]),
            st.sampled_from((f"@a{version}", f"@n{version}")),
        )
    )
    if draw(st.booleans()):
        right = set_of(draw, V4 if version == 4 else V6)
    return f"{word} {field} {sign}{right}"


def _by_part(draw: Draw, surface: Surface) -> str:
    if 4 not in surface.versions:
        return pick(draw, ("ip6 version 6", f"ip6 nexthdr {surface.protocol}", "ip6 nexthdr != 99"))
    return pick(
        draw,
        (
            "ip saddr & 0.0.0.255 == 2",
            "ip daddr & 255.255.255.0 != 10.2.0.0",
            "ip daddr & 0.0.0.1 > 0",
            "ip version 4",
            "ip frag-off & 0x1fff == 0",
            f"ip protocol {surface.protocol}",
            "ip protocol != 99",
            "@nh,96,32 & 0xffffff00 == 0x0a010000",
        ),
    )


def _by_concatenation(draw: Draw, surface: Surface) -> str:
    version = draw(st.sampled_from(surface.versions))
    word, _ = WORDS[version]
    address, port = address_of(draw, version), pick(draw, PORTS)
    return pick(
        draw,
        (
            f"{word} daddr . meta l4proto . th dport @c{version}",
            f"{word} saddr . {word} daddr @d{version}",
            f"{word} daddr . {surface.protocol} dport {{ {address} . {port}, {NETS[version][0]} . 80-443 }}"
            if surface.protocol in ("tcp", "udp")
            else f"{word} saddr . {word} daddr @d{version}",
            f"{word} saddr . meta mark {{ {address} . 0x1 }}",
            f'{word} saddr . iifname {{ {address} . "eth-c", {address} . "eth-s" }}',
            f"meta l4proto . {word} daddr {{ tcp . {address}, udp . {address} }}",
        ),
    )


def _by_port(draw: Draw, surface: Surface) -> str:
    if surface.protocol not in ("tcp", "udp"):
        return _by_mark(draw, surface)
    protocol = pick(draw, (surface.protocol, surface.protocol, "th"))
    prefix = f"meta l4proto {surface.protocol} " if protocol == "th" else ""
    port = pick(draw, PORTS)
    right = pick(
        draw, (f"{port}", f"!= {port}", "53-443", "!= 53-80", "{ 53, 80-443 }", "!= { 80, 8080 }", "< 443", ">= 80")
    )
    field = pick(draw, ("dport", "dport", "dport", "sport"))
    return f"{prefix}{protocol} {field} {right}"


def _by_meta(draw: Draw, surface: Surface) -> str:
    return pick(
        draw,
        (
            f"meta l4proto {surface.protocol}",
            "meta l4proto != 99",
            "meta nfproto ipv4" if surface.family == "inet" and 4 in surface.versions else "meta mark 0",
            "meta nfproto ipv6" if surface.family == "inet" and 6 in surface.versions else "meta mark != 0",
            "meta protocol ip" if surface.versions == (4,) else "meta protocol ip6",
            "meta pkttype host",
            "meta pkttype != { broadcast, multicast }",
            'iifname "eth-c"',
            'iifname "eth-*"',
            'iifname != "eth-c*"',
            'iifname { "eth-s", "al*" }',
            'oifname "eth-s"',
            'oifname != "eth-*"',
            'oifname { "lo", "eth-s" }',
            'iifname . oifname { "eth-c" . "eth-s", "eth-s" . "eth-c" }',
            'iif "eth-c"',
            'iif != "lo"',
            'oif "eth-s"',
            'oif { "lo", "eth-c" }',
            "iiftype ether",
            "oiftype != loopback",
            'meta iifkind "veth"',
            'meta oifkind "veth"',
            "meta skuid 0",
            "meta cgroup 5",
        ),
    )


def _by_mark(draw: Draw, _surface: Surface) -> str:
    mark = pick(draw, MARKS)
    return pick(
        draw,
        (
            f"meta mark {mark}",
            f"meta mark != {mark}",
            f"meta mark & {mark} == {mark}",
            f"meta mark & {mark} != 0",
            f"meta mark and 0xf xor 0x1 == {mark}",
            "meta mark { 0x1, 0x10-0x20 }",
            "meta mark > 0x1",
            "meta mark 0x1-0x10",
        ),
    )


def _by_connection(draw: Draw, surface: Surface) -> str:
    state = pick(draw, STATES)
    options = [
        f"ct state {state}",
        f"ct state != {state}",
        "ct state { new, established }",
        "ct state vmap { new : continue, established : return }",
        f"ct mark {pick(draw, MARKS)}",
        f"ct mark & 0x11 == {pick(draw, MARKS)}",
        "ct direction original",
        "ct direction reply",
        "ct status dnat",
        "ct status & (snat|dnat) == dnat",
        "ct status & snat != 0",
        "ct status confirmed",
        "ct status seen-reply",
        f"meta l4proto {surface.protocol} ct original proto-dst 80",
        f"meta l4proto {surface.protocol} ct reply proto-src != 80",
    ]
    for version in surface.versions:
        word, _ = WORDS[version]
        options += [
            f"ct original {word} saddr {address_of(draw, version)}",
            f"ct original {word} daddr {NETS[version][0]}",
            f"ct reply {word} saddr {address_of(draw, version)}",
        ]
    return pick(draw, options)


def _by_flags(draw: Draw, surface: Surface) -> str:
    if surface.protocol == "icmp":
        return pick(
            draw,
            (
                "icmp type echo-request",
                "icmp type != echo-request",
                "icmp type { echo-request, echo-reply }",
                "icmp type . icmp code { echo-request . 0 }",
            ),
        )
    if surface.protocol == "icmpv6":
        return pick(draw, ("icmpv6 type echo-request", "icmpv6 type { echo-reply, echo-request } icmpv6 code 0"))
    if surface.protocol != "tcp":
        return _by_address(draw, surface)
    options = [
        "tcp flags syn",
        "tcp flags & (syn|ack) == syn",
        "tcp flags & (fin|syn|rst|ack) == syn",
        "tcp flags != syn",
        "tcp flags ! rst",
        "tcp flags { syn, ack }",
        "tcp flags & ack != 0",
    ]
    return pick(draw, options)


_FIB_TYPE = {
    "prerouting": ("", ". iif "),
    "input": ("", ". iif "),
    "forward": ("", ". iif ", ". oif "),
    "output": ("", ". oif "),
    "postrouting": ("", ". oif "),
}


def _by_route(draw: Draw, surface: Surface) -> str:
    if not surface.hook or surface.hook not in _FIB_TYPE:
        return _by_meta(draw, surface)
    field = pick(draw, ("saddr", "daddr"))
    by = pick(draw, _FIB_TYPE[surface.hook])
    kind = pick(draw, ("local", "unicast", "!= local", "{ local, unicast }", "broadcast"))
    if surface.hook not in ("prerouting", "input", "forward") or draw(st.booleans()):
        return f"fib {field} {by}type {kind}"
    mark = pick(draw, ("", ". mark "))
    return pick(
        draw,
        (
            f"fib {field} {mark}. iif oif != 0",
            f"fib {field} {mark}. iif oif 0",
            f'fib {field} {mark}oif "eth-s"',
            f'fib {field} {mark}oifname "eth-c"',
            f"fib {field} {mark}. iif oif missing",
            f"fib {field} {mark}oif exists",
        ),
    )


def by_chance(draw: Draw, _surface: Surface) -> str:
    return pick(
        draw,
        (
            "limit rate 1/minute burst 1 packets",
            "limit rate over 1/minute burst 1 packets",
            "numgen random mod 3 < 1",
            "numgen inc mod 2 == 0",
            "quota over 100 bytes",
            "ct count over 1",
            "meta length > 100",
        ),
    )


MATCHES = (
    *[_by_address] * 4,
    _by_part,
    *[_by_concatenation] * 2,
    *[_by_port] * 3,
    *[_by_meta] * 3,
    *[_by_mark] * 2,
    *[_by_connection] * 3,
    *[_by_flags] * 2,
    *[_by_route] * 2,
)
