"""Whose flow a packet is, and which way it goes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from calico_debug.capture.flows import MOST_FLOWS, FlowOf, PacketFlows, Recent
from calico_debug.model.packet_event import DROPPED, RECEIVED, SENT, Ends, PacketEvent

POD, SERVICE, BACKEND = (ip_address(text) for text in ("10.244.1.12", "10.96.1.1", "10.244.2.13"))
ASKED = Ends(6, POD, SERVICE, 20000, 80)
TRANSLATED = Ends(6, POD, BACKEND, 20000, 80)
SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10


def event(ends: Ends, packet: int, place: int = 1, *, kind: str = SENT, flags: int | None = None) -> PacketEvent:
    return PacketEvent(0, kind, (packet, 0), 1, f"cali{place}", place, 60, 0, ends, flags=flags)


def nobody_knows(_: Ends) -> None:
    return None


def test_a_connection_through_translation() -> None:
    flows = PacketFlows(nobody_knows)
    opened = FlowOf(ASKED)
    assert flows.add(event(ASKED, 1, 1, flags=SYN)) == (1, opened)
    assert flows.add(event(ASKED, 1, 2, kind=RECEIVED, flags=SYN)) == (1, opened)
    assert flows.add(event(TRANSLATED, 1, 3, flags=SYN)) == (1, opened)
    answered = FlowOf(ASKED, reply=True)
    assert flows.add(event(TRANSLATED.reversed(), 2, 3, kind=RECEIVED, flags=SYN_ACK)) == (2, answered)
    assert flows.add(event(ASKED.reversed(), 2, 2, flags=SYN_ACK)) == (2, answered)
    assert flows.add(event(ASKED, 3, flags=ACK)) == (3, opened)
    assert flows.packets == 3


def test_memory_that_is_used_again_is_another_packet() -> None:
    flows = PacketFlows(nobody_knows)
    assert [flows.add(event(ASKED, 1, flags=SYN))[0] for _ in range(3)] == [1, 2, 3]
    assert flows.add(event(ASKED, 1, 2, kind=DROPPED, flags=SYN))[0] == 3
    assert flows.add(event(ASKED, 1, 5, flags=SYN))[0] == 4


def test_the_first_that_is_seen_is_an_answer() -> None:
    flows = PacketFlows(nobody_knows)
    assert flows.add(event(ASKED.reversed(), 1, flags=SYN_ACK))[1] == FlowOf(ASKED, reply=True)


def test_conntrack_is_asked_where_nothing_else_tells() -> None:
    asked: list[Ends] = []

    def opened(ends: Ends) -> tuple[Ends, bool]:
        asked.append(ends)
        return ASKED, True

    flows = PacketFlows(opened)
    assert flows.add(event(TRANSLATED.reversed(), 1, flags=ACK))[1] == FlowOf(ASKED, reply=True)
    assert flows.add(event(ASKED, 2, flags=SYN))[1] == FlowOf(ASKED)
    assert asked == [TRANSLATED.reversed()]


def test_an_answer_without_a_connection_is_one() -> None:
    flows = PacketFlows(lambda ends: (ends, False))
    assert flows.add(event(ASKED.reversed(), 1, flags=SYN_ACK))[1] == FlowOf(ASKED, reply=True)
    udp = replace(ASKED, protocol=17)
    assert flows.add(event(udp, 2))[1] == FlowOf(udp)


def test_where_nothing_tells_it_is_not_sure() -> None:
    udp = replace(ASKED, protocol=17)
    assert PacketFlows(nobody_knows).add(event(udp, 1))[1] == FlowOf(udp, sure=False)


def test_the_filter_tells() -> None:
    answer = replace(event(replace(ASKED, protocol=17).reversed(), 1), flow=0, reply=True)
    assert PacketFlows(nobody_knows).add(answer)[1] == FlowOf(replace(ASKED, protocol=17), reply=True)


def test_echo() -> None:
    flows = PacketFlows(nobody_knows)
    ping = Ends(1, POD, BACKEND)
    assert flows.add(replace(event(ping, 1), icmp=(8, 0)))[1] == FlowOf(ping, icmp=(8, 0))
    assert flows.add(replace(event(ping.reversed(), 2), icmp=(0, 0)))[1] == FlowOf(ping, True, icmp=(8, 0))
    six = Ends(58, ip_address("fd00::1"), ip_address("fd00::2"))
    assert flows.add(replace(event(six.reversed(), 3), icmp=(129, 0)))[1] == FlowOf(six, True, icmp=(128, 0))


def test_errors_are_nobodys_flow() -> None:
    flows = PacketFlows(nobody_knows)
    assert flows.add(replace(event(Ends(1, POD, BACKEND), 1), icmp=(3, 1))) == (1, None)
    assert flows.add(replace(event(ASKED, 2, flags=SYN), about=True)) == (2, None)


def test_what_is_kept_is_bounded() -> None:
    flows = PacketFlows(nobody_knows)
    for port in range(MOST_FLOWS + 10):
        flows.add(event(replace(ASKED, source_port=port), port, flags=SYN))
    assert flows.add(event(replace(ASKED, source_port=3).reversed(), 99_999))[1] == FlowOf(
        replace(ASKED, source_port=3).reversed(), sure=False
    )


def test_recent() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert (recent.get("a"), recent.get("b"), recent.get("c")) == (1, None, 3)
    recent.drop("a")
    recent.drop("a")
    assert recent.get("a") is None
