"""Both nft decoders against a real kernel: what nft lists and what the kernel holds must be the same rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calico_debug.agent.netlink import NftablesSocket
from calico_debug.model.nft import Match, UnknownExpression, UnknownStatement
from calico_debug.state.ruleset import KernelRuleset, RecordedRuleset
from tests.decode.nft_equivalence import normalised, plain
from tests.decode.nft_rules import OBJECTS, RULES, TABLE
from tests.lab import namespaces, recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calico_debug.model.nft import Ruleset, Statement

pytestmark = pytest.mark.kernel
NAMES = {1: "lo"}
UNREADABLE = (
    "jhash", "symhash", "option maxseg size 1400", "option sack", "lsrr", "exthdr hbh", "rt type", "rt mtu 1500",
    "socket", "ipsec in", "osf", "synproxy", "prefix to", "chunk",
)  # fmt: skip
"""What the decoders are known not to understand; everything else must be understood."""


class Kernel:
    """A namespace whose rules are read both ways."""

    def __init__(self, name: str) -> None:
        self.name = name
        with namespaces.entered(name):
            self.socket = NftablesSocket()

    def load(self, text: str) -> None:
        namespaces.nft(self.name, "flush ruleset\n" + text)

    def listed(self) -> RecordedRuleset:
        return RecordedRuleset.read(namespaces.run(self.name, ["nft", "-j", "list", "ruleset"]), "listing")

    def held(self) -> KernelRuleset:
        return KernelRuleset(self.socket)


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    reason = namespaces.supported()
    if reason:
        pytest.skip(reason)
    name = namespaces.create(["nft"])["nft"]
    try:
        found = Kernel(name)
        yield found
        found.socket.close()
    finally:
        namespaces.delete([name])


def assert_same_rules(listed: Ruleset, held: Ruleset, family: str, table: str, chain: str) -> None:
    expected, found = listed.rules(family, table, chain), held.rules(family, table, chain)
    assert expected is not None
    assert found is not None
    assert [rule.handle for rule in found] == [rule.handle for rule in expected]
    assert [rule.comment for rule in found] == [rule.comment for rule in expected]
    for left, right in zip(found, expected, strict=True):
        assert normalised(left.statements, NAMES) == normalised(right.statements, NAMES)


@pytest.fixture(scope="module")
def both(kernel: Kernel) -> tuple[RecordedRuleset, KernelRuleset]:
    text = ""
    for family, rules in RULES.items():
        objects = OBJECTS if family in ("ip", "ip6", "inet") else ""
        chains = "\n".join(f"    chain c{number} {{\n        {rule}\n    }}" for number, rule in enumerate(rules))
        text += f"table {family} t {{{TABLE}{objects}{chains}\n}}\n"
    kernel.load(text)
    return kernel.listed(), kernel.held()


CASES = [(family, number, rule) for family, rules in RULES.items() for number, rule in enumerate(rules)]


def test_table_is_broad_enough() -> None:
    assert len({rule for _, _, rule in CASES}) >= 150


@pytest.mark.parametrize(("family", "number", "rule"), CASES, ids=[f"{f}: {r}" for f, _, r in CASES])
def test_rule(both: tuple[RecordedRuleset, KernelRuleset], family: str, number: int, rule: str) -> None:
    listed, held = both
    assert_same_rules(listed, held, family, "t", f"c{number}")
    (found,) = held.rules(family, "t", f"c{number}") or ()
    assert any(map(_is_unknown, found.statements)) == any(word in rule for word in UNREADABLE)


def _is_unknown(statement: Statement) -> bool:
    return isinstance(statement, UnknownStatement) or isinstance(getattr(statement, "left", None), UnknownExpression)


SETS = """
table ip t {
    counter cc { }
    chain x { }
    set dscp { typeof ip dscp; elements = { cs1, 4 } }
    set pair { typeof ip dscp . ip ecn; elements = { cs1 . ect1 } }
    set names { type ifname; flags interval; elements = { "a*", "lo", "veth12345*" } }
    set plain_names { type ifname; elements = { "lo", "eth0" } }
    set hosts { type uid . gid . mark; elements = { 5 . 6 . 7 } }
    set timed { type ipv4_addr; flags interval,timeout; counter
        elements = { 10.0.0.0/8 counter packets 5 bytes 6 timeout 5h comment "hello", * counter } }
    map verdicts { type ipv4_addr : verdict; flags interval; counter
        elements = { 1.1.1.1 counter comment "x" : drop, 8.0.0.0/5 counter : jump x, * counter : accept } }
    map backends { type ipv4_addr . inet_service : ipv4_addr . inet_service; flags interval
        elements = { 1.0.0.0-1.0.0.5 . 5-6 : 2.2.2.2 . 80, 9.9.9.9 . 1 : 3.3.3.3 . 81 } }
    map marks { typeof ip saddr : meta mark; elements = { 1.1.1.1 : 5 } }
    map by_mark { type mark : ipv4_addr; flags interval; elements = { 1-5 : 1.1.1.1, 0xffffffff : 2.2.2.2 } }
    map of_name { type ifname . ipv4_addr : verdict; flags interval; elements = { "eth0" . 1.1.1.0/24 : drop } }
    map wild { type ifname . ipv4_addr : verdict; flags interval; elements = { "eth*" . 1.1.1.0/24 : goto x } }
    map counters { type inet_service : counter; elements = { 80 : "cc" } }
    map dispatch { type ifname : verdict; elements = { "cali1" : goto x, "cali2" : jump x } }
    set six { type ipv6_addr; flags interval; elements = { fd00::/64, ::1, fe80::5-fe80::9 } }
    set ports { type inet_service; flags interval; elements = { 80, 443, 1000-2000, 65000-65535 } }
    set states { type ct_state . mark; elements = { established . 5 } }
    set services { type ipv4_addr . inet_proto . inet_service; elements = { 1.1.1.1 . tcp . 80, 2.2.2.2 . udp . 53 } }
    set macs { type ether_addr; elements = { 00:11:22:33:44:55 } }
    set whole { type ipv4_addr; flags interval; elements = { 0.0.0.0/0 } }
    set none { type ipv4_addr; }
    set mark_pairs { type mark . ipv4_addr; flags interval; elements = { 5-9 . 1.1.1.0/24, 7 . 2.2.2.2 } }
}
"""
SET_NAMES = [line.split()[1] for line in SETS.splitlines() if line.split()[:1] in (["set"], ["map"])]


@pytest.mark.parametrize("name", SET_NAMES)
def test_set(kernel: Kernel, name: str) -> None:
    kernel.load(SETS)
    listed, held = kernel.listed().elements("ip", "t", name), kernel.held().elements("ip", "t", name)
    assert listed is not None
    assert plain(held) == plain(listed)


NAMED = """
    chain c {
        ip dscp @dscp drop
        ip dscp . ip ecn @pair
        iifname @names accept
        ip saddr vmap @verdicts
        counter name tcp dport map @counters
        meta mark . ip saddr @mark_pairs
        meta mark set ip saddr map @marks
        iifname . ip saddr vmap @wild
        ct state . ct mark @states
        ip daddr . meta l4proto . th dport @services
        ip daddr . meta l4proto . tcp dport @services
        meta skuid . meta skgid . meta mark @hosts
    }
    chain n { type nat hook prerouting priority 0
        meta l4proto tcp dnat ip to ip daddr . tcp dport map @backends
        dnat to meta mark map @by_mark
    }
}
"""


def test_rules_with_named_sets(kernel: Kernel) -> None:
    kernel.load(SETS.rstrip().removesuffix("}") + NAMED)
    listed, held = kernel.listed(), kernel.held()
    assert len(held.rules("ip", "t", "c") or ()) == 12
    for chain in ("c", "n"):
        assert_same_rules(listed, held, "ip", "t", chain)
        assert not any(_is_unknown(s) for rule in held.rules("ip", "t", chain) or () for s in rule.statements)


spans = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(st.sampled_from(["ipv4_addr", "inet_service", "mark"]), spans, st.booleans())
def test_generated_interval_sets(kernel: Kernel, kind: str, gaps: list[tuple[int, int]], catch_all: bool) -> None:
    """Intervals with and without gaps between them: the same content both ways, and keys find the same element."""
    position, ends = 0, []
    for gap, length in gaps:
        low = position + gap
        position = low + length
        ends.append((low, position - 1))
    texts = [str(low) if low == high else f"{low}-{high}" for low, high in ends]
    if kind == "ipv4_addr":
        texts = [f"0.0.0.{low}-0.0.0.{high}" if low != high else f"0.0.0.{low}" for low, high in ends]
    elements = ", ".join(f"{text} : drop" for text in [*texts, *(["*"] if catch_all else [])])
    kernel.load(f"table ip t {{\nmap m {{\ntype {kind} : verdict\nflags interval\nelements = {{ {elements} }}\n}}\n}}")
    listed, held = kernel.listed(), kernel.held()
    assert plain(held.elements("ip", "t", "m")) == plain(listed.elements("ip", "t", "m"))
    for key in range(position + 3):
        inside = any(low <= key <= high for low, high in ends)
        found = held.find("ip", "t", "m", key)
        assert found == listed.find("ip", "t", "m", key)
        assert (found is not None and found.key != "*") == inside


@pytest.mark.parametrize("text", ["tcp sport != 5 tcp dport != 6", "icmp type != 8 icmp code != 0"])
def test_neighbours_that_differ_are_not_guessed_from_the_listing(kernel: Kernel, text: str) -> None:
    kernel.load(f"table ip t {{\nchain c {{\n{text} counter accept\n}}\n}}")
    (listed,), (held,) = kernel.listed().rules("ip", "t", "c") or (), kernel.held().rules("ip", "t", "c") or ()
    assert [type(s) for s in listed.statements[1:]] == [type(s) for s in held.statements[1:]]
    assert isinstance(listed.statements[1], Match)
    assert isinstance(listed.statements[1].left, UnknownExpression)
    assert "does not tell" in listed.statements[1].left.text
    assert not any(map(_is_unknown, held.statements))


def test_there_is_no_such_chain_or_set(kernel: Kernel) -> None:
    kernel.load(SETS)
    for ruleset in (kernel.listed(), kernel.held()):
        assert ruleset.rules("ip", "t", "nowhere") is None
        assert list(ruleset.rules("ip", "t", "x") or ()) == []
        assert ruleset.elements("ip", "t", "nothing") is None
        assert ruleset.elements("ip", "elsewhere", "dscp") is None
        assert list(ruleset.tables()) == [("ip", "t")]


# ------------------------------------------------------------------------------------------------------- generated

octets = st.integers(0, 255)
addresses = st.builds("{}.{}.{}.{}".format, octets, octets, octets, octets)
prefixes = st.builds(lambda a, n: f"{_network(a, n)}/{n}", st.integers(0, 2**32 - 1), st.integers(0, 32))
ports = st.integers(0, 65535).map(str)
port_ranges = st.tuples(st.integers(0, 65000), st.integers(1, 500)).map(lambda p: f"{p[0]}-{p[0] + p[1]}")
masks = st.integers(1, 2**32 - 1)


def _network(address: int, length: int) -> str:
    kept = address >> (32 - length) << (32 - length)
    return ".".join(str(kept >> shift & 255) for shift in (24, 16, 8, 0))


def _mark_match(mask: int, value: int, operator: str) -> str:
    return f"meta mark & {mask:#x} {operator} {value & mask:#x}"


conditions = st.one_of(
    st.builds("ip {} {} {}".format, st.sampled_from(["saddr", "daddr"]), st.sampled_from(["", "!="]),
              addresses | prefixes),
    st.builds("{} sport {}".format, st.sampled_from(["tcp", "udp"]), ports | port_ranges),
    st.builds("{} dport {} {}".format, st.sampled_from(["tcp", "udp"]), st.sampled_from(["", "!="]),
              ports | port_ranges),
    st.builds(_mark_match, masks, masks, st.sampled_from(["==", "!="])),
    st.builds("ip saddr {{ {}, {} }}".format, addresses, addresses),
    st.sampled_from(["ct state established,related", "ct state invalid", "iifname \"cali*\"", "oifname \"eth0\"",
                     "meta l4proto udp", "ip protocol tcp", "fib daddr type local", "icmp type echo-request",
                     "meta nfproto ipv4", "counter", "ct status dnat", "limit rate 5/second"]),
)  # fmt: skip
endings = st.one_of(
    st.sampled_from(["accept", "drop", "return", "continue", "reject", "counter", "jump other", "goto other"]),
    st.builds("meta mark set mark and {:#x} xor {:#x}".format, masks, masks),
    st.builds("meta mark set mark or {:#x}".format, masks),
)
rules = st.builds(lambda middle, end: " ".join([*middle, end]), st.lists(conditions, max_size=4), endings)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(st.sampled_from(["ip", "inet"]), st.lists(rules, min_size=10, max_size=25))
def test_generated_rules(kernel: Kernel, family: str, texts: list[str]) -> None:
    """Rules that contradict themselves are refused by nft, so each is tried on its own first."""
    base = f"table {family} t {{ chain other {{ }}\n chain c {{\n"
    kernel.load(base + "}\n}\n")
    for text in texts:
        try:
            namespaces.run(kernel.name, ["nft", "add", "rule", family, "t", "c", text])
        except namespaces.LabError:
            continue
    assert_same_rules(kernel.listed(), kernel.held(), family, "t", "c")


# ------------------------------------------------------------------------------------------------------ recordings


def _recordings() -> list[str]:
    root = recorded.recordings()
    return sorted(str(path) for path in root.glob("*/nodes/*/nft-ruleset.txt")) if root else []


@pytest.mark.parametrize("path", _recordings() or [""], ids=lambda path: "/".join(path.split("/")[-4:-1:2]))
def test_recorded_ruleset(kernel: Kernel, path: str) -> None:
    if not path:
        pytest.skip("no recordings: set CALICO_DEBUG_RECORDINGS to their directory")
    tables = Path(path).read_text().split("\ntable ")
    usable = [text for text in tables if "# xt_" not in text and " xt " not in text]
    kernel.load("\n".join(f"table {text.removeprefix('table ')}" for text in usable if text.strip()))
    listed, held = kernel.listed(), kernel.held()
    assert list(held.tables()) == list(listed.tables())
    chains = [(c.family, c.table, c.name, c.hook) for c in listed.base_chains()]
    assert [(c.family, c.table, c.name, c.hook) for c in held.base_chains()] == chains
    document = json.loads(namespaces.run(kernel.name, ["nft", "-j", "list", "ruleset"]))["nftables"]
    counted = 0
    for item in document:
        for kind, content in item.items():
            if kind == "chain":
                assert_same_rules(listed, held, content["family"], content["table"], content["name"])
                counted += len(held.rules(content["family"], content["table"], content["name"]) or ())
            elif kind in ("set", "map"):
                place = (content["family"], content["table"], content["name"])
                assert plain(held.elements(*place)) == plain(listed.elements(*place))
    assert counted == sum("rule" in item for item in document)
