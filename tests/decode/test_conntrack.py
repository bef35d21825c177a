"""conntrack -L: every protocol that conntrack-tools prints, real connections, damaged lines."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM, socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode.conntrack import decode_connection, decode_connections, lines_between, lines_from
from calico_debug.model.conntrack import STATUS_BITS, Connection, Tuple
from tests.evidence.memory import recorded_bundles
from tests.lab import namespaces


def tup(
    protocol: int, source: str, destination: str, *ports: int, zone: int = 0, icmp: tuple[int, int, int] | None = None
) -> Tuple:
    return Tuple(protocol, ip_address(source), ip_address(destination), *(ports or (None, None)), icmp=icmp, zone=zone)


A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"

LINES: dict[str, Connection] = {
    # What snprintf_default.c prints for each protocol that has fields of its own.
    "tcp      6 431999 ESTABLISHED src=10.0.0.1 dst=10.0.0.3 sport=40000 dport=80 packets=5 bytes=268 "
    "src=10.0.0.2 dst=10.0.0.1 sport=8080 dport=40000 packets=4 bytes=235 [ASSURED] mark=16 use=1": Connection(
        tup(6, A, C, 40000, 80), tup(6, B, A, 8080, 40000), 431999, "ESTABLISHED", True, True, 16, 0, (5, 4), (268, 235)
    ),
    "tcp      6 100 SYN_SENT src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=2 "
    "dport=1 mark=0 use=1": Connection(tup(6, A, B, 1, 2), tup(6, B, A, 2, 1), 100, "SYN_SENT", False),
    "udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1 "
    "mark=0 secctx=system_u:object_r:unlabeled_t:s0 zone=7 delta-time=12 use=2": Connection(
        tup(17, A, B, 1, 2, zone=7), tup(17, B, A, 2, 1, zone=7), 29, "", False, zone=7, age=12
    ),
    "tcp      6 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1 [OFFLOAD] mark=0 "
    "use=3": Connection(tup(6, A, B, 1, 2), tup(6, B, A, 2, 1), None, "", True, True),
    "tcp      6 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1 [HW_OFFLOAD] "
    "use=3": Connection(tup(6, A, B, 1, 2), tup(6, B, A, 2, 1), None, "", True, True),
    "icmp     1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=4660 src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=4660 "
    "mark=0 use=1 id=77": Connection(tup(1, A, B, icmp=(8, 0, 4660)), tup(1, B, A, icmp=(0, 0, 4660)), 29, "", True),
    "ipv6     10 icmpv6   58 29 src=fd00::1 dst=fd00::2 type=128 code=0 id=9 [UNREPLIED] src=fd00::2 dst=fd00::1 "
    "type=129 code=0 id=9 mark=0 zone=0 use=2": Connection(
        tup(58, "fd00::1", "fd00::2", icmp=(128, 0, 9)), tup(58, "fd00::2", "fd00::1", icmp=(129, 0, 9)), 29, "", False
    ),
    "sctp     132 209 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 zone-orig=3 src=10.0.0.2 dst=10.0.0.1 "
    "sport=2 dport=1 [ASSURED] mark=0 use=1": Connection(
        tup(132, A, B, 1, 2, zone=3), tup(132, B, A, 2, 1), 209, "ESTABLISHED", True, True
    ),
    "dccp     33 599 REQUEST src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=2 "
    "dport=1 zone-reply=4 mark=0 use=1": Connection(
        tup(33, A, B, 1, 2), tup(33, B, A, 2, 1, zone=4), 599, "REQUEST", False
    ),
    "gre      47 179 src=10.0.0.1 dst=10.0.0.2 srckey=0x1f dstkey=0x0 src=10.0.0.2 dst=10.0.0.1 srckey=0x0 dstkey=0x1f "
    "[ASSURED] mark=0 use=1": Connection(tup(47, A, B, 31, 0), tup(47, B, A, 0, 31), 179, "", True, True),
    "unknown  89 599 src=10.0.0.1 dst=10.0.0.2 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 mark=0 use=1": Connection(
        tup(89, A, B), tup(89, B, A), 599, "", False
    ),
    "[1700000000.123456]\t    [NEW] udplite  136 30 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 [UNREPLIED] "
    "src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1": Connection(tup(136, A, B, 1, 2), tup(136, B, A, 2, 1), 30, "", False),
}


@pytest.mark.parametrize("line", LINES)
def test_every_protocol(line: str) -> None:
    assert decode_connection(line) == LINES[line]


def test_status_follows_from_the_tuples() -> None:
    nat, plain = list(LINES.values())[:2]
    assert nat.status == sum(STATUS_BITS[bit] for bit in ("confirmed", "seen-reply", "assured", "dnat"))
    assert plain.status == STATUS_BITS["confirmed"]


def test_broken_lines_are_counted_and_quoted() -> None:
    good = next(iter(LINES))
    text = (
        f"{good}\n\ntcp 6 12 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sp\n{good}\n"
        "conntrack v1.4.7 (conntrack-tools): 2 flow entries have been shown.\n"
        "tcp 6 1 X src=10.0.0.1 dst=fd00::1 sport=1 dport=2 src=10.0.0.1 dst=10.0.0.1 sport=1 dport=2\n"
        "udp 999 src=1\n"
    )
    decoded = decode_connections(text.encode())
    assert len(decoded.connections) == 2
    assert decoded.undecodable == 3
    assert decoded.example.startswith("'tcp 6 12 ESTABLISHED")
    assert "1 tuples instead of 2" in decoded.example


@given(
    st.binary(max_size=300)
    | st.lists(st.sampled_from(" ".join(LINES).split()), max_size=30).map(" ".join).map(str.encode)
)
def test_any_bytes_are_survived(data: bytes) -> None:
    decoded = decode_connections(data)
    assert decoded.undecodable >= 0
    assert bool(decoded.example) == bool(decoded.undecodable)


def test_lines_between_two_addresses() -> None:
    text = "\n".join(LINES).encode()
    assert lines_between(text, ip_address(C), ip_address(A)) == b""
    found = lines_between(text, ip_address("fd00::2"), ip_address("fd00::1"))
    assert [c.original.protocol for c in decode_connections(found).connections] == [58]
    # Either direction counts, each line once: all but the one of IPv6, whose first direction was translated too.
    both = lines_between(text, ip_address(B), ip_address(A))
    assert len(both.splitlines()) == len(set(both.splitlines())) == len(LINES) - 1
    assert len(lines_between(text, ip_address(A), ip_address(C)).splitlines()) == 1
    assert lines_between(b"x src=10.0.0.1 dst=10.0.0.20 ", ip_address(A), ip_address(B)) == b""


def test_recordings_decode_completely() -> None:
    total = 0
    for bundle in recorded_bundles():
        for path in bundle.glob("nodes/*/conntrack*.txt"):
            decoded = decode_connections(path.read_bytes())
            assert not decoded.example, path
            total += len(decoded.connections)
    assert total > 400


@pytest.fixture
def namespace() -> Iterator[str]:
    if reason := namespaces.supported():
        pytest.skip(reason)
    name = namespaces.create(["ct"])["ct"]
    try:
        namespaces.ip(name, ["link set lo up", *(f"addr add {a}/24 dev lo" for a in (A, B, C))])
        namespaces.ip(name, ["addr add fd00::1/64 dev lo nodad", "addr add fd00::2/64 dev lo nodad"], "-6")
        namespaces.await_addresses(name, "fd00::1", "fd00::2")
        namespaces.nft(
            name,
            "add table inet t\n"
            "add chain inet t c { type filter hook output priority 0; }\n"
            "add rule inet t c ct state new ct mark set 0x10\n"
            "add chain inet t d { type nat hook output priority -100; }\n"
            "add rule inet t d ip daddr 10.0.0.3 tcp dport 80 dnat ip to 10.0.0.2:8080\n",
        )
        yield name
    finally:
        namespaces.delete([name])


@pytest.mark.kernel
def test_connections_of_the_kernel(namespace: str) -> None:
    with namespaces.entered(namespace):
        sockets = []
        for family, source, target, port, shown in (
            (AF_INET, A, B, 8080, B),
            (AF_INET6, "fd00::1", "fd00::2", 8080, "fd00::2"),
            (AF_INET, A, B, 8080, C),
        ):
            listener = socket(family, SOCK_STREAM)
            if shown == target:
                listener.bind((target, port))
                listener.listen()
            client = socket(family, SOCK_STREAM)
            client.bind((source, 40000 + len(sockets)))
            client.connect((shown, port if shown == target else 80))
            sockets += [listener, client]
        datagram = socket(AF_INET, SOCK_DGRAM)
        datagram.bind((A, 41000))
        datagram.sendto(b"x", (B, 53))
        raw = socket(AF_INET, SOCK_RAW, 89)
        raw.bind((A, 0))
        raw.sendto(bytes(20), (B, 0))
        gre = socket(AF_INET, SOCK_RAW, 47)
        gre.bind((A, 0))
        gre.sendto(bytes(20), (B, 0))
        text = subprocess.run(["conntrack", "-L"], capture_output=True, check=True).stdout
        for open_socket in (*sockets, datagram, raw, gre):
            open_socket.close()
    decoded = decode_connections(text)
    assert not decoded.example
    by_tuple = {connection.original: connection for connection in decoded.connections}
    plain = by_tuple[tup(6, A, B, 40000, 8080)]
    assert (plain.state, plain.replied, plain.assured, plain.mark) == ("ESTABLISHED", True, True, 0x10)
    assert plain.timeout is not None
    assert plain.timeout > 1000
    assert tup(6, "fd00::1", "fd00::2", 40002, 8080) in by_tuple
    translated = by_tuple[tup(6, A, C, 40004, 80)]
    assert translated.reply == tup(6, B, A, 8080, 40004)
    assert translated.status & STATUS_BITS["dnat"]
    assert not translated.status & STATUS_BITS["snat"]
    assert not by_tuple[tup(17, A, B, 41000, 53)].assured
    assert by_tuple[tup(89, A, B)].timeout
    assert by_tuple[tup(47, A, B, 0, 0)].reply == tup(47, B, A, 0, 0)


def test_lines_from_a_port() -> None:
    server = (ip_address(B), 2)
    wanted = [c for c in LINES.values() if (c.reply.source, c.reply.source_port) == server]
    found = decode_connections(lines_from("\n".join(LINES).encode(), *server)).connections
    assert len(wanted) > 1
    assert [c for c in found if (c.reply.source, c.reply.source_port) == server] == wanted
    assert len(found) < len(LINES)
    assert lines_from(b"x src=10.0.0.1 dst=10.0.0.2 sport=8 dport=80 ", ip_address("10.0.0.1"), 80) == b""
