"""A node's state: lazy, cached, and open about what is missing."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

import pytest

from calico_debug.decode.conntrack import decode_connections
from calico_debug.errors import EvidenceError, MissingEvidence
from calico_debug.evidence.bundle import open_bundle
from calico_debug.model.conntrack import Tuple
from calico_debug.state import node as module
from calico_debug.state.node import NodeState
from tests.evidence.memory import MemoryNode, recorded_bundles

A = ip_address

ADDRESSES = json.dumps(
    [
        {"ifindex": 1, "ifname": "lo", "addr_info": [{"family": "inet", "local": "127.0.0.1", "prefixlen": 8}]},
        {"ifindex": 2, "ifname": "eth0", "addr_info": [{"family": "inet", "local": "10.0.0.1", "prefixlen": 24}]},
    ]
)
ROUTES = json.dumps(
    [
        {"dst": "default", "gateway": "10.0.0.254", "dev": "eth0", "flags": []},
        {"type": "local", "dst": "10.0.0.1", "dev": "eth0", "table": "local", "flags": []},
        {"type": "local", "dst": "127.0.0.0/8", "dev": "lo", "table": "local", "flags": []},
        {"type": "broadcast", "dst": "127.255.255.255", "dev": "lo", "table": "local", "flags": []},
        {"dst": "fd00::/64", "dev": "eth0", "metric": 256, "flags": [], "pref": "medium"},
    ]
)
RULES = json.dumps([{"priority": 0, "src": "all", "table": "local"}, {"priority": 9, "src": "all", "table": "main"}])
LINE = "tcp 6 9 ESTABLISHED src={} dst={} sport=1 dport=80 src={} dst={} sport=8080 dport=1 [ASSURED] mark=0 use=1\n"
CONNTRACK = LINE.format("10.0.0.1", "10.0.0.9", "10.0.0.2", "10.0.0.1") + LINE.format(*["fd00::1"] * 4) + "junk\n"


def tup(source: str, destination: str, sport: int, dport: int) -> Tuple:
    return Tuple(6, A(source), A(destination), sport, dport)


def test_nothing_is_read_before_it_is_asked_for_and_then_once() -> None:
    evidence = MemoryNode({"ip-addr.json": ADDRESSES, "ip-link.json": ADDRESSES, "sysctl.txt": "a.b = 1"})
    node = NodeState(evidence)
    assert (node.name, node.taken_at, node.origin) == ("n1", "2026-11-21T10:00:00Z", "memory, nodes/n1")
    assert evidence.reads == []
    for _ in range(2):
        assert set(node.interfaces) == {"lo", "eth0"}
        assert node.interfaces_by_index[2].name == "eth0"
        assert len(node.addresses) == 2
        assert node.sysctl("a.b") == "1"
        assert node.sysctl("a.c") is None
    assert evidence.reads == ["ip-link.json", "ip-addr.json", "sysctl.txt"]


def test_interfaces_from_addresses_alone() -> None:
    assert set(NodeState(MemoryNode({"ip-addr.json": ADDRESSES})).interfaces) == {"lo", "eth0"}


def test_routing_and_what_is_local() -> None:
    node = NodeState(MemoryNode({"ip-route-all.json": ROUTES, "ip-rule.json": RULES}))
    assert [rule.priority for rule in node.routing(4).rules] == [0, 9]
    assert {table: len(routes) for table, routes in node.routing(4).tables.items()} == {"main": 1, "local": 3}
    assert node.notes == ()
    assert [node.is_local(A(text)) for text in ("10.0.0.1", "127.9.9.9", "127.255.255.255", "10.0.0.2")] == [
        True,
        True,
        False,
        False,
    ]
    assert [str(route.destination) for route in node.routing(6).tables["main"]] == ["fd00::/64"]
    assert [rule.table for rule in node.routing(6).rules] == ["local", "main"]
    assert "default routing rules are assumed" in node.notes[0]
    assert not node.is_local(A("fd00::1"))


def test_a_listing_of_ipv6_routes_goes_first() -> None:
    six = json.dumps([{"dst": "fd01::/64", "dev": "eth0", "flags": []}])
    node = NodeState(MemoryNode({"ip-route-all.json": ROUTES, "ip6-route-all.json": six, "ip6-rule.json": RULES}))
    assert [str(route.destination) for route in node.routing(6).tables["main"]] == ["fd01::/64"]


def test_routes_of_table_main_alone() -> None:
    main = json.dumps([{"dst": "default", "gateway": "10.0.0.254", "dev": "eth0", "flags": []}])
    node = NodeState(MemoryNode({"ip-route.json": main, "ip-addr.json": ADDRESSES, "ip-rule.json": RULES}))
    assert node.is_local(A("10.0.0.1"))
    assert node.is_local(A("127.0.0.5"))
    assert not node.is_local(A("10.0.0.2"))
    assert "only routes of the tables main and local are known" in node.notes[0]
    with pytest.raises(MissingEvidence, match=r"ip-route-all\.json"):
        node.routing(6)


def test_the_rule_for_vrfs_counts_only_where_there_is_one() -> None:
    rules = json.dumps(
        [{"priority": 1000, "src": "all", "l3mdev": None}, {"priority": 9, "src": "all", "table": "main"}]
    )
    vrf = json.dumps([{"ifindex": 1, "ifname": "red", "linkinfo": {"info_kind": "vrf"}}])
    for links, priorities in ((ADDRESSES, [9]), (vrf, [9, 1000])):
        node = NodeState(MemoryNode({"ip-route-all.json": ROUTES, "ip-rule.json": rules, "ip-link.json": links}))
        assert [rule.priority for rule in node.routing(4).rules] == priorities


def test_connections_by_either_direction() -> None:
    node = NodeState(MemoryNode({"conntrack.txt": CONNTRACK}))
    (found,) = node.connections(4)
    assert node.connection(tup("10.0.0.1", "10.0.0.9", 1, 80)) is found
    assert node.connection(tup("10.0.0.2", "10.0.0.1", 8080, 1)) is found
    assert node.connection(tup("10.0.0.1", "10.0.0.9", 2, 80)) is None
    # Without -f, conntrack lists both families.
    assert [str(c.original.source) for c in node.connections(6)] == ["fd00::1"]
    assert node.notes == (
        "1 lines of conntrack.txt of memory, nodes/n1 cannot be decoded, the first is 'junk': it ends too early",
    )


def test_long_listings_are_searched_before_they_are_indexed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SCAN_FROM", 1)
    decoded: list[int] = []
    monkeypatch.setattr(
        module, "decode_connections", lambda data: decoded.append(len(data)) or decode_connections(data)
    )
    lines = [LINE.format(f"10.0.1.{n}", "10.0.0.9", "10.0.0.2", f"10.0.1.{n}") for n in range(30)]
    node = NodeState(MemoryNode({"conntrack.txt": "".join(lines).rstrip("\n")}))
    for n in range(30):
        found = node.connection(tup(f"10.0.1.{n}", "10.0.0.9", 1, 80))
        assert found is not None
        assert node.connection(found.reply) == found
    # 8 connections by two directions, one line each, and then the whole.
    assert decoded == [len(lines[0]) - 1 + (n > 9) for n in range(8) for _ in range(2)] + [len("".join(lines)) - 1]
    assert node.connection(tup("10.0.1.99", "10.0.0.9", 1, 80)) is None


def test_an_original_direction_goes_before_a_reply() -> None:
    one = LINE.format("10.0.0.1", "10.0.0.9", "10.0.0.2", "10.0.0.1")
    two = "tcp 6 9 X src=10.0.0.2 dst=10.0.0.1 sport=8080 dport=1 src=10.0.0.7 dst=10.0.0.8 sport=1 dport=2 use=1\n"
    node = NodeState(MemoryNode({"conntrack.txt": one + two}))
    found = node.connection(tup("10.0.0.2", "10.0.0.1", 8080, 1))
    assert found is not None
    assert found.state == "X"


def test_optional_evidence_is_absent_with_a_note() -> None:
    node = NodeState(MemoryNode({}))
    assert node.sysctl("net.ipv4.ip_forward") is None
    assert node.interface_sysctl(4, "vxlan.calico", "rp_filter") is None
    assert node.connections(4) == []
    assert node.connection(tup("10.0.0.1", "10.0.0.2", 1, 2)) is None
    assert node.felix == {}
    assert [note.partition(":")[0] for note in node.notes] == [
        "the kernel's settings are not known",
        "no connection is known",
        "Felix's settings are not known",
    ]


def test_required_evidence_is_an_error() -> None:
    node = NodeState(MemoryNode({"ip-addr.json": "[", "nft-ruleset.json": b""}))
    for ask in (lambda: node.routing(4), lambda: node.interfaces, lambda: node.addresses, lambda: node.ruleset):
        with pytest.raises(EvidenceError):
            ask()
    assert node.cni_hint() == ""


def test_interface_sysctls_of_names_with_dots() -> None:
    node = NodeState(MemoryNode({"sysctl.txt": "net.ipv4.conf.vxlan/calico.rp_filter = 2"}))
    assert node.interface_sysctl(4, "vxlan.calico", "rp_filter") == "2"
    assert node.sysctl("net.ipv4.conf.vxlan.calico.rp_filter") == "2"
    assert node.sysctl("net.ipv4.conf.vxlan/calico.rp_filter") == "2"
    assert node.sysctl("net.ipv4.conf.vxlan.calico.forwarding") is None


def test_a_listing_of_connections_that_is_asked_for_has_to_be_there() -> None:
    assert NodeState(MemoryNode({})).connections(4) == []
    with pytest.raises(MissingEvidence, match=r"conntrack\.txt"):
        NodeState(MemoryNode({})).listed_connections(4)
    node = NodeState(MemoryNode({"conntrack.txt": CONNTRACK}))
    assert node.listed_connections(6) == node.connections(6)


def test_a_live_node_is_asked_for_one_connection_and_one_setting() -> None:
    class Live(MemoryNode):
        def find_connection(self, wanted: Tuple) -> bytes:
            self.reads.append("find")
            if wanted.source_port == 99:
                raise EvidenceError("no rights: run as root")
            return CONNTRACK.encode()

        def read_sysctl(self, key: str) -> str | None:
            return {"a": "1"}.get(key)

    evidence = Live({})
    node = NodeState(evidence)
    assert (node.sysctl("a"), node.sysctl("b")) == ("1", None)
    wanted = tup("10.0.0.2", "10.0.0.1", 8080, 1)
    for _ in range(2):
        found = node.connection(wanted)
        assert found is not None
        assert found.reply == wanted
    assert node.connection(tup("10.0.0.2", "10.0.0.1", 8081, 1)) is None
    assert node.connection(tup("10.0.0.2", "10.0.0.1", 99, 1)) is None
    assert evidence.reads == ["find"] * 3
    assert node.notes == ("no connection is known: no rights: run as root",)


def test_recordings(tmp_path: Path) -> None:
    for path in recorded_bundles():
        source = open_bundle(path)
        for name in source.nodes():
            node = NodeState(source.node(name))
            assert "eth0" in node.interfaces
            assert node.sysctl("net.ipv4.ip_forward") == "1"
            assert node.felix["FELIX_FELIXHOSTNAME"] == name
            assert node.ruleset.tables()
            for address in node.addresses:
                assert node.is_local(address.address), (path, name, address)
            for family in (4, 6):
                for connection in node.connections(family):
                    assert node.connection(connection.original) == connection
                    assert node.connection(connection.reply) is not None
            expected = ("ip6-rule.json", "ip6tables-save.txt")  # IPv4-only clusters were recorded without
            assert not [note for note in node.notes if not any(file in note for file in expected)]


@pytest.mark.parametrize(
    ("state", "source", "port", "taken"),
    [
        ("ESTABLISHED", "10.0.0.2", 8080, True),
        ("TIME_WAIT", "10.0.0.2", 8080, True),
        ("SYN_SENT", "10.0.0.2", 8080, False),
        ("CLOSE", "10.0.0.2", 8080, False),
        ("SYN_RECV", "10.0.0.2", 8080, True),
        ("ESTABLISHED", "10.0.0.2", 808, False),
        ("ESTABLISHED", "10.0.0.1", 1, False),
        ("ESTABLISHED", "10.0.0.9", 80, False),
    ],
)
def test_connections_that_were_taken_somewhere(state: str, source: str, port: int, taken: bool) -> None:
    """The server is who answers, behind every translation. A refused connection is closed at once."""
    listing = CONNTRACK.replace("ESTABLISHED", state).replace("[ASSURED] ", "")
    assert (NodeState(MemoryNode({"conntrack.txt": listing})).taken(A(source), port) is not None) is taken


@pytest.mark.parametrize("state", ["", "CLOSE", "ESTABLISHED"])
def test_connections_that_were_once_established(state: str) -> None:
    """Assured is what was established; an offloaded connection has no state."""
    node = NodeState(MemoryNode({"conntrack.txt": CONNTRACK.replace("ESTABLISHED", state)}))
    assert node.taken(A("10.0.0.2"), 8080) is not None
    assert node.taken(A("fd00::1"), 81) is None
