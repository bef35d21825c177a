"""ip -j against the kernel that it describes: what was configured is what is decoded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode.iproute import decode_addresses, decode_interfaces, decode_routes, decode_rules
from calico_debug.errors import EvidenceError
from calico_debug.model.routing import InterfaceAddress, NextHop, Route, RoutingRule
from tests.evidence.memory import recorded_bundles
from tests.lab import namespaces


def net(text: str):  # type: ignore[no-untyped-def]
    return ip_network(text)


def hop(interface: str, gateway: str = "", weight: int = 1, alive: bool = True) -> NextHop:
    return NextHop(interface, ip_address(gateway) if gateway else None, weight, alive)


# What `ip route add` is given, and the route that must come out; 4 and 6 in one table, since one listing has both.
ROUTES: dict[str, Route] = {
    "10.9.0.0/16 via 10.1.0.2 dev e0 tos 0x10 metric 5 mtu 1400 realm 3": Route(
        net("10.9.0.0/16"), "main", hops=(hop("e0", "10.1.0.2"),), metric=5, tos=0x10
    ),
    "10.8.0.0/16 nexthop via 10.1.0.3 dev e0 weight 3 nexthop via 10.1.0.4 dev e0": Route(
        net("10.8.0.0/16"), "main", hops=(hop("e0", "10.1.0.3", 3), hop("e0", "10.1.0.4"))
    ),
    "10.7.0.0/16 via inet6 2001:db8:1::9 dev e0": Route(net("10.7.0.0/16"), "main", hops=(hop("e0", "2001:db8:1::9"),)),
    "default via 10.1.0.254 dev e0 onlink": Route(net("0.0.0.0/0"), "main", hops=(hop("e0", "10.1.0.254"),)),
    "default dev e0 table 100": Route(net("0.0.0.0/0"), "100", hops=(hop("e0"),), scope="link"),
    "10.6.0.0/16 dev e0 src 10.1.0.1": Route(
        net("10.6.0.0/16"), "main", hops=(hop("e0"),), preferred_source=ip_address("10.1.0.1"), scope="link"
    ),
    "blackhole 10.20.0.0/16 metric 1": Route(net("10.20.0.0/16"), "main", "blackhole", metric=1),
    "unreachable 10.20.0.0/16 metric 2": Route(net("10.20.0.0/16"), "main", "unreachable", metric=2),
    "prohibit 10.20.0.0/16 metric 3": Route(net("10.20.0.0/16"), "main", "prohibit", metric=3),
    "throw 10.20.0.0/16 metric 4 table 7": Route(net("10.20.0.0/16"), "7", "throw", metric=4),
    "local 10.50.0.0/16 dev lo": Route(net("10.50.0.0/16"), "local", "local", (hop("lo"),), scope="host"),
    "10.30.0.0/16 nhid 5": Route(net("10.30.0.0/16"), "main", hops=(hop("e0", "10.1.0.9"),)),
    "10.31.0.0/16 nhid 7": Route(net("10.31.0.0/16"), "main", hops=(hop("e0", "10.1.0.9"), hop("e0", "10.1.0.10", 4))),
    "10.33.0.0/16 dev v0": Route(net("10.33.0.0/16"), "main", hops=(hop("v0"),), scope="link"),
    "2001:db8:5::/48 from 2001:db8:6::/48 via 2001:db8:1::9": Route(
        net("2001:db8:5::/48"), "main", hops=(hop("e0", "2001:db8:1::9"),), metric=1024, source=net("2001:db8:6::/48")
    ),
    "2001:db8:7::/48 nexthop via 2001:db8:1::9 dev e0 nexthop via 2001:db8:1::8 dev e0 weight 2": Route(
        net("2001:db8:7::/48"), "main", hops=(hop("e0", "2001:db8:1::9"), hop("e0", "2001:db8:1::8", 2)), metric=1024
    ),
    "default dev e0 table 101": Route(net("::/0"), "101", hops=(hop("e0"),), metric=1024),
    "prohibit 2001:db8:20::/48 metric 3": Route(net("2001:db8:20::/48"), "main", "prohibit", (hop("lo"),), metric=3),
}

RULES: dict[str, RoutingRule] = {
    "from 10.0.0.0/8 to 11.0.0.0/8 fwmark 0x10/0xf0 iif e0 oif v0 table 100 pref 10": RoutingRule(
        10, 4, "lookup", "100", net("10.0.0.0/8"), net("11.0.0.0/8"), 0x10, 0xF0, "e0", "v0"
    ),
    "not from 10.0.0.1 suppress_prefixlength 0 table main pref 11": RoutingRule(
        11, 4, "lookup", "main", net("10.0.0.1/32"), inverted=True, suppress_prefix_length=0
    ),
    "fwmark 0x5 prohibit pref 12": RoutingRule(12, 4, "prohibit", mark=5, mark_mask=0xFFFFFFFF),
    "fwmark 0/0x10 blackhole pref 13": RoutingRule(13, 4, "blackhole", mark=0, mark_mask=0x10),
    "goto 15 pref 14": RoutingRule(14, 4, "goto", goto=15),
    "nop pref 15": RoutingRule(15, 4, "nop"),
    "unreachable iif gone pref 16": RoutingRule(16, 4, "unreachable", incoming="gone"),
    "uidrange 10-20 ipproto tcp sport 80 dport 100-200 table 100 pref 17": RoutingRule(
        17,
        4,
        "lookup",
        "100",
        unknown=("uid_start 10", "uid_end 20", "ipproto tcp", "sport 80", "dport_start 100", "dport_end 200"),
    ),
    "tun_id 7 tos 0x10 table 100 pref 18": RoutingRule(18, 4, table="100", unknown=("tos 0x10", "tun_id 7")),
    "suppress_ifgroup 3 table main pref 19": RoutingRule(19, 4, table="main", unknown=("suppress_ifgroup 3",)),
    "from all lookup 100 realms 3/4 pref 20": RoutingRule(20, 4, table="100"),
    "from all goto 5000 pref 21": RoutingRule(21, 4, "goto", goto=5000),
}


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    if reason := namespaces.supported():
        pytest.skip(reason)
    name = namespaces.create(["ip"])["ip"]
    setup = [
        "link set lo up",
        "link add v0 type veth peer name v1",
        "link add e0 mtu 1400 type veth peer name e1",
        "link add br0 type bridge",
        "link add vx0 type vxlan id 4096 local 10.1.0.1 dstport 4789 dev e0",
        "link set v1 master br0",
        *(f"link set {link} up" for link in ("e0", "e1", "v0", "v1", "br0")),
        "addr add 10.1.0.1/24 dev e0",
        "addr add 10.2.0.1 peer 10.2.0.2/32 dev e0",
        "addr add 169.254.5.5/16 scope link dev e0",
        "addr add 2001:db8:1::1/64 dev e0 nodad",
        "addr add 2001:db8::1 peer 2001:db8::2 dev e0 nodad",
        "nexthop add id 5 via 10.1.0.9 dev e0",
        "nexthop add id 6 via 10.1.0.10 dev e0",
        "nexthop add id 7 group 5/6,4",
    ]
    try:
        namespaces.ip(name, setup)
        for family in (4, 6):
            added = [f"route add {text}" for text, route in ROUTES.items() if route.destination.version == family]
            namespaces.ip(name, added, f"-{family}")
        namespaces.ip(name, [f"rule add {text}" for text in RULES])
        namespaces.ip(name, ["rule add not from 2001:db8::/32 table 100 pref 50"], "-6")
        yield name
    finally:
        namespaces.delete([name])


def ip_json(namespace: str, *arguments: str) -> bytes:
    return namespaces.run(namespace, ["ip", "-j", *arguments]).encode()


@pytest.mark.kernel
@pytest.mark.parametrize("details", [(), ("-d",)])
def test_routes_of_the_kernel(namespace: str, details: tuple[str, ...]) -> None:
    both = decode_routes(ip_json(namespace, *details, "route", "show", "table", "all"), "ip-route-all.json")
    for text, wanted in ROUTES.items():
        assert wanted in both, text
    assert not [route for route in both if route.unknown]
    four = decode_routes(ip_json(namespace, "-4", *details, "route", "show", "table", "all"), "x", 4)
    six = decode_routes(ip_json(namespace, "-6", *details, "route", "show", "table", "all"), "x", 6)
    assert [r for r in both if r.destination.version == 4] == four
    assert [r for r in both if r.destination.version == 6] == six


@pytest.mark.kernel
def test_a_next_hop_without_carrier(namespace: str) -> None:
    lost = net("10.33.0.0/16")
    namespaces.ip(namespace, ["link set v1 down"])
    (kept,) = [r for r in decode_routes(ip_json(namespace, "route"), "x", 4) if r.destination == lost]
    assert kept.hops[0].alive
    namespaces.sysctl(namespace, {"net/ipv4/conf/v0/ignore_routes_with_linkdown": "1"})
    (ignored,) = [r for r in decode_routes(ip_json(namespace, "route"), "x", 4) if r.destination == lost]
    assert not ignored.hops[0].alive


@pytest.mark.kernel
def test_rules_of_the_kernel(namespace: str) -> None:
    rules = decode_rules(ip_json(namespace, "rule"), "ip-rule.json", 4)
    assert [rule.priority for rule in rules] == [0, *range(10, 22), 32766, 32767]
    by_priority = {rule.priority: rule for rule in rules}
    for text, wanted in RULES.items():
        assert by_priority[wanted.priority] == wanted, text
    assert by_priority[0] == RoutingRule(0, 4, table="local")
    six = decode_rules(ip_json(namespace, "-6", "rule"), "ip6-rule.json", 6)
    assert six[1] == RoutingRule(50, 6, table="100", source=net("2001:db8::/32"), inverted=True)
    assert [rule.table for rule in six] == ["local", "100", "main"]


@pytest.mark.kernel
def test_links_and_addresses_of_the_kernel(namespace: str) -> None:
    for listing in ("link", "addr"):
        links = {link.name: link for link in decode_interfaces(ip_json(namespace, "-d", listing), listing)}
        assert set(links) == {"lo", "v0", "v1", "e0", "e1", "br0", "vx0"}
        assert (links["v1"].kind, links["v1"].master) == ("veth", "br0")
        assert (links["e0"].up, links["e0"].mtu, links["e0"].master) == (True, 1400, "")
        assert not links["vx0"].up
        assert links["vx0"].attributes is not None
        assert (links["vx0"].attributes["id"], links["vx0"].attributes["local"]) == (4096, "10.1.0.1")
        assert len({link.index for link in links.values()}) == 7
    addresses = decode_addresses(ip_json(namespace, "-d", "addr"), "ip-addr.json")
    for wanted in (
        InterfaceAddress("lo", ip_address("127.0.0.1"), 8, scope="host"),
        InterfaceAddress("e0", ip_address("10.1.0.1"), 24),
        InterfaceAddress("e0", ip_address("10.2.0.1"), 32, ip_address("10.2.0.2")),
        InterfaceAddress("e0", ip_address("169.254.5.5"), 16, scope="link"),
        InterfaceAddress("e0", ip_address("2001:db8:1::1"), 64),
        InterfaceAddress("e0", ip_address("2001:db8::1"), 128, ip_address("2001:db8::2")),
    ):
        assert wanted in addresses


def test_xdp_programs_of_a_link() -> None:
    # As iproute2 6.1 prints them, of one program and of several; a program may have been loaded without a name.
    program = {"id": 42, "name": "prefilter", "tag": "1219c30ecbcb6889", "jited": 1}
    attached = [{"mode": 1, "prog": program}, {"mode": 2, "prog": {"id": 43, "tag": "86e02d416f2d4456"}}]
    one = {"mode": 1, "prog": program, "attached": attached[:1]}
    for xdp, names in ((one, "prefilter"), ({"mode": 4, "attached": attached}, "prefilter, id 43"), (None, "")):
        entry = {"ifindex": 2, "ifname": "eth0", "flags": [], **({"xdp": xdp} if xdp else {})}
        (link,) = decode_interfaces(json.dumps([entry]).encode(), "ip-link.json")
        assert link.xdp == names


def test_keys_behind_an_encapsulation_do_not_replace_the_routes_own() -> None:
    # What ip prints of `ip route add 10.40.0.0/16 encap ip id 5 dst 1.2.3.4 dev br0`: "dst" and "tos" come twice.
    text = (
        b'[{"dst":"10.40.0.0/16","encap":"ip","id":5,"src":"0.0.0.0","dst":"1.2.3.4","ttl":0,"tos":0,"dev":"br0",'
        b'"scope":"link","flags":[]}]'
    )
    (route,) = decode_routes(text, "x")
    assert route.destination == net("10.40.0.0/16")
    assert "encap ip" in route.unknown


def test_what_could_change_the_decision_is_shown() -> None:
    (route,) = decode_routes(b'[{"dst":"10.0.0.0/8","nhid":9,"tos":"lowdelay","new-thing":1,"flags":[]}]', "x")
    assert route.unknown == ("new-thing 1", "nhid 9", "tos lowdelay")
    (rule,) = decode_rules(b'[{"priority":1,"src":"all","action":"shrug"}]', "x", 4)
    assert rule.unknown == ("action shrug",)
    (rule,) = decode_rules(b'[{"priority":1000,"src":"all","l3mdev":null}]', "x", 4)
    assert rule.unknown == ("l3mdev",)
    (rule,) = decode_rules(b'[{"priority":1,"src":"all"}]', "x", 4)
    assert rule.unknown == ("no table",)


def test_labels_of_mpls_are_no_ip_routes() -> None:
    assert (
        decode_routes(b'[{"dst":"100","via":{"family":"inet","host":"10.0.0.1"},"dev":"eth0","flags":[]}]', "x") == []
    )


def test_a_default_route_shows_its_family() -> None:
    def family(route: dict[str, object]) -> int:
        return decode_routes(json.dumps([{"dst": "default", "dev": "e", **route}]).encode(), "x")[0].destination.version

    assert family({}) == 4
    assert family({"pref": "medium"}) == 6
    assert family({"gateway": "fe80::1"}) == 6
    assert family({"gateway": "10.0.0.1"}) == 4
    assert family({"via": {"family": "inet6", "host": "fe80::1"}}) == 4


@pytest.mark.parametrize(
    ("decode", "text", "message"),
    [
        (decode_routes, '[{"dst": "10.0.0.0/99"}]', "cannot decode the route .*'10.0.0.0/99'"),
        (decode_routes, '[{"dev": "eth0"}]', "no 'dst'"),
        (decode_routes, '[{"dst": "default", "gateway": 5}]', "5 where a text is expected"),
        (decode_interfaces, '[{"ifname": "eth0"}]', "no 'ifindex'"),
        (decode_interfaces, '[{"ifname": "eth0", "ifindex": 1e999}]', "cannot decode the interface"),
        (
            decode_addresses,
            '[{"ifname": "e", "addr_info": [{"family": "inet", "local": 7, "prefixlen": 8}]}]',
            "7 where",
        ),
        (decode_addresses, '[{"addr_info": 5}]', "cannot decode the address"),
        (decode_interfaces, '{"nftables": []}', "not a list of objects"),
        (decode_interfaces, "[", "truncated"),
    ],
)
def test_damage_is_refused(decode, text: str, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(EvidenceError, match=message) as caught:
        decode(text.encode(), "x.json of n1")
    assert "x.json of n1" in str(caught.value)


def test_a_rule_of_another_family_is_refused() -> None:
    with pytest.raises(EvidenceError, match="is not of IPv4"):
        decode_rules(b'[{"priority": 1, "src": "fd00::1", "table": "main"}]', "x", 4)


KEYS = ["dst", "dev", "gateway", "flags", "nexthops", "ifname", "ifindex", "addr_info", "family", "local", "priority"]
KEYS += ["src", "fwmark", "goto", "via", "tos", "metric", "linkinfo", "info_data", "prefixlen", "suppress_prefixlen"]
VALUES = st.recursive(
    st.none() | st.integers() | st.sampled_from(["10.0.0.1", "default", "all", "fd00::/64", "inet", "x", "0x1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6), max_size=2))
def test_any_objects_decode_or_are_refused(entries: list[object]) -> None:
    data = json.dumps(entries).encode()
    refused = 0
    for decode in (
        lambda: decode_routes(data, "x"),
        lambda: decode_routes(data, "x", 6),
        lambda: decode_rules(data, "x", 4),
        lambda: decode_interfaces(data, "x"),
        lambda: decode_addresses(data, "x"),
    ):
        try:
            decode()
        except EvidenceError:
            refused += 1
    assert refused <= 5


def test_recordings_decode_completely() -> None:
    for bundle in recorded_bundles():
        for node in bundle.glob("nodes/*"):
            routes = decode_routes((node / "ip-route-all.json").read_bytes(), "x")
            assert {r.destination.version for r in routes} == {4, 6}
            rules = decode_rules((node / "ip-rule.json").read_bytes(), "x", 4)
            assert not [entry for entry in (*routes, *rules) if entry.unknown]
            if (node / "ip6-route-all.json").exists():
                six = decode_routes((node / "ip6-route-all.json").read_bytes(), "x", 6)
                assert six == [r for r in routes if r.destination.version == 6]
            links = decode_interfaces((node / "ip-link.json").read_bytes(), "x")
            assert links == decode_interfaces((node / "ip-addr.json").read_bytes(), "x")
            assert decode_addresses((node / "ip-addr.json").read_bytes(), "x")
