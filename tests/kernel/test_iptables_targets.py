"""What iptables rules do to packets, on each backend and on both at once: verdicts, marks, translation, answers.

Hand-written rule sets and generated ones; of each packet the counters, the place where it came out, the addresses that
it had there and the answers are compared with the walk.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernel.frames import TCP, UDP, Datagram
from tests.kernel.iptables_world import BUILTIN, World, restore_text
from tests.kernel.probes import SYN, Probe, fresh, probes
from tests.kernel.router import Router
from tests.lab import namespaces

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

pytestmark = pytest.mark.kernel

EXAMPLES = 20

SETS = """\
create nets hash:net family inet
add nets 10.1.0.0/24
add nets 10.1.0.2/32 nomatch
create ipport hash:ip,port family inet
add ipport 10.2.0.2,tcp:80
create met hash:ip family inet
create sixnets hash:net family inet6
add sixnets fd01::/64
create sixports hash:ip,port family inet6
add sixports fd02::2,tcp:80
"""

Tables = "Mapping[str, Mapping[str, Sequence[str]]]"

CASES: dict[str, Mapping[str, Mapping[str, Sequence[str]]]] = {
    "jump, goto, return": {
        "filter": {
            "FORWARD": ["-j one", "-g three", "-j DROP"],
            "one": ["-p udp -j RETURN", "-j two", "-p tcp -m tcp --dport 443 -g three", ""],
            "two": ["-p tcp -m tcp --dport 80 -j ACCEPT", "-g three", "-j DROP"],
            "three": ["", "-p tcp -m tcp --dport 8080 -j DROP", "-p udp -j RETURN"],
        }
    },
    "marks": {
        "mangle": {
            "PREROUTING": ["-j MARK --set-xmark 0x30/0xf0", "-j MARK --set-xmark 0x1/0x1", "-j CONNMARK --save-mark"],
            "FORWARD": [
                "-j MARK --set-xmark 0x0/0xffffffff",
                "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xf0",
                "-m mark --mark 0x30 -j MARK --and-mark 0x10",
                "-m mark --mark 0x10 -j MARK --or-mark 0x8",
                "-m mark --mark 0x18 -j MARK --xor-mark 0xff",
                "-m mark --mark 0xe7",
                "-m connmark --mark 0x31",
                "-j CONNMARK --set-xmark 0x2/0x3",
                "-m connmark --mark 0x32",
            ],
        },
        "filter": {"FORWARD": ["-m mark --mark 0xe7/0xff -j ACCEPT", "-j DROP"]},
    },
    "refusals": {
        "filter": {
            chain: [
                "-p tcp -m tcp --dport 80 -j REJECT --reject-with tcp-reset",
                "-p tcp -m tcp --dport 443 -j REJECT",
                "-p udp -j REJECT --reject-with icmp-admin-prohibited",
                "-j REJECT --reject-with icmp-host-unreachable",
            ]
            for chain in ("INPUT", "FORWARD", "OUTPUT")
        }
    },
    "translation": {
        "nat": {
            "PREROUTING": [
                "-p tcp -d 10.96.0.1 -m tcp --dport 80 -j DNAT --to-destination 10.2.0.2:8080",
                "-p udp -d 10.96.0.1 -j DNAT --to-destination 10.2.0.3",
                "-p tcp -m tcp --dport 443 -j REDIRECT --to-ports 80",
            ],
            "OUTPUT": ["-d 10.96.0.1 -p tcp -j DNAT --to-destination 10.2.0.3:80"],
            "POSTROUTING": [
                "-s 10.1.0.2 -j MASQUERADE",
                "-s 10.1.0.3 -p tcp -j SNAT --to-source 10.2.0.100:5000-6000 --random-fully",
                "-s 10.1.0.3 -j SNAT --to-source 10.2.0.100",
            ],
        },
        "filter": {
            chain: ["-m conntrack --ctstate DNAT", "-m conntrack ! --ctstate DNAT", "-m conntrack --ctstate SNAT,NEW"]
            for chain in ("INPUT", "FORWARD", "OUTPUT")
        },
        "mangle": {"POSTROUTING": ["-m conntrack --ctstate DNAT", "-m conntrack ! --ctstate SNAT,DNAT"]},
    },
    "kube-proxy": {
        "nat": {
            "PREROUTING": ["-j SERVICES"],
            "OUTPUT": ["-j SERVICES"],
            "POSTROUTING": [
                "-m mark ! --mark 0x4000/0x4000 -j RETURN",
                "-j MARK --set-xmark 0x4000/0x0",
                "-j MASQUERADE --random-fully",
            ],
            "SERVICES": ["-d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j SVC"],
            "SVC": [
                "! -s 10.1.0.3/32 -d 10.96.0.1/32 -j MARK --set-xmark 0x4000/0x4000",
                "-m statistic --mode random --probability 0.33333333349 -j SEP-1",
                "-m statistic --mode random --probability 0.50000000000 -j SEP-2",
                "-j SEP-3",
            ],
            "SEP-1": ["-p tcp -m tcp -j DNAT --to-destination 10.2.0.2:80"],
            "SEP-2": ["-p tcp -m tcp -j DNAT --to-destination 10.2.0.3:80"],
            "SEP-3": ["-p tcp -m tcp -j DNAT --to-destination 10.2.0.2:8080"],
        }
    },
    "untracked": {
        "raw": {
            "PREROUTING": ["-p udp -j NOTRACK", "-p tcp -m tcp --dport 443 -j CT --notrack"],
            "OUTPUT": ["-p udp -j CT --notrack"],
        },
        "filter": {
            chain: ["-m conntrack --ctstate UNTRACKED -j ACCEPT", "-m conntrack ! --ctstate NEW -j DROP"]
            for chain in ("INPUT", "FORWARD", "OUTPUT")
        },
    },
    "harmless": {
        "filter": {
            "FORWARD": [
                '-j LOG --log-prefix "-j DROP: " --log-level 5',
                "-j NFLOG --nflog-group 2 --nflog-prefix DPI --nflog-size 80",
                "-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
                "",
            ]
        },
        "raw": {"PREROUTING": ["-j TRACE"]},
        "mangle": {"FORWARD": ["-j DSCP --set-dscp 0x0a", "-m dscp --dscp 0x0a -j ACCEPT", "-j DROP"]},
    },
    "written to a set": {
        "filter": {"FORWARD": ["-j SET --add-set met src", "-m set --match-set met src -j ACCEPT", "-j DROP"]},
    },
}


def packets() -> list[Probe]:
    made = []
    for link, source, destination in (
        ("eth-c", "10.1.0.2", "10.2.0.2"),
        ("eth-c", "10.1.0.3", "10.96.0.1"),
        ("eth-c", "10.1.0.2", "10.96.0.1"),
        ("eth-c", "10.1.0.3", "10.2.0.1"),
        ("", "10.2.0.1", "10.96.0.1"),
        ("", "10.1.0.1", "10.1.0.2"),
    ):
        for protocol, port in ((TCP, 80), (TCP, 443), (TCP, 8080), (UDP, 53)):
            flags = SYN if protocol == TCP else 0
            made.append(
                fresh(Probe(link, Datagram(ip_address(source), ip_address(destination), protocol, 1, port, flags)))
            )
    return made


@pytest.mark.parametrize("case", CASES)
def test_what_rules_do(world: World, case: str) -> None:
    world.load({"ip": restore_text("ip", CASES[case])})
    wrong = world.check(packets())
    assert not wrong, "\n\n".join(wrong[:3])


def test_a_policy_to_drop(world: World) -> None:
    tables = {"filter": {"FORWARD": ["-p tcp -j ACCEPT", "-j RETURN"], "INPUT": ["-p udp -j ACCEPT"]}}
    world.load({"ip": restore_text("ip", tables, drop=("filter FORWARD", "filter INPUT"))})
    wrong = world.check(packets())
    assert not wrong, "\n\n".join(wrong[:3])


def test_both_backends_at_once() -> None:
    """A table of one backend, the same table with other rules of the other, and each with one of its own."""
    if why := namespaces.supported():
        pytest.skip(why)
    router = Router()
    try:
        new, old = World(router, "nft", ""), World(router, "legacy", "")
        drops = {port: f"-p tcp -m tcp --dport {port} -j DROP" for port in (80, 443)}
        new.load({"ip": restore_text("ip", {"filter": {"FORWARD": [drops[80], ""]}, "mangle": {"FORWARD": [""]}})})
        old.load({"ip": restore_text("ip", {"filter": {"FORWARD": [drops[443], ""]}, "raw": {"PREROUTING": [""]}})})
        walker = new.walker(old.saved())
        tables = walker.state.ruleset.tables()
        assert {("ip", "filter"), ("ip", "filter (legacy)"), ("ip", "mangle"), ("ip", "raw")} <= set(tables)
        for port, ending in ((80, "denied"), (443, "denied"), (8080, "sent")):
            probe = fresh(Probe("eth-c", Datagram(ip_address("10.1.0.2"), ip_address("10.2.0.2"), TCP, 1, port, SYN)))
            assert bool(probe.send(router)) is (ending == "sent")
            assert [a.result.ending for a in new.walked(walker, [probe.step()])] == [ending]
    finally:
        router.close()


# ------------------------------------------------------------------------------------------------------ generation

MATCHES = {
    "ip": (
        "", "-p tcp", "-p udp", "! -p tcp", "-p tcp -m tcp --dport 80", "-p tcp -m multiport --dports 80,8000:9000",
        "-s 10.1.0.0/24", "! -d 10.2.0.0/25", "-m set --match-set nets src", "-m set ! --match-set nets dst",
        "-m set --match-set ipport dst,dst", "-m conntrack --ctstate NEW", "-m conntrack ! --ctstate NEW,DNAT",
        "-m conntrack --ctstate INVALID", "-m mark --mark 0x0/0x3", "-m mark ! --mark 0x1/0x1",
        "-m mark --mark 0x2/0x2",
        "-m addrtype --dst-type LOCAL", "-m statistic --mode random --probability 0.5",
    ),
    "ip6": (
        "", "-p tcp", "-p udp", "-p tcp -m tcp ! --dport 80", "-s fd01::/64", "! -d fd02::2",
        "-m set --match-set sixnets src", "-m set ! --match-set sixports dst,dst", "-m conntrack --ctstate NEW",
        "-m conntrack --ctstate NEW,DNAT", "-m mark --mark 0x0/0x3", "-m mark ! --mark 0x1/0x1",
        "-m addrtype ! --dst-type LOCAL",
    ),
}  # fmt: skip
ANYWHERE = (
    "", "-j RETURN", "-j ACCEPT", "-j DROP", "-j MARK --set-xmark 0x1/0x1", "-j MARK --set-xmark 0x2/0x3",
    "-j MARK --set-xmark 0x0/0xffffffff", "-j c1", "-j c2", "-g c1", "-g c2",
)  # fmt: skip
IN_TABLE = {
    "raw": ("-j NOTRACK",),
    "mangle": ("-j CONNMARK --save-mark", "-j CONNMARK --restore-mark"),
    "filter": ("-j REJECT",),
    "nat": (),
}
TRANSLATIONS = {
    ("ip", "PREROUTING"): ("-p tcp -j DNAT --to-destination 10.2.0.3:8080", "-j DNAT --to-destination 10.2.0.3"),
    ("ip", "OUTPUT"): ("-p tcp -j DNAT --to-destination 10.2.0.3:8080",),
    ("ip", "POSTROUTING"): ("-j MASQUERADE", "-j SNAT --to-source 10.2.0.100"),
    ("ip6", "PREROUTING"): ("-p tcp -j DNAT --to-destination [fd02::3]:8080",),
    ("ip6", "POSTROUTING"): ("-j MASQUERADE",),
}


@st.composite
def rule_sets(draw: Callable[[st.SearchStrategy[str]], str], family: str) -> str:
    tables: dict[str, dict[str, list[str]]] = {}
    for table, hooks in BUILTIN.items():
        chains: dict[str, list[str]] = {}
        for chain in (*hooks, "c1", "c2"):
            targets = [
                t for t in (*ANYWHERE, *IN_TABLE[table]) if not (table == "nat" and t in ("-j DROP", "-j REJECT"))
            ]
            # A loop cannot be loaded: c1 may jump to c2 alone, and c2 nowhere.
            later = {"c1": ("c2",), "c2": ()}.get(chain, ("c1", "c2"))
            targets = [t for t in targets if t[3:] in later or t[:2] not in ("-j", "-g") or t[3:4].isupper()]
            if table == "nat":
                targets += TRANSLATIONS.get((family, chain), ())
            pairs = st.tuples(st.sampled_from(MATCHES[family]), st.sampled_from(targets))
            rules = draw(st.lists(pairs, max_size=3))  # type: ignore[arg-type]
            chains[chain] = [rule for rule in map(_joined, rules) if rule]
        tables[table] = chains
    policy = draw(st.sampled_from(("", "filter FORWARD", "filter INPUT")))
    return restore_text(family, tables, drop=(policy,))


def _joined(parts: tuple[str, str]) -> str:
    """One rule of a match and a target; "" where both name a protocol."""
    match, target = parts
    return "" if "-p " in match and "-p " in target else f"{match} {target}".strip()


@pytest.mark.slow
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(v4=rule_sets("ip"), v6=rule_sets("ip6"), sent=st.lists(probes(), min_size=4, max_size=4))
def test_generated_rules(world: World, v4: str, v6: str, sent: list[Probe]) -> None:
    world.load({"ip": v4, "ip6": v6})
    wrong = world.check([fresh(probe) for probe in sent])
    assert not wrong, "\n\n".join([*wrong[:2], v4, v6])
