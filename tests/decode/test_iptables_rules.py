"""Options of iptables rules and the statements that they become; the kernel tests say that these are the right ones."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from calico_debug.decode.ipset import SavedSets
from calico_debug.decode.iptables_matches import MATCHES
from calico_debug.decode.iptables_rules import decode_rule
from calico_debug.decode.iptables_targets import TARGETS
from calico_debug.model.nft import (
    Bitwise,
    Constant,
    Counter,
    Ct,
    Fib,
    Harmless,
    Limit,
    Log,
    Lookup,
    Masquerade,
    Match,
    Meta,
    NamePrefix,
    Nat,
    Notrack,
    Numgen,
    Payload,
    Recent,
    Redirect,
    Reject,
    SetCt,
    SetMeta,
    Statement,
    UnknownStatement,
    Verdict,
)

SETS = SavedSets("", "ipset-save.txt")
SOURCE, DESTINATION = Payload("network", 96, 32), Payload("network", 128, 32)
MARK, STATE = Meta("mark"), Ct("state")
TCP = Match(Meta("l4proto"), "==", 6)
DPORT = Payload("transport", 16, 16)


def statements(rule: str, family: str = "ip") -> tuple[Statement, ...]:
    return decode_rule(f"[1:60] -A c {rule}", 1, (family, "filter", "c"), {"c", "d"}, SETS).statements


def number(address: str) -> int:
    return int(ip_address(address))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-s 10.0.0.1/32", [Match(SOURCE, "==", number("10.0.0.1"))]),
        ("! -d 10.0.0.0/8", [Match(Bitwise(DESTINATION, 0xFF000000, 0), "!=", number("10.0.0.0"))]),
        ("-d ! 10.0.0.1", [Match(DESTINATION, "!=", number("10.0.0.1"))]),
        ("-i cali+", [Match(Meta("iifname"), "==", NamePrefix("cali"))]),
        ("-i +", []),
        ("! -o eth0", [Match(Meta("oifname"), "!=", "eth0")]),
        ("-p ipencap", [Match(Meta("l4proto"), "==", 4)]),
        ("! -p 17", [Match(Meta("l4proto"), "!=", 17)]),
        ("-p all", []),
        ("-p tcp -m tcp --dport 80", [TCP, Match(DPORT, "==", 80)]),
        ("-p tcp -m tcp --dport 0:65535", [TCP]),
        ("-m mark --mark 0x10000/0x10000", [Match(Bitwise(MARK, 0x10000, 0), "==", 0x10000)]),
        ("-m mark ! --mark 0x4000", [Match(MARK, "!=", 0x4000)]),
        ("-m conntrack --ctstate RELATED,ESTABLISHED", [Match(Bitwise(STATE, 6, 0), "!=", 0)]),
        ("-m conntrack ! --ctstate INVALID", [Match(Bitwise(STATE, 1, 0), "==", 0)]),
        (
            "-m conntrack ! --ctstate DNAT",
            [Match(Bitwise(Ct("state and translation"), 0x2000, 0), "==", 0)],
        ),
        (
            "-m rpfilter --validmark --invert",
            [Match(Fib("oif", frozenset({"saddr", "iif", "mark"}), present=True), "==", 0)],
        ),
        ("-m addrtype --dst-type LOCAL", [Match(Fib("type", frozenset({"daddr"})), "==", 2)]),
        (
            "-m statistic --mode random --probability 0.25000000000",
            [Match(Numgen("random", 1 << 31), "<", 1 << 29)],
        ),
        ("-m limit --limit 10/min --limit-burst 7", [Limit(10, "minute", burst=7)]),
        ("-m hashlimit --hashlimit-above 3/sec --hashlimit-name x", [Limit(3, "second", over=True)]),
        ("-m nfacct --nfacct-name  two", [Harmless("counter object two")]),
        ("-m set --match-set gone src", [Lookup(SOURCE, "gone")]),
        (
            "-m recent --rcheck --seconds 10800 --reap --name KUBE-SEP-X --mask 255.255.255.255 --rsource",
            [Recent("KUBE-SEP-X", "check", SOURCE, seconds=10800)],
        ),
        (
            "-m recent ! --update --hitcount 4 --rttl --mask 255.255.255.0 --rdest",
            [Recent("DEFAULT", "update", Bitwise(DESTINATION, 0xFFFFFF00, 0), negated=True, hits=4, same_ttl=True)],
        ),
        ("-m recent --seconds 4", [UnknownStatement("iptables match recent --seconds 4")]),
    ],
)
def test_matches(text: str, expected: list[Statement]) -> None:
    assert list(statements(text)) == [*expected, Counter()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-j DROP", [Verdict("drop")]),
        ("-j d", [Verdict("jump", "d")]),
        ("-g d", [Verdict("goto", "d")]),
        ("-j REJECT", [Reject("icmp", "port-unreachable")]),
        ("-j REJECT --reject-with tcp-reset", [Reject("tcp reset")]),
        ("-j MARK --set-xmark 0x0/0x1b0000", [SetMeta("mark", Bitwise(MARK, 0xFFE4FFFF, 0))]),
        ("-j MARK --set-xmark 0x4000/0x0", [SetMeta("mark", Bitwise(MARK, 0xFFFFFFFF, 0x4000))]),
        ("-j MARK --set-xmark 0x7/0xffffffff", [SetMeta("mark", Constant(7))]),
        ("-j CONNMARK --save-mark --nfmask 0xf --ctmask 0xffffffff", [SetCt("mark", Bitwise(MARK, 0xF, 0))]),
        ("-j CONNMARK --restore-mark", [SetMeta("mark", Ct("mark"))]),
        (
            "-j DNAT --to-destination 10.0.0.1:80",
            [Nat("dnat", Constant(number("10.0.0.1")), port=Constant(80))],
        ),
        (
            "-j SNAT --to-source 10.0.0.1-10.0.0.2:5-9 --random-fully",
            [
                Nat(
                    "snat",
                    Constant(number("10.0.0.1")),
                    Constant(number("10.0.0.2")),
                    Constant(5),
                    Constant(9),
                )
            ],
        ),
        ("-j MASQUERADE --random-fully", [Masquerade()]),
        ("-j REDIRECT --to-ports 80", [Redirect(Constant(80))]),
        ('-j LOG --log-prefix "a b: " --log-level 5', [Log("a b: ")]),
        ("-j NFLOG --nflog-prefix DPI|x --nflog-group 2 --nflog-size 80", [Log("DPI|x", 2)]),
        ("-j NOTRACK", [Notrack()]),
        ("-j CT --notrack", [Notrack()]),
        ("-j NFQUEUE --queue-num 1 --queue-bypass", [Verdict("queue")]),
        ("-j TRACE", [Harmless("TRACE")]),
    ],
)
def test_targets(text: str, expected: list[Statement]) -> None:
    assert list(statements(text)) == [Counter(), *expected]


def test_ipv6() -> None:
    assert statements("-s fd00::/8 -p ipv6-icmp -m icmp6 --icmpv6-type 128", "ip6")[:3] == (
        Match(Bitwise(Payload("network", 64, 128), 0xFF << 120, 0), "==", number("fd00::")),
        Match(Meta("l4proto"), "==", 58),
        Match(Payload("transport", 0, 8), "==", 128),
    )
    assert statements("-j DNAT --to-destination [fd00::1]:80", "ip6")[1] == Nat(
        "dnat", Constant(number("fd00::1")), port=Constant(80)
    )
    assert statements("-j DNAT --to-destination fd00::1", "ip6")[1] == Nat("dnat", Constant(number("fd00::1")))


@pytest.mark.parametrize(
    "text",
    [
        "-m rpfilter --accept-local",
        "-m owner ! --uid-owner 0",
        "-m conntrack --ctstate INVALID --ctdir ORIGINAL",
        "-m conntrack --ctstate NEW,UNHEARD",
        "-m conntrack --ctstatus NONE",
        "-m multiport --dports 80",
        "-m icmp --icmp-type 255",
        "-m set --return-nomatch --match-set s src",
        "-m mark --mark 0x100000000",
        "-m tcp --tcp-option 3",
        "-m statistic --mode random",
    ],
)
def test_matches_that_are_not_followed_are_named(text: str) -> None:
    assert statements(f"{text} -j DROP") == (
        UnknownStatement(f"iptables match {text.removeprefix('-m ')}"),
        Counter(),
        Verdict("drop"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "-j CT --zone 3",
        "-j NETMAP --to 10.0.0.0/8",
        "-j SET --add-set gone src",
        "-j REJECT --reject-with unheard",
        "-j DNAT --random",
        "-j MARK --set-xmark nothing",
    ],
)
def test_behind_a_target_that_is_not_followed_the_walk_stops(text: str) -> None:
    unknown = UnknownStatement(f"iptables target {text.removeprefix('-j ')}")
    assert statements(text) == (Counter(), unknown, Verdict("queue"))


def test_tables_name_options_as_iptables_does() -> None:
    for extension in (*MATCHES.values(), *TARGETS.values()):
        assert all(name.startswith("--") and values >= 0 for name, values in extension.arity.items())
