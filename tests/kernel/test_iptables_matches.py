"""Every match that is decoded, with real packets on both backends: rules that only count, and the walk's count."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from calico_debug.model.nft import UnknownStatement
from calico_debug.walk.choices import Kind
from tests.kernel.frames import ICMP, ICMPV6, TCP, UDP, Datagram
from tests.kernel.iptables_world import BUILTIN, World, restore_text
from tests.kernel.probes import ACK, SYN, Probe, fresh

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.kernel

SETS = """\
create ips hash:ip family inet
add ips 10.1.0.2
add ips 10.2.0.3
create masked hash:ip family inet netmask 24
add masked 10.2.0.0
create nets hash:net family inet
add nets 10.0.0.0/8
add nets 10.1.0.0/24 nomatch
add nets 10.1.0.2/31
add nets 10.1.0.3/32 nomatch
create plainnets hash:net family inet timeout 0 counters comment
add plainnets 10.0.0.0/8 timeout 3000 comment "all of it"
add plainnets 10.2.0.0/25
create ipport hash:ip,port family inet
add ipport 10.2.0.2,tcp:80
add ipport 10.2.0.2,udp:53
add ipport 10.1.0.2,tcp:443
add ipport 10.2.0.3,icmp:echo-request
create netport hash:net,port family inet
add netport 10.2.0.0/24,tcp:80
add netport 10.2.0.2,tcp:80 nomatch
add netport 10.2.0.0/25,udp:53
create netiface hash:net,iface family inet
add netiface 10.1.0.0/24,eth-c
add netiface 10.2.0.0/24,eth-s
add netiface 10.2.0.3,eth-s nomatch
create triple hash:ip,port,ip family inet
add triple 10.1.0.2,tcp:80,10.2.0.2
create tripnet hash:ip,port,net family inet
add tripnet 10.1.0.2,tcp:80,10.2.0.0/24
add tripnet 10.1.0.2,tcp:80,10.2.0.3 nomatch
create ports bitmap:port range 0-1024
add ports 80
add ports 53
create addresses bitmap:ip range 10.2.0.0/24
add addresses 10.2.0.2
create both list:set size 8
add both ips
add both nets
create six hash:ip family inet6
add six fd02::2
create sixnets hash:net family inet6
add sixnets fd01::/64
add sixnets fd01::3/128 nomatch
create sixports hash:ip,port family inet6
add sixports fd02::2,tcp:80
add sixports fd02::3,icmpv6:128/0
"""

ANY_FAMILY = (
    "-i eth-c",
    "! -i eth-c",
    "-i eth+",
    "-o eth-s",
    "! -o eth-s",
    "-o alt+",
    "-p tcp",
    "! -p tcp",
    "-p udp",
    "-p 6",
    "-p tcp -m tcp",
    "-p tcp -m tcp --dport 80",
    "-p tcp -m tcp ! --dport 80",
    "-p tcp -m tcp --dport 80:443",
    "-p tcp -m tcp ! --dport 100:443",
    "-p tcp -m tcp --sport 20000:60000",
    "-p tcp -m tcp --sport :1024",
    "-p tcp -m tcp --dport 1024:",
    "-p udp -m udp --dport 53",
    "-p tcp -m tcp --syn",
    "-p tcp -m tcp ! --syn",
    "-p tcp -m tcp --tcp-flags SYN,ACK ACK",
    "-p tcp -m tcp --tcp-flags ALL SYN",
    "-p tcp -m tcp ! --tcp-flags SYN,ACK,RST,FIN SYN",
    "-p tcp -m multiport --dports 53,80,8000:9000",
    "-p tcp -m multiport ! --dports 53,80,8000:9000",
    "-p tcp -m multiport --dports 80",
    "-p tcp -m multiport --dports 1:100,50:60",
    "-p udp -m multiport --dports 53,80",
    "-p tcp -m multiport --sports 20000:59999",
    "-p tcp -m multiport --ports 80,443",
    "-p tcp -m multiport ! --ports 80,443",
    "-m conntrack --ctstate NEW",
    "-m conntrack ! --ctstate NEW",
    "-m conntrack --ctstate INVALID",
    "-m conntrack --ctstate RELATED,ESTABLISHED",
    "-m conntrack --ctstate UNTRACKED",
    "-m conntrack --ctstate DNAT",
    "-m conntrack ! --ctstate DNAT",
    "-m conntrack ! --ctstate DNAT,SNAT",
    "-m conntrack --ctstate NEW,DNAT",
    "-m conntrack --ctstate INVALID,DNAT",
    "-m state --state NEW,ESTABLISHED",
    "-m conntrack --ctdir ORIGINAL",
    "-m conntrack --ctdir REPLY",
    "-m conntrack --ctproto 6",
    "-m conntrack --ctorigdstport 80",
    "-m conntrack --ctstatus SEEN_REPLY",
    "-m mark --mark 0x0",
    "-m mark --mark 0x10",
    "-m mark ! --mark 0x10/0xf0",
    "-m mark --mark 0x0/0x1",
    "-m connmark --mark 0x0",
    "-m connmark ! --mark 0x5/0xff",
    "-m set --match-set ports dst",
    "-m set ! --match-set ports dst",
    "-m set --match-set ports src",
    "-m statistic --mode random --probability 1.0",
    '-m comment --comment "a \\"quoted\\" \\\\ word"',
    "-m comment --comment -j",
    '-m comment --comment "! -m set"',
    "-m pkttype --pkt-type unicast",
    "-m pkttype ! --pkt-type broadcast",
    "-m recent --name never ! --set",
    "-m recent --name here --set",
    "-m recent --name here --rcheck",
    "-m recent --name here ! --rcheck",
    "-m recent --name here --update --seconds 60 --hitcount 1 --reap",
    "-m recent --name there --set --rdest",
    "-m recent --name there --rcheck --rdest",
    "-m recent --name there ! --remove --rdest",
)
V4 = (
    "-s 10.1.0.2",
    "! -s 10.1.0.2",
    "-d 10.2.0.0/24",
    "! -d 10.2.0.0/25",
    "-s 10.0.0.2/255.0.0.255",
    "! -f",
    "-p icmp",
    "-p icmp -m icmp --icmp-type 8",
    "-p icmp -m icmp --icmp-type echo-reply",
    "-p icmp -m icmp ! --icmp-type 8",
    "-p icmp -m icmp --icmp-type 8/0",
    "-p icmp -m icmp ! --icmp-type 3/1",
    "-p icmp -m icmp --icmp-type any",
    "-m iprange --src-range 10.1.0.1-10.1.0.2",
    "-m iprange ! --dst-range 10.2.0.3-10.2.0.9",
    "-m conntrack --ctorigsrc 10.1.0.0/24",
    "-m conntrack ! --ctorigdst 10.2.0.2",
    "-m addrtype --dst-type LOCAL",
    "-m addrtype ! --dst-type LOCAL",
    "-m addrtype --src-type UNICAST --dst-type UNICAST",
    "-m addrtype --src-type LOCAL",
    "-m addrtype --dst-type LOCAL,UNICAST",
    "-m addrtype --src-type BLACKHOLE,PROHIBIT",
    *(
        f"-m set {sign}--match-set {name} {directions}"
        for name, directions in (
            ("ips", "src"), ("ips", "dst"), ("ips", "src,dst"), ("masked", "dst"), ("nets", "src"), ("nets", "dst"),
            ("plainnets", "src"), ("ipport", "dst,dst"), ("ipport", "src,src"), ("ipport", "src,dst"),
            ("ipport", "dst"), ("netport", "dst,dst"), ("netport", "src,dst"), ("netiface", "src,src"),
            ("netiface", "dst,dst"), ("netiface", "dst,src"), ("triple", "src,dst,dst"), ("tripnet", "src,dst,dst"),
            ("addresses", "dst"), ("both", "src"), ("both", "dst"),
        )
        for sign in ("", "! ")
    ),
)  # fmt: skip
V6 = (
    "-s fd01::2",
    "! -d fd02::/64",
    "-d fd02::2/128",
    "-p ipv6-icmp",
    "-p ipv6-icmp -m icmp6 --icmpv6-type 128",
    "-p ipv6-icmp -m icmp6 ! --icmpv6-type echo-request",
    "-p ipv6-icmp -m icmp6 --icmpv6-type 1/4",
    "-m addrtype --dst-type LOCAL",
    "-m addrtype ! --dst-type LOCAL",
    *(
        f"-m set {sign}--match-set {name} {directions}"
        for name, directions in (
            ("six", "dst"), ("sixnets", "src"), ("sixports", "dst,dst"), ("sixports", "src,dst"),
        )
        for sign in ("", "! ")
    ),
)  # fmt: skip
IN_PREROUTING = {
    "ip": (
        "-m rpfilter",
        "-m rpfilter --invert",
        "-m rpfilter --loose",
        "-m rpfilter --loose --invert",
        "-m rpfilter --validmark --invert",
        "-m addrtype --dst-type LOCAL --limit-iface-in",
    ),
    "ip6": ("-m rpfilter", "-m rpfilter --invert", "-m rpfilter --loose", "-m rpfilter --validmark --invert"),
}
OPEN = {
    "ip": ("-m length --length 20:90", "-m ttl --ttl-gt 70", "-m dscp --dscp 0x00", "-m tos --tos 0x00/0xff"),
    "ip6": ("-m length --length 20:90", "-m hl --hl-gt 70", "-m dscp --dscp 0x00"),
}
DRAWN = ("-m statistic --mode random --probability 0.5", "-m statistic --mode nth --every 3 --packet 1")
"""What nobody knows beforehand: the walk follows both answers of each, and one of them is what happens."""
REMEMBERED = (
    "-m recent --name seen --rcheck --seconds 60",
    "-m recent --name seen --update --hitcount 2 --rttl",
    "-m recent --name seen --set",
    "-m recent --name seen --rcheck --hitcount 3",
    "-m recent --name gone --remove --rdest",
)
"""What depends on the probes before."""
WITHOUT_OUTGOING = {"PREROUTING", "INPUT"}
WITHOUT_INCOMING = {"OUTPUT", "POSTROUTING"}


def rules(family: str, chain: str) -> list[str]:
    """Every match that the chain may have, without a target."""
    every = [*ANY_FAMILY, *(V4 if family == "ip" else V6)]
    if chain == "PREROUTING":
        every += IN_PREROUTING[family]
    return [
        rule
        for rule in every
        if not (chain in WITHOUT_OUTGOING and ("-o " in rule or "--limit-iface-out" in rule))
        and not (chain in WITHOUT_INCOMING and ("-i " in rule or "--limit-iface-in" in rule))
        and not (chain in WITHOUT_INCOMING | WITHOUT_OUTGOING and "netiface" in rule)
    ]


def every_table(family: str) -> str:
    return restore_text(
        family,
        {table: {chain: rules(family, chain) for chain in BUILTIN[table]} for table in ("raw", "mangle", "filter")},
    )


def probes() -> list[Probe]:
    made: list[Probe] = []
    paths = (
        ("eth-c", "10.1.0.2", "10.2.0.2"),
        ("eth-c", "10.1.0.3", "10.2.0.3"),
        ("eth-c", "10.2.0.20", "10.2.0.2"),
        ("eth-s", "10.2.0.2", "10.1.0.2"),
        ("eth-c", "10.1.0.3", "10.2.0.1"),
        ("", "10.2.0.1", "10.1.0.2"),
        ("eth-c", "fd01::2", "fd02::2"),
        ("eth-c", "fd01::3", "fd02::3"),
        ("eth-c", "fd02::20", "fd02::2"),
        ("eth-c", "fd01::3", "fd02::1"),
        ("", "fd02::1", "fd01::2"),
    )
    for link, source, destination in paths:
        ends = ip_address(source), ip_address(destination)
        six = ends[0].version == 6
        for protocol, port, flags in (
            (TCP, 80, SYN), (TCP, 443, SYN), (TCP, 8080, ACK), (UDP, 53, 0),
        ):  # fmt: skip
            made.append(fresh(Probe(link, Datagram(*ends, protocol, 20_000, port, flags), 0 if link else 0x10)))
        made.append(fresh(Probe(link, Datagram(*ends, ICMPV6 if six else ICMP, 128 if six else 8, 0))))
    return made


def test_every_match_counts_what_the_walk_counts(world: World) -> None:
    world.load({family: every_table(family) for family in ("ip", "ip6")})
    walker = world.walker()
    unknown = [
        (rule.family, rule.chain, rule.handle, statement.text)
        for chain in walker.state.ruleset.base_chains()
        for rule in walker.state.ruleset.rules(chain.family, chain.table, chain.name) or ()
        for statement in rule.statements
        if isinstance(statement, UnknownStatement)
    ]
    assert not unknown
    wrong = world.check(probes(), walker)
    assert not wrong, "\n\n".join(wrong[:4])


def test_open_questions_have_what_happens_among_their_answers(world: World) -> None:
    world.load(
        {family: restore_text(family, {"filter": {"FORWARD": [*OPEN[family], *DRAWN]}}) for family in ("ip", "ip6")}
    )
    wrong = world.check([probe for probe in probes() if probe.link])
    assert not wrong, "\n\n".join(wrong[:4])


def test_what_the_kernel_remembers_is_open(world: World) -> None:
    world.load({family: restore_text(family, {"filter": {"FORWARD": list(REMEMBERED)}}) for family in ("ip", "ip6")})
    wrong = world.check([probe for probe in (*probes(), *probes()) if probe.link])
    assert not wrong, "\n\n".join(wrong[:4])


SERVICE, BACKENDS = "10.96.0.1", ("10.2.0.2", "10.2.0.3")


def affinity() -> str:
    """A service of two backends with ClientIP affinity, as kube-proxy programs it (v1.35, iptables-save)."""
    lists = [f"KUBE-SEP-{number}" for number in range(len(BACKENDS))]
    chains = {
        "PREROUTING": [f"-d {SERVICE}/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-1"],
        "KUBE-SVC-1": [
            *(f"-m recent --rcheck --seconds 10800 --reap --name {name} --rsource -j {name}" for name in lists),
            f"-m statistic --mode random --probability 0.50000000000 -j {lists[0]}",
            f"-j {lists[1]}",
        ],
    }
    for name, backend in zip(lists, BACKENDS, strict=True):
        chains[name] = [f"-p tcp -m recent --set --name {name} --rsource -m tcp -j DNAT --to-destination {backend}:80"]
    return restore_text("ip", {"nat": chains})


def test_a_client_stays_at_one_of_the_backends_that_the_walk_names(world: World) -> None:
    world.load({"ip": affinity()})
    walker = world.walker()
    clients = [f"10.1.0.{last}" for last in (2, 3, 20)]
    chosen: dict[str, set[str]] = {client: set() for client in clients}
    for client in clients * 4:
        probe = fresh(Probe("eth-c", Datagram(ip_address(client), ip_address(SERVICE), TCP, 20_000, 80, SYN)))
        alternatives = world.walked(walker, [probe.step()])
        assert {choice.kind for one in alternatives for choice in one.choices} == {Kind.MEMORY, Kind.BACKEND}
        assert {one.result.packet.destination for one in alternatives} == {int(ip_address(one)) for one in BACKENDS}
        (arrival,) = (seen for seen in probe.send(world.router) if seen.place == "eth-s")
        chosen[client].add(str(arrival.datagram.destination))
    assert all(len(backends) == 1 for backends in chosen.values())
