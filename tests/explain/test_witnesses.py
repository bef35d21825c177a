"""The three witnesses together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from jsonschema import Draft202012Validator

from calico_debug.explain.document import to_document
from calico_debug.explain.packet_story import NONE_OPENS, NOTHING_SEEN
from calico_debug.explain.witnesses import Gathered, together
from calico_debug.explain.witnesses import with_witnesses as of_nodes
from calico_debug.model.explanation import FINDINGS, FlowExplanation, Step, Witness
from calico_debug.model.observation import TracedPacket
from tests.explain.observations import (
    ACK,
    ALLOWED,
    ANSWER,
    BEHIND,
    DENIED,
    DROP,
    DROPPED,
    LOST,
    NODE,
    PASSED,
    SENT,
    observation,
    probes,
    watched,
)
from tests.explain.test_document import SCHEMA

QUIET = {PASSED: 10, DROP: 5, BEHIND: 1}
NOTHING = Gathered(NODE, {2: "cali2"}, lambda _, event: f"rule {event.handle}")
ALONE = watched(QUIET, {**QUIET, PASSED: 11, DROP: 6})


def with_witnesses(explanation: FlowExplanation, gathered: Gathered) -> FlowExplanation:
    """What one node gives."""
    return of_nodes(explanation, [gathered])


def codes(found: FlowExplanation) -> list[str]:
    """Codes of findings, all of them known, in a document that the schema allows."""
    Draft202012Validator(SCHEMA).validate(to_document(found))
    assert {finding.code for finding in found.findings} <= set(FINDINGS)
    return [finding.code for finding in found.findings]


def message(found: FlowExplanation, code: str) -> str:
    (one,) = [finding for finding in found.findings if finding.code == code]
    return one.message


def test_an_xdp_program_may_have_dropped_what_was_not_seen() -> None:
    there = replace(NOTHING, xdp=("eth0",))
    before = " (an XDP program at eth0 may have dropped it before)"
    nothing = with_witnesses(DENIED, replace(there, observation=observation())).witnesses["observed"]
    assert nothing.detail == f"no packet of the flow was seen on {NODE}{before}"
    assert with_witnesses(DENIED, replace(there, observation=observation(DROPPED))).witnesses["observed"].detail == (
        "packet dropped there"
    )
    packets = Witness("undetermined", NODE, NOTHING_SEEN, "2026-11-21T00:00:00Z")
    found = with_witnesses(DENIED, replace(there, packets=packets))
    assert found.witnesses["observed"].detail == f"{NOTHING_SEEN}{before}"
    quiet = replace(there, watched=watched(QUIET, QUIET), probe=probes(2), probed_here=False)
    assert "witness-dissents" not in codes(with_witnesses(DENIED, quiet))
    assert "witness-dissents" in codes(with_witnesses(DENIED, replace(quiet, xdp=())))


def test_nothing_asked_changes_nothing() -> None:
    assert with_witnesses(DENIED, NOTHING) == DENIED


def test_all_three_agree() -> None:
    gathered = replace(NOTHING, watched=ALONE, observation=observation(DROPPED), probe=probes(1))
    found = with_witnesses(DENIED, gathered)
    assert [(name, witness.verdict) for name, witness in found.witnesses.items()] == [
        ("predicted", "denied"),
        ("counted", "denied"),
        ("observed", "denied"),
    ]
    assert codes(found) == ["witnesses-agree"]
    assert message(found, "witnesses-agree") == "predicted, counted and observed agree: denied"


def test_allowed_with_nothing_observed_is_not_confirmed() -> None:
    found = with_witnesses(ALLOWED, replace(NOTHING, observation=observation()))
    assert codes(found) == ["not-confirmed"]
    assert found.verdict == "allowed"


def test_denied_with_nothing_observed_is_just_open() -> None:
    assert codes(with_witnesses(DENIED, replace(NOTHING, observation=observation()))) == []


@pytest.mark.parametrize(
    ("explanation", "packet", "reason"),
    [
        (ALLOWED, DROPPED, "the rules may have changed"),
        (ALLOWED, LOST, "something outside nftables"),
        (DENIED, replace(SENT, headers=ACK), "conntrack knows already"),
        (DENIED, SENT, "the rules may have changed"),
    ],
)
def test_a_dissent_has_a_likely_reason(explanation: FlowExplanation, packet: TracedPacket, reason: str) -> None:
    found = with_witnesses(explanation, replace(NOTHING, observation=observation(packet, ANSWER)))
    assert codes(found) == ["witness-dissents"]
    assert found.verdict == explanation.verdict
    assert reason in message(found, "witness-dissents")


def test_silence_where_allowed_was_predicted() -> None:
    found = with_witnesses(ALLOWED, replace(NOTHING, probe=probes(2)))
    assert codes(found) == ["witness-dissents"]
    assert "the destination may be down" in message(found, "witness-dissents")


def test_a_refusal_that_the_kernel_held_back_is_no_dissent() -> None:
    found = with_witnesses(replace(DENIED, verdict="rejected"), replace(NOTHING, observation=observation(LOST)))
    assert codes(found) == ["refusal-not-seen"]


def test_packets_settle_what_the_prediction_leaves_open() -> None:
    explanation = replace(
        ALLOWED, verdict="undetermined", witnesses={"predicted": Witness("undetermined", NODE, "predicted")}
    )
    found = with_witnesses(explanation, replace(NOTHING, observation=observation(SENT, ANSWER)))
    assert codes(found) == ["settled-by-packets"]
    assert found.verdict == "undetermined"


def test_a_counter_dissents_alone() -> None:
    found = with_witnesses(DENIED, replace(NOTHING, watched=watched(QUIET, QUIET), probe=probes(2)))
    assert codes(found) == ["witness-dissents"]
    assert "--observe shows" in message(found, "witness-dissents")


def test_gaps_are_told() -> None:
    found = with_witnesses(DENIED, replace(NOTHING, observation=observation(DROPPED, lost=True)))
    assert "observation-incomplete" in codes(found)


def test_what_could_not_be_done_is_told() -> None:
    gathered = replace(NOTHING, probe=probes(0, error="it starts elsewhere"), not_observed="legacy")
    found = with_witnesses(DENIED, gathered)
    assert codes(found) == ["not-observed", "not-probed"]
    assert list(found.witnesses) == ["predicted"]


def test_findings_of_the_prediction_stay() -> None:
    before = with_witnesses(DENIED, replace(NOTHING, not_observed="x"))
    after = with_witnesses(before, replace(NOTHING, watched=ALONE, probe=probes(1)))
    assert codes(after) == ["not-observed", "witnesses-agree"]


@pytest.mark.parametrize(
    ("seen", "answers", "verdict"),
    [("denied", 0, "denied"), ("undetermined", 0, "denied"), ("denied", 1, "undetermined"), ("allowed", 1, "allowed")],
)
def test_tracepoints_and_probes_speak_together(seen: str, answers: int, verdict: str) -> None:
    report = probes(2, *("syn-ack",) * answers)
    packets = Witness(seen, NODE, "as tracepoints show", "2026-11-21T00:00:00Z")
    observed = with_witnesses(DENIED, replace(NOTHING, probe=report, packets=packets)).witnesses["observed"]
    assert observed.verdict == verdict
    assert observed.detail.startswith("as tracepoints show; ")


def test_tracepoints_alone() -> None:
    packets = Witness("denied", NODE, "dropped", "2026-11-21T00:00:00Z")
    found = with_witnesses(DENIED, replace(NOTHING, packets=packets))
    assert found.witnesses["observed"] == packets
    assert codes(found) == ["witnesses-agree"]


def test_a_dissent_of_tracepoints_does_not_send_for_what_was_done() -> None:
    packets = Witness("denied", NODE, "packet dropped at eth0 in red/web1: NETFILTER_DROP", "2026-11-21T00:00:00Z")
    found = with_witnesses(ALLOWED, replace(NOTHING, packets=packets, probe=probes(2)))
    assert codes(found) == ["witness-dissents"]
    assert "it may be no policy that drops there" in message(found, "witness-dissents")
    assert "--observe" not in message(found, "witness-dissents")
    packets = Witness("allowed", NODE, f"packet delivered; {NONE_OPENS}", "2026-11-21T00:00:00Z")
    found = with_witnesses(DENIED, replace(NOTHING, packets=packets))
    assert "conntrack knows already" in message(found, "witness-dissents")
    refused = with_witnesses(ALLOWED, replace(NOTHING, packets=replace(packets, detail="x"), probe=probes(1, "reset")))
    assert "--observe" not in refused.witnesses["observed"].detail


def test_tracepoints_say_why_nothing_may_be_seen() -> None:
    steps = (Step("node0", "nat", "masqueraded", "source a becomes b"), Step(NODE, "conntrack", "new", ""))
    packets = Witness("undetermined", NODE, NOTHING_SEEN, "2026-11-21T00:00:00Z")
    found = with_witnesses(replace(DENIED, steps=steps), replace(NOTHING, packets=packets))
    assert found.witnesses["observed"].detail == f"{NOTHING_SEEN} (source a becomes b on node0: others have that, too)"


def test_of_several_nodes_those_that_can_tell_speak() -> None:
    open_one, denied = Witness("undetermined", "n1", "sent on", "1"), Witness("denied", "n2", "dropped", "2")
    both = together([open_one, denied], "n1")
    assert (both.verdict, both.node, both.at) == ("denied", "n2", "2")
    assert both.detail == "on n1 sent on; on n2 dropped"
    assert both.nodes == (open_one, denied)
    assert together([denied], "n1") == denied
    assert together([open_one, open_one], "n2").verdict == "undetermined"
    allowed = replace(denied, verdict="allowed", node="n1")
    assert together([allowed, denied], "n2").verdict == "undetermined"
    assert together([replace(denied, node="n1"), denied], "n2").node == "n2"


def test_a_node_that_failed_is_named_and_the_other_speaks() -> None:
    found = of_nodes(DENIED, [replace(NOTHING, observation=observation(DROPPED))], {"n2": "no answer: try again"})
    assert found.witnesses["observed"].verdict == "denied"
    assert [f.message for f in found.findings if f.code == "not-observed"] == ["n2: no answer: try again"]


def test_a_probe_that_left_elsewhere_says_nothing_of_this_node() -> None:
    there = replace(NOTHING, probe=probes(2), probed_here=False)
    assert "observed" not in of_nodes(DENIED, [there]).witnesses
    refused = replace(NOTHING, probe=replace(probes(0), error="no way"), probed_here=False)
    assert of_nodes(DENIED, [refused]) == DENIED
