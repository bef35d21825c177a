"""Events put together to packets."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from calico_debug.decode.nft_trace_packets import MOST_OPEN, Assembler
from calico_debug.model.observation import Headers, TracedPacket, TraceEvent

OURS, THEIRS = "calico-debug-1-aa", "calico-debug-2-bb"
HEADERS = Headers(17, ip_address("10.0.0.1"), ip_address("10.0.0.2"), 1, 53)
ANSWER = Headers(17, ip_address("10.0.0.2"), ip_address("10.0.0.1"), 53, 1)


def own(chain: str, packet: int = 1, kind: str = "rule", **fields: object) -> TraceEvent:
    handle = 5 if kind == "rule" else None
    verdict = "accept" if kind == "policy" else "continue"
    event = TraceEvent("ip", OURS, chain, kind, packet, verdict, handle=handle)
    return replace(event, **fields)  # type: ignore[arg-type]


def rule(handle: int, packet: int = 1, verdict: str = "continue", table: str = "calico") -> TraceEvent:
    return TraceEvent("ip", table, "c", "rule", packet, verdict, handle=handle)


def last(hook: str, packet: int = 1, **fields: object) -> TraceEvent:
    return own(f"last-{hook}", packet, "policy", **fields)


def packets(*events: TraceEvent) -> tuple[TracedPacket, ...]:
    assembler = Assembler(OURS)
    for event in events:
        assembler.add(event)
    return assembler.finish()


def test_a_packet_that_is_sent() -> None:
    (found,) = packets(
        own("first-prerouting", headers=HEADERS),
        rule(1),
        own("tracked-prerouting", direction="original"),
        last("prerouting"),
        rule(2),
        last("forward"),
        own("last-postrouting", kind="return", output_index=4),
        last("postrouting"),
    )
    assert (found.ending, found.hooks, found.output_index) == ("sent", ("prerouting", "forward", "postrouting"), 4)
    assert [event.handle for event in found.events] == [1, 2]
    assert (found.reply, found.headers, found.drop) == (False, HEADERS, None)


def test_a_packet_that_a_rule_drops() -> None:
    (found,) = packets(own("first-output"), rule(1), rule(2, verdict="drop"))
    assert found.ending == "dropped"
    assert found.drop is not None
    assert found.drop.handle == 2


def test_a_packet_that_a_policy_drops() -> None:
    policy = TraceEvent("ip", "calico", "INPUT", "policy", 1, "drop")
    (found,) = packets(own("first-prerouting"), policy)
    assert (found.ending, found.drop) == ("dropped", policy)


def test_a_packet_for_the_node_itself() -> None:
    (found,) = packets(own("first-prerouting"), last("prerouting"), last("input"))
    assert found.ending == "delivered"


def test_a_packet_that_vanishes() -> None:
    (found,) = packets(own("first-prerouting"), rule(1), last("prerouting"))
    assert (found.ending, found.hooks) == ("lost", ("prerouting",))


def test_an_answer_is_known_by_its_connection_alone() -> None:
    by_kernel, by_chain = (
        packets(own("tracked-prerouting", direction=direction, headers=ANSWER), last("prerouting"))
        for direction in ("reply", "")
    )
    assert by_kernel[0].reply
    assert by_chain[0].reply


def test_a_packet_translated_before_is_no_answer_where_the_kernel_says_so() -> None:
    (found,) = packets(own("tracked-output", direction="original"), last("output"))
    assert not found.reply


def test_packets_of_others_are_left_out() -> None:
    assert packets(rule(1, verdict="drop"), last("postrouting", packet=2)) == ()
    assert packets(rule(1, table=THEIRS), rule(2), last("prerouting")) == ()


def test_rules_of_other_observers_are_left_out() -> None:
    (found,) = packets(rule(9, table=THEIRS), own("first-prerouting"), rule(1), rule(8, table=THEIRS), last("input"))
    assert [event.handle for event in found.events] == [1]


def test_events_before_our_own_rule_belong_to_the_packet() -> None:
    """A packet that somebody else has traced from its start."""
    (found,) = packets(rule(1), own("tracked-prerouting"), rule(2), last("input"))
    assert [event.handle for event in found.events] == [1, 2]


def test_a_number_that_the_kernel_gives_again() -> None:
    first, second = packets(
        own("first-prerouting"), rule(1), last("prerouting"), own("first-prerouting"), rule(2, verdict="drop")
    )
    assert (first.ending, second.ending) == ("lost", "dropped")
    one, two = packets(own("tracked-output"), own("tracked-output"), rule(2, verdict="drop"))
    assert (one.ending, two.ending) == ("lost", "dropped")


def test_packets_at_once_are_kept_apart() -> None:
    first, second = packets(
        own("first-prerouting", 1),
        own("first-prerouting", 2),
        rule(1, 1, "drop"),
        rule(2, 2, "drop"),
    )
    assert (first.drop and first.drop.handle, second.drop and second.drop.handle) == (1, 2)


def test_a_packet_on_its_way_is_no_lost_one() -> None:
    assembler = Assembler(OURS)
    assembler.add(own("first-prerouting", 1), 1.0)
    assembler.add(own("first-prerouting", 2), 2.0)
    assembler.add(rule(1, 1), 5.0)
    assembler.add(own("first-prerouting", 3), 1.0)
    assembler.add(rule(1, 3, "drop"), 9.0)
    assert [packet.ending for packet in assembler.finish(before=5.0)] == ["dropped", "lost"]


def test_the_number_of_open_packets_is_bounded() -> None:
    assembler = Assembler(OURS)
    for packet in range(MOST_OPEN + 3):
        assembler.add(own("first-prerouting", packet))
    assert assembler.seen == 3
    assert len(assembler.finish()) == MOST_OPEN + 3
