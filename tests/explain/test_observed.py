"""What packets and answers show."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from calico_debug.explain.observed import (
    MOST_TUPLES,
    Observed,
    asked,
    event_place,
    flow_tuples,
    opens,
    rejects,
    renamed,
)
from calico_debug.model.explanation import BackendOutcome, FlowEnd, FlowExplanation, Step
from calico_debug.model.observation import FlowTuple, Observation, ProbeReport, TracedPacket, TraceEvent
from tests.explain.observations import (
    ACK,
    ALLOWED,
    ANSWER,
    BEHIND,
    CLIENT,
    DELIVERED,
    DENIED,
    DROP,
    DROPPED,
    LOST,
    NODE,
    SENT,
    SERVER,
    event,
    observation,
    place,
    probes,
)

INTERFACES = {1: "cali1", 2: "cali2", 3: "eth0"}


def name(packet: TracedPacket, met: TraceEvent) -> str:
    assert met in packet.events
    return f"rule {met.handle}"


def say(
    explanation: FlowExplanation, seen: Observation | None = None, probe: ProbeReport | None = None
) -> tuple[str, str]:
    witness = Observed(explanation, NODE, INTERFACES, name, seen, probe).witness()
    assert witness.node == NODE
    assert witness.at.endswith("Z")
    return witness.verdict, witness.detail


# ---------------------------------------------------------------------------------------------------------- the flow


def test_tuples_before_and_behind_translation() -> None:
    backends = (BackendOutcome("10.244.2.2", 8080, "allowed"), BackendOutcome("10.96.0.1", 80, "allowed"))
    service = replace(DENIED, destination=FlowEnd("10.96.0.1", 80), backends=backends)
    virtual = FlowTuple(6, CLIENT, ip_address("10.96.0.1"), None, 80)
    behind = FlowTuple(6, CLIENT, ip_address("10.244.2.2"), None, 8080)
    assert flow_tuples(service, NODE) == (virtual,)
    assert flow_tuples(service, "node2") == (virtual, behind)
    elsewhere = replace(service, backends=(replace(backends[0], node="node3"),))
    assert flow_tuples(elsewhere, "node2") == (virtual,)
    many = replace(service, backends=tuple(BackendOutcome(f"10.244.3.{n}", 80, "allowed") for n in range(200)))
    assert len(flow_tuples(many, "node2")) == MOST_TUPLES


@pytest.mark.parametrize(("protocol", "number"), [("tcp", 6), ("icmpv6", 58), ("47", 47)])
def test_protocols(protocol: str, number: int) -> None:
    assert flow_tuples(replace(DENIED, protocol=protocol), NODE)[0].protocol == number


def test_probes_are_told_from_other_connections_and_from_what_closes_them() -> None:
    assert DROPPED.headers is not None
    other = replace(DROPPED, headers=replace(DROPPED.headers, source_port=5))
    closing = replace(DROPPED, headers=replace(DROPPED.headers, flags=0x04))
    seen = observation(DROPPED, other, closing, ANSWER)
    assert asked(seen, probes(1)) == [DROPPED]
    assert asked(seen, None) == [DROPPED, other, closing]
    assert asked(seen, probes(0, error="none")) == [DROPPED, other, closing]


def test_opening_packets() -> None:
    assert opens(DROPPED)
    assert not opens(replace(DROPPED, headers=ACK))
    assert opens(replace(DROPPED, headers=None))


# ------------------------------------------------------------------------------------------------------------ traces


def test_dropped_where_predicted() -> None:
    assert say(DENIED, observation(DROPPED)) == ("denied", "packet dropped there")
    assert say(DENIED, observation(DROPPED, DROPPED), probes(2)) == (
        "denied",
        "2 probe packets dropped there, no answer",
    )


def test_dropped_elsewhere_is_named() -> None:
    elsewhere = replace(DROPPED, events=(event(BEHIND, "drop"),))
    assert say(DENIED, observation(elsewhere)) == ("denied", "packet dropped by rule 9")


def test_rejected_as_predicted() -> None:
    explanation = replace(DENIED, verdict="rejected", steps=())
    assert rejects(explanation, event(DROP, "drop")) is True
    assert say(explanation, observation(DROPPED)) == ("rejected", "packet rejected there")
    assert rejects(DENIED, event(DROP, "drop")) is False
    assert rejects(DENIED, event(BEHIND, "drop")) is None


def test_an_unknown_rule_rejects_when_the_sender_hears_of_it() -> None:
    elsewhere = observation(replace(DROPPED, events=(event(BEHIND, "drop"),)))
    assert say(DENIED, elsewhere, probes(1, "icmp type 3 code 13", by="10.0.0.1"))[0] == "rejected"
    assert say(DENIED, elsewhere, probes(2))[0] == "denied"


def test_sent_to_the_pod_and_answered() -> None:
    assert say(ALLOWED, observation(SENT, ANSWER)) == ("allowed", "packet sent out of cali2, answers seen")
    verdict, detail = say(ALLOWED, observation(SENT, ANSWER), probes(1, "syn-ack"))
    assert (verdict, detail) == ("allowed", f"probe packet sent out of cali2, answer syn-ack from {SERVER}")


def test_an_answer_that_does_not_come_to_the_sender() -> None:
    verdict, detail = say(ALLOWED, observation(SENT, ANSWER), probes(2))
    assert verdict == "undetermined"
    assert detail.endswith("answers seen on node1, none of which came to the sender")


def test_sent_to_the_pod_is_allowed_without_an_answer() -> None:
    assert say(ALLOWED, observation(SENT)) == ("allowed", "packet sent out of cali2, no answer seen")


def test_a_pod_is_known_by_its_chain_where_the_end_is_a_service() -> None:
    service = replace(ALLOWED, destination=FlowEnd("10.96.0.1", 80))
    through = replace(SENT, events=(replace(event(BEHIND), chain="filter-cali-tw-cali2"),))
    assert say(service, observation(through))[0] == "allowed"
    assert say(service, observation(SENT))[0] == "undetermined"


def test_sent_to_another_node_without_an_answer_is_open() -> None:
    away = replace(SENT, output_index=3)
    verdict, detail = say(ALLOWED, observation(away))
    assert verdict == "undetermined"
    assert detail == "packet sent out of eth0, no answer seen: what happened beyond is not visible from node1"
    assert say(ALLOWED, observation(away), probes(1, "syn-ack"))[0] == "allowed"
    assert say(ALLOWED, observation(away, ANSWER))[0] == "allowed"
    assert "interface 9" in say(ALLOWED, observation(replace(SENT, output_index=9)))[1]


def test_delivered_to_the_node() -> None:
    assert say(ALLOWED, observation(DELIVERED)) == ("allowed", "packet delivered to node1 itself, no answer seen")


def test_the_answer_is_dropped() -> None:
    back = replace(ANSWER, events=(event(DROP, "drop"),))
    assert say(ALLOWED, observation(SENT, back)) == ("denied", "packet sent out of cali2; its answer dropped by rule 7")


def test_lost_between_hooks() -> None:
    verdict, detail = say(DENIED, observation(LOST))
    assert verdict == "denied"
    assert detail.startswith("packet lost behind prerouting: no rule of nftables dropped it")
    assert say(DENIED, observation(LOST), probes(1, "icmp type 3 code 1"))[0] == "rejected"
    assert say(DENIED, observation(LOST, lost=True))[0] == "undetermined"
    assert "lost behind the start" in say(DENIED, observation(replace(LOST, hooks=())))[1]


def test_packets_that_fare_differently_settle_nothing() -> None:
    verdict, detail = say(DENIED, observation(DROPPED, SENT))
    assert verdict == "undetermined"
    assert detail == "packet dropped there; packet sent out of cali2"


def test_nothing_seen_settles_nothing() -> None:
    assert say(ALLOWED, observation()) == ("undetermined", "no packet of the flow was seen on node1")
    assert say(ALLOWED, observation(), probes(2)) == (
        "undetermined",
        "2 probe packets did not come to the node's rules, no answer",
    )
    assert "lost events" in say(ALLOWED, observation(lost=True), probes(1))[1]


def test_another_node_may_have_changed_the_source() -> None:
    masqueraded = Step("node0", "nat", "masqueraded", "source 10.1.1.1 becomes 10.0.0.1")
    there = Step(NODE, "conntrack", "new", "")
    changed = replace(ALLOWED, steps=(masqueraded, there))
    words = "(source 10.1.1.1 becomes 10.0.0.1 on node0: others have that, too)"
    assert say(changed, observation())[1] == f"no packet of the flow was seen on node1 {words}"
    assert say(changed, observation(), probes(1))[1] == f"probe packet not looked for {words}, no answer"
    assert renamed(changed, "node0") == ""
    assert renamed(replace(ALLOWED, steps=(there, masqueraded)), NODE) == ""
    assert renamed(changed, "node7") == ""


def test_a_full_observation_says_so() -> None:
    assert "no more than 1 packets were followed" in say(DENIED, observation(DROPPED, full=True))[1]


def test_places_of_events() -> None:
    assert event_place(event(DROP)) == place(DROP)


# ----------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("answer", ["syn-ack", "echo reply", "udp answer"])
def test_only_the_destination_answers_like_that(answer: str) -> None:
    assert say(ALLOWED, None, probes(1, answer)) == ("allowed", f"probe packet answered by {SERVER}: {answer}")


def test_silence() -> None:
    assert say(DENIED, None, probes(2)) == ("denied", "2 probe packets got no answer")
    assert say(DENIED, None, probes(2, protocol=17))[0] == "undetermined"


def test_a_refusal_in_the_destination_s_name_may_be_anybody_s() -> None:
    assert say(ALLOWED, None, probes(1, "reset"))[0] == "undetermined"
    assert say(replace(DENIED, verdict="rejected"), None, probes(1, "reset"))[0] == "rejected"
    assert say(ALLOWED, None, probes(1, "icmp type 3 code 13", by="10.0.0.1"))[0] == "rejected"


def test_a_probe_that_the_sender_s_kernel_refused() -> None:
    refused = probes(0, "not sent: No route to host")
    assert say(DENIED, None, refused) == ("denied", "probe packet not sent: No route to host")
    assert say(ALLOWED, observation(), refused)[0] == "rejected"
