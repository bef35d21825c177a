"""What packets' comments say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from calico_debug.capture.comments import comment, names, predicted
from calico_debug.capture.flows import FlowOf
from calico_debug.capture.predictions import Prediction
from calico_debug.model.explanation import BackendOutcome, Decision, PolicyRef, RuleRef, Step
from tests.cli.samples import SAMPLES
from tests.explain.test_packet_story import DENIED, PLACES

DENIAL = SAMPLES["denied_end_of_tier"]
DROP = replace(DENIED[-1], flow=None)


def test_a_drop_with_its_prediction() -> None:
    text = comment(DROP, PLACES, ("accept",), Prediction(DENIAL), FlowOf(DROP.ends))
    assert text.startswith(
        "DROPPED at calicli: NETFILTER_DROP in nft_do_chain (a rule of nftables or iptables); mark accept; predicted "
        "DENIED"
    )
    assert "; tier platform; " in text
    assert "; reason end-of-tier: end of tier: " in text


def test_a_drop_that_policy_does_not_explain() -> None:
    allowed = Prediction(SAMPLES["allowed_same_node"])
    assert comment(DROP, PLACES, (), allowed).endswith("; policy would not drop it")
    closed = replace(DROP, reason="QUEUE_PURGE", place="sk_stream_kill_queues")
    assert "policy would not" not in comment(closed, PLACES, (), allowed)
    assert "policy would not" not in comment(replace(DROP, kind="sent"), PLACES, (), allowed)
    assert "policy would not" not in comment(DROP, PLACES, (), Prediction(DENIAL))


def test_what_is_not_known_is_said() -> None:
    flow = FlowOf(DROP.ends, sure=False)
    assert "; if this packet opened its connection, predicted DENIED" in comment(
        DROP, PLACES, (), Prediction(DENIAL), flow
    )
    assert comment(DROP, PLACES, (), Prediction(problem="no rules"), flow).endswith("; no prediction: no rules")
    assert comment(DROP, PLACES, (), None).endswith("(a rule of nftables or iptables)")


def test_answers_and_the_captured_policy() -> None:
    text = comment(replace(DROP, kind="sent"), PLACES, (), None, FlowOf(DROP.ends, True), "decided by it")
    assert text == "answer sent by calicli; decided by it"


def test_nothing_in_it_steers_a_terminal() -> None:
    assert "\x1b" not in comment(replace(DROP, interface="\x1b[2J"), PLACES, (), None)


@pytest.mark.parametrize(
    ("policy", "rule", "text"),
    [
        (PolicyRef("GlobalNetworkPolicy", "web"), RuleRef("Deny", 0), "policy GlobalNetworkPolicy web; rule 0"),
        (PolicyRef("NetworkPolicy", "web", "red"), RuleRef("Deny"), "policy NetworkPolicy red/web; a rule"),
        (None, None, "reason rule"),
    ],
)
def test_who_decided(policy: PolicyRef | None, rule: RuleRef | None, text: str) -> None:
    decision = Decision("node1", "nftables", "rule", policy=policy, rule=rule)
    assert f"predicted DENIED on node1; {text}" in predicted(replace(DENIAL, decision=decision))


def test_without_a_decision() -> None:
    assert predicted(replace(DENIAL, decision=None)) == "predicted DENIED"


def test_what_was_allowed_before_the_evidence_ends() -> None:
    step = Step("node1", "egress", "allowed", "", "egress", "platform", PolicyRef("NetworkPolicy", "out", "red"))
    decision = Decision("node1", "nftables", "missing-evidence", detail="goes on")
    left = replace(DENIAL, verdict="undetermined", decision=decision, steps=(step,))
    assert predicted(left) == (
        "predicted UNDETERMINED on node1; reason missing-evidence: goes on; before that egress allowed on node1; tier "
        "platform; policy NetworkPolicy red/out"
    )


def test_steps_of_one_backend_are_not_those_of_all() -> None:
    step = Step("node1", "ingress", "allowed", "", "ingress", "platform", PolicyRef("NetworkPolicy", "in", "red"))
    decision = Decision("node1", "nftables", "alternatives", detail="one of them")
    several = replace(DENIAL, verdict="undetermined", decision=decision, steps=(step,))
    assert predicted(several) == "predicted UNDETERMINED on node1; reason alternatives: one of them"


def test_a_packet_that_shows_its_backend_has_the_prediction_for_that() -> None:
    here, there = str(DROP.ends.destination), "10.9.9.9"
    allowed = Decision("node1", "nftables", "rule", "ingress", "platform", PolicyRef("GlobalNetworkPolicy", "web"))
    backends = (BackendOutcome(there, 80, "denied"), BackendOutcome(here, 80, "allowed", decision=allowed))
    several = replace(
        DENIAL, verdict="undetermined", decision=replace(allowed, reason="alternatives"), backends=backends
    )
    text = comment(DROP, PLACES, (), Prediction(several), FlowOf(DROP.ends))
    assert f"; predicted ALLOWED for backend {here} on node1; tier platform; policy GlobalNetworkPolicy web; " in text
    assert text.endswith("; policy would not drop it")
    answer = replace(DROP, kind="sent", ends=DROP.ends.reversed())
    assert f"ALLOWED for backend {here}" in comment(answer, PLACES, (), Prediction(several), FlowOf(DROP.ends, True))
    # Before the translation it is open, and so it is at another port.
    for other in (replace(DROP.ends, destination=DROP.ends.source), replace(DROP.ends, destination_port=81)):
        text = comment(replace(DROP, ends=other), PLACES, (), Prediction(several), FlowOf(DROP.ends))
        assert "; predicted UNDETERMINED on node1; " in text
    assert predicted(several, backends[0]) == f"predicted DENIED for backend {there}"


def test_names() -> None:
    assert DENIAL.source.pod is not None
    known = names(DENIAL)
    assert known[DENIAL.source.ip] == [f"{DENIAL.source.pod['name']}.{DENIAL.source.pod['namespace']}.pod"]
