"""What rules match, in words."""

from __future__ import annotations

import pytest

from calico_debug.explain.listing.rule_text import EVERYTHING, members, rule_text
from calico_debug.model.nft import (
    Bitwise,
    Concat,
    ConnectionLimit,
    Counter,
    Ct,
    Element,
    Fib,
    Interval,
    Limit,
    Lookup,
    Match,
    Meta,
    NamePrefix,
    Payload,
    Recent,
    Rule,
    SetContent,
    Statement,
    UnknownStatement,
    Verdict,
)

SADDR, DADDR, DPORT = Payload("network", 96, 32), Payload("network", 128, 32), Payload("transport", 16, 16)
SADDR6 = Payload("network", 64, 128)
MANY = SetContent((16,), {number: Element(number) for number in range(9, 0, -1)})
PROTOCOL, MARK = Meta("l4proto"), Meta("mark")


def text(*statements: Statement, family: str = "ip") -> str:
    return rule_text(Rule(family, "calico", "c", 1, statements))


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (Match(SADDR, "==", 0x0A000001), "saddr 10.0.0.1"),
        (Match(SADDR, "!=", Interval(0x0A000000, 0x0AFFFFFF)), "saddr not 10.0.0.0/8"),
        (Match(DADDR, "==", Interval(1, 6)), "daddr 0.0.0.1-0.0.0.6"),
        (Match(PROTOCOL, "==", 6), "protocol tcp"),
        (Match(PROTOCOL, "==", 200), "protocol 200"),
        (Match(DPORT, "==", Interval(80, 90)), "dport 80-90"),
        (Match(DPORT, "<", 80), "dport < 80"),
        (Match(Payload("transport", 0, 8), "==", 8), "icmp type 8"),
        (Match(Meta("iifname"), "==", NamePrefix("cali")), "iifname cali*"),
        (Match(Bitwise(Ct("state"), 6, 0), "!=", 0), "ct state/0x6 not 0x0"),
        (Match(Fib("type", frozenset({"daddr"})), "==", 2), "fib daddr type 2"),
        (Match(Payload("inner", 3, 5), "==", 1), "5 bits at 3 of the inner header 1"),
        (Lookup(SADDR, "cali40s-x", negated=True), "saddr not in set cali40s-x"),
        (Lookup(DPORT, MANY), "dport in {1, 2, 3, 4, 5, 6, 7, 8, and 1 more}"),
        (Limit(10, "second", over=True), "over 10 packets a second"),
        (ConnectionLimit(5), "up to 5 connections"),
        (Recent("ssh", "check", SADDR, negated=True), "not in the list ssh of recent addresses"),
        (UnknownStatement("xt strange"), "unknown: xt strange"),
    ],
)
def test_conditions(statement: Statement, expected: str) -> None:
    assert text(statement) == expected


def test_ipv6_addresses() -> None:
    assert text(Match(SADDR6, "==", 1 << 127), family="ip6") == "saddr 8000::"
    assert text(Match(SADDR6, "==", Interval(0, (1 << 64) - 1)), family="ip6") == "saddr ::/64"


def test_marks_counters_and_verdicts_are_how_felix_puts_rules_together() -> None:
    own = (Match(Bitwise(MARK, 0x10000, 0), "==", 0), Counter(1, 2), Verdict("drop"))
    assert text(*own) == EVERYTHING
    assert text(Match(PROTOCOL, "==", 17), *own, Match(DPORT, "==", 53)) == "protocol udp, dport 53"


def test_members_are_sorted_with_the_addresses_they_are_about() -> None:
    key = Concat((DADDR, PROTOCOL, DPORT))
    found = SetContent((32, 8, 16), {(5, 6, 80): Element((5, 6, 80)), (3, 17, 53): Element((3, 17, 53))})
    assert list(members(found, key, "ip")) == [(Interval(3, 3), "0.0.0.3 udp 53"), (Interval(5, 5), "0.0.0.5 tcp 80")]
    ranged = SetContent((32,), {9: Element(9)}, (Element(Interval(0, 7)),))
    assert list(members(ranged, SADDR, "ip")) == [(Interval(0, 7), "0.0.0.0/29"), (Interval(9, 9), "0.0.0.9")]
    assert list(members(SetContent((0,), {"eth0": Element("eth0")}), Meta("iifname"), "ip")) == [(None, "eth0")]
