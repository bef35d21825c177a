"""Which entry of conntrack a packet belongs to."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from calico_debug.model.conntrack import STATE_BITS
from calico_debug.walk.connections import ConnectionTable
from calico_debug.walk.packet import ICMP, ICMPV6, TCP, TCP_FLAGS, UDP, Packet
from tests.walk.made_bpf import OTHER_POD, POD_IP, REMOTE_POD, made
from tests.walk.worlds import CLIENT, SERVER, packet, state

SYN, ACK, RST, FIN = (TCP_FLAGS[name] for name in ("syn", "ack", "rst", "fin"))


def _state_of(made: Packet) -> str:
    bits = ConnectionTable(state(), ask_evidence=False).track(made).state
    return next(name for name, bit in STATE_BITS.items() if bit == bits)


@pytest.mark.parametrize(
    ("flags", "found"),
    [(SYN, "new"), (ACK, "new"), (SYN | ACK, "invalid"), (RST, "invalid"), (FIN | ACK, "invalid"), (0, "invalid")],
)
def test_tcp_without_an_entry(flags: int, found: str) -> None:
    assert _state_of(Packet(4, TCP, CLIENT, SERVER, 1, 2, tcp_flags=flags)) == found


def test_without_loose_pickup_an_ack_is_invalid() -> None:
    strict = state(sysctl="net.netfilter.nf_conntrack_tcp_loose = 0\n")
    made = Packet(4, TCP, CLIENT, SERVER, 1, 2, tcp_flags=ACK)
    assert ConnectionTable(strict, ask_evidence=False).track(made).state == STATE_BITS["invalid"]


@pytest.mark.parametrize(
    ("protocol", "kind", "found"),
    [
        (ICMP, 8, "new"),
        (ICMP, 0, "invalid"),
        (ICMPV6, 128, "new"),
        (ICMPV6, 129, "invalid"),
        (ICMPV6, 135, "untracked"),
    ],
)
def test_icmp_without_an_entry(protocol: int, kind: int, found: str) -> None:
    assert _state_of(Packet(4 if protocol == ICMP else 6, protocol, 1, 2, icmp=(kind, 0))) == found


def test_request_answer_and_what_follows() -> None:
    table = ConnectionTable(state(), ask_evidence=False)
    request = packet(protocol=UDP)
    first = table.track(request)
    assert first.state == STATE_BITS["new"]
    assert table.track(packet(protocol=UDP)).state == STATE_BITS["new"]
    answer = Packet(4, UDP, SERVER, CLIENT, 80, 20_000)
    reply = table.track(answer)
    assert (reply.state, reply.in_reply) == (STATE_BITS["established"], True)
    assert table.track(packet(protocol=UDP)).state == STATE_BITS["established"]


def test_a_recorded_connection_is_joined_when_asked() -> None:
    line = (
        "tcp      6 86397 ESTABLISHED src=10.1.0.2 dst=10.2.0.2 sport=20000 dport=80 "
        "src=10.2.0.2 dst=10.1.0.2 sport=80 dport=20000 [ASSURED] mark=0 use=1\n"
    )
    known = state()
    known._evidence._files["conntrack.txt"] = line  # type: ignore[attr-defined]
    joined = ConnectionTable(known, ask_evidence=True).track(packet())
    assert (joined.existing, joined.state) == (True, STATE_BITS["established"])
    assert not ConnectionTable(known, ask_evidence=False).track(packet()).existing


def test_answers_of_the_flow_s_own_connections_are_known() -> None:
    table = ConnectionTable(state(), ask_evidence=False)
    asked = Packet(4, UDP, CLIENT, SERVER, 1000, 53)
    table.track(asked)
    assert table.knows_answer(Packet(4, UDP, SERVER, CLIENT, 53, 1000))
    assert not table.knows_answer(Packet(4, TCP, SERVER, CLIENT, 53, 1000))
    assert not table.knows_answer(Packet(4, UDP, SERVER, CLIENT, 54, 1000))


def test_entries_of_programs_have_no_icmp_ids() -> None:
    """One entry between two addresses serves every type, both ways (felix/bpf-gpl/tc.c)."""
    node = made(files={"nft-ruleset.json": '{"nftables": []}'})._state

    def joined(source: IPv4Address, destination: IPv4Address, kind: int) -> tuple[bool, bool]:
        asked = Packet(4, ICMP, int(source), int(destination), icmp=(kind, 0))
        found = ConnectionTable(node, ask_evidence=True).track(asked)
        return found.existing, found.in_reply

    assert joined(POD_IP, OTHER_POD, 8) == joined(POD_IP, OTHER_POD, 13) == (True, False)
    assert joined(OTHER_POD, POD_IP, 8) == (True, True)
    assert joined(POD_IP, REMOTE_POD, 8) == (False, False)
