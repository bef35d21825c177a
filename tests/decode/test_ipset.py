"""Sets as ``ipset save`` writes them, and bad listings."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode.ipset import SavedSets
from calico_debug.errors import EvidenceError
from calico_debug.model.nft import Interval, NamePrefix, SetContent
from calico_debug.state.ruleset import ElementIndex


def number(address: str) -> int:
    return int(ip_address(address))


def elements(text: str, name: str = "s") -> SetContent:
    content = SavedSets(text, "ipset-save.txt").elements(name)
    assert content is not None
    return content


@pytest.mark.parametrize(
    ("head", "element", "key"),
    [
        ("hash:ip family inet", "10.0.0.1", number("10.0.0.1")),
        ("hash:ip family inet6 hashsize 64", "fd00::1", number("fd00::1")),
        ("hash:ip family inet netmask 24", "10.0.1.0", Interval(number("10.0.1.0"), number("10.0.1.255"))),
        ("hash:ip family inet timeout 0 counters", "10.0.0.1 timeout 59 packets 1 bytes 60", number("10.0.0.1")),
        ("hash:ip family inet comment", '10.0.0.1 comment "with nomatch in it"', number("10.0.0.1")),
        ("hash:net family inet", "10.0.0.0/8", Interval(number("10.0.0.0"), number("10.255.255.255"))),
        ("hash:net family inet", "10.0.0.1", number("10.0.0.1")),
        ("hash:ip,port family inet", "10.0.0.1,tcp:80", (number("10.0.0.1"), 6, 80)),
        ("hash:ip,port family inet", "10.0.0.1,sctp:80", (number("10.0.0.1"), 132, 80)),
        ("hash:ip,port family inet", "10.0.0.1,icmp:8/0", (number("10.0.0.1"), 1, 8 << 8)),
        ("hash:ip,port family inet", "10.0.0.1,icmp:port-unreachable", (number("10.0.0.1"), 1, 3 << 8 | 3)),
        ("hash:ip,port family inet6", "fd00::1,icmpv6:echo-request", (number("fd00::1"), 58, 128 << 8)),
        ("hash:ip,port family inet", "10.0.0.1,gre:0", (number("10.0.0.1"), 47, 0)),
        (
            "hash:net,port family inet",
            "10.0.0.0/24,udp:53",
            (Interval(number("10.0.0.0"), number("10.0.0.255")), 17, 53),
        ),
        ("hash:net,iface family inet", "10.0.0.1,eth0", (number("10.0.0.1"), "eth0")),
        ("hash:net,iface family inet", "10.0.0.1,eth wildcard", (number("10.0.0.1"), NamePrefix("eth"))),
        ("hash:ip,mark family inet markmask 0xff", "10.0.0.1,0x00000101", (number("10.0.0.1"), 1)),
        ("hash:mac", "02:00:00:00:00:01", 0x020000000001),
        ("bitmap:ip range 10.0.0.0/24", "10.0.0.7", number("10.0.0.7")),
        (
            "hash:ip,port,net family inet",
            "10.0.0.1,tcp:80,10.1.0.0/16",
            (number("10.0.0.1"), 6, 80, Interval(number("10.1.0.0"), number("10.1.255.255"))),
        ),
    ],
)
def test_elements(head: str, element: str, key: object) -> None:
    content = elements(f"create s {head}\nadd s {element}\n")
    assert [e.key for e in (*content.exact.values(), *content.ranged)] == [key]


def test_a_port_alone_is_of_tcp_and_of_udp() -> None:
    assert set(elements("create s bitmap:port range 0-1024\nadd s 80\n").exact) == {(6, 80), (17, 80)}


def test_a_list_has_what_its_members_have() -> None:
    text = (
        "create a hash:ip family inet\nadd a 10.0.0.1\n"
        "create b hash:net family inet\nadd b 10.0.0.0/30\nadd b 10.0.0.2 nomatch\n"
        "create s list:set size 8\nadd s a\nadd s b\n"
    )
    sets = SavedSets(text, "ipset-save.txt")
    assert sets.members("s") == ("a", "b")
    index = ElementIndex(elements(text))
    assert [bool(index.find(number(f"10.0.0.{last}"))) for last in range(5)] == [True, True, False, True, False]


@given(
    st.dictionaries(
        st.tuples(st.integers(0, 255), st.integers(24, 32)).map(
            lambda p: str(ip_network(f"10.0.0.{p[0]}/{p[1]}", strict=False))
        ),
        st.booleans(),
        max_size=12,
    )
)
def test_of_nested_networks_the_most_specific_counts(networks: dict[str, bool]) -> None:
    lines = [f"add s {network}{'' if matches else ' nomatch'}\n" for network, matches in networks.items()]
    index = ElementIndex(elements("".join(["create s hash:net family inet\n", *lines])))
    for last in range(256):
        address = ip_address(f"10.0.0.{last}")
        covering = [ip_network(network) for network in networks if address in ip_network(network)]
        best = max(covering, key=lambda network: network.prefixlen, default=None)
        assert (index.find(int(address)) is not None) is (best is not None and networks[str(best)])


def test_a_set_that_is_not_there() -> None:
    sets = SavedSets("", "ipset-save.txt")
    assert sets.elements("s") is None
    assert sets.describe("s") is None
    assert sets.names() == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("create s hash:ip family inet\nadd s 10.0.0.1\nadd s 10.0", "was cut off"),
        ("add s 10.0.0.1\n", "line 1: an element of no known set"),
        ("create s hash:ip\ncreate s hash:ip\n", "line 2: not the head of a new set"),
        ("create s\n", "line 1: not the head of a new set"),
        ("ipset v7.17: Kernel error\n", "line 1: neither a set nor an element"),
    ],
)
def test_listings_that_are_not_whole(text: str, message: str) -> None:
    with pytest.raises(EvidenceError, match=message):
        SavedSets(text, "ipset-save.txt")


@pytest.mark.parametrize(
    ("head", "element"),
    [
        ("hash:ip family inet", "10.0.0.300"),
        ("hash:ip family inet", "10.0.0.1,tcp:80"),
        ("hash:ip,port family inet", "10.0.0.1,nothing:80"),
        ("hash:ip,port family inet", "10.0.0.1,tcp:99999"),
        ("hash:net,iface family inet", "10.0.0.0/8,physdev:eth0"),
        ("hash:net,net family inet", "10.0.0.0/8,10.0.0.0/8 nomatch"),
        ("hash:ip family inet bitmask 255.0.255.0", "10.0.0.1"),
        ("hash:new family inet", "10.0.0.1"),
        ("hash:ip family inet", "10.0.0.1 unheard-of"),
        ("hash:ip family inet", '10.0.0.1 comment "without end'),
        ("list:set size 8", "gone"),
    ],
)
def test_elements_that_are_not_understood(head: str, element: str) -> None:
    sets = SavedSets(f"create s {head}\nadd s {element}\n", "ipset-save.txt")
    with pytest.raises(EvidenceError, match=r"ipset-save\.txt: set s "):
        sets.elements("s")


@given(st.text(alphabet='createadds hash:ip,net\n10./-"\\', max_size=80))
def test_anything_is_decoded_or_refused(text: str) -> None:
    try:
        sets = SavedSets(text, "ipset-save.txt")
        for name in sets.names():
            sets.elements(name)
    except EvidenceError:
        pass
