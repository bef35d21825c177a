"""What counters show, and what they do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from calico_debug.explain.counted import counted, movements, place_of, places
from calico_debug.model.explanation import BackendOutcome, Evidence, Finding, FlowExplanation
from calico_debug.model.nft import Counter, Log
from calico_debug.model.observation import Observation, ProbeReport, Reading, RulePlace, Watched
from tests.explain.observations import (
    ALLOWED,
    BEHIND,
    DENIED,
    DROP,
    DROPPED,
    NODE,
    OTHER_STATEMENTS,
    PASSED,
    observation,
    place,
    probes,
    rule,
    watched,
)

QUIET = {PASSED: 10, DROP: 5, BEHIND: 1}


def say(
    explanation: FlowExplanation,
    seen: Watched,
    observed: Observation | None = None,
    probe: ProbeReport | None = None,
) -> tuple[str, str, set[str]]:
    witness, findings = counted(explanation, NODE, seen, observed, probe)
    assert (witness.node, witness.at) == (NODE, "2026-01-01T00:00:03Z")
    return witness.verdict, witness.detail, {finding.code for finding in findings}


def test_places_are_those_of_the_path_each_once() -> None:
    closest = replace(PASSED, handle=4)
    assert places(DENIED, NODE) == (place(PASSED), place(DROP), place(closest), place(BEHIND))
    assert places(DENIED, "node2") == ()
    assert place_of(Evidence(TABLE_ONLY, "FORWARD")) is None
    assert place_of(None) is None
    assert place_of(Evidence(rule_id="00ff")) == RulePlace(rule_id="00ff")


TABLE_ONLY = "ip filter"


def test_as_many_as_probes() -> None:
    said = say(DENIED, watched(QUIET, {**QUIET, PASSED: 12, DROP: 7}), None, probes(2))
    assert said == ("denied", "drop counter of that rule +2 in 3 s", set())


def test_an_allowed_flow_has_no_drop_counter() -> None:
    said = say(ALLOWED, watched(QUIET, {**QUIET, BEHIND: 2}), None, probes(1))
    assert said == ("allowed", "counter of that rule +1 in 3 s", set())


def test_nobody_knows_whose_packets() -> None:
    verdict, detail, _ = say(DENIED, watched(QUIET, {**QUIET, DROP: 7}))
    assert verdict == "undetermined"
    by = "drop counter of that rule +2 in 3 s: by this flow or by others that meet the rule"
    assert detail == f"{by}, --probe or --observe tell"
    seen = watched(QUIET, {**QUIET, DROP: 7})
    assert say(DENIED, seen, observation())[1] == f"{by}, --probe tells"
    outside = replace(DENIED, source=replace(DENIED.source, node=""))
    assert say(outside, seen)[1] == f"{by}, --observe tells", "nothing probes from there"
    assert say(outside, seen, observation())[1] == by


def test_more_than_probes_may_be_others_alone() -> None:
    verdict, detail, _ = say(DENIED, watched(QUIET, {**QUIET, DROP: 12}), None, probes(2))
    assert verdict == "undetermined"
    assert "+7 in 3 s: others meet the rule, too, as 2 probe packets went out" in detail


def test_traced_packets_are_among_those_counted() -> None:
    seen = watched(QUIET, {**QUIET, DROP: 12})
    verdict, detail, _ = say(DENIED, seen, observation(DROPPED, DROPPED), probes(2))
    assert (verdict, detail) == ("denied", "drop counter of that rule +7 in 3 s: 2 packets of this flow, 5 of others")
    assert say(DENIED, watched(QUIET, {**QUIET, DROP: 6}), observation(DROPPED))[0] == "denied"


def test_traced_packets_that_met_another_rule() -> None:
    elsewhere = replace(DROPPED, events=DROPPED.events[:1])
    verdict, detail, _ = say(DENIED, watched(QUIET, {**QUIET, DROP: 6}), observation(elsewhere), probes(1))
    assert (verdict, "none of it by packets of this flow" in detail) == ("undetermined", True)


@pytest.mark.parametrize("gap", ["lost", "full"])
def test_an_observation_with_gaps_does_not_count(gap: str) -> None:
    seen = observation(DROPPED, lost=gap == "lost", full=gap == "full")
    assert say(DENIED, watched(QUIET, {**QUIET, DROP: 8}), seen)[0] == "undetermined"


def test_fewer_than_packets_of_this_flow() -> None:
    verdict, detail, _ = say(DENIED, watched(QUIET, {**QUIET, DROP: 6}), None, probes(2))
    assert (verdict, "fewer than the 2 packets" in detail) == ("undetermined", True)


def test_a_counter_that_stands_still_contradicts_probes() -> None:
    verdict, detail, codes = say(DENIED, watched(QUIET, QUIET), None, probes(2))
    assert (verdict, codes) == ("undetermined", {"witness-dissents"})
    assert detail == "drop counter of that rule did not move in 3 s, though 2 probe packets went out"
    assert say(DENIED, watched(QUIET, QUIET))[2] == set()


def test_packets_that_something_took_before_the_rules_contradict_nothing() -> None:
    witness, findings = counted(DENIED, NODE, watched(QUIET, QUIET), None, probes(2), " (it may be XDP)")
    assert (witness.verdict, findings) == ("undetermined", [])
    assert witness.detail == "drop counter of that rule did not move in 3 s (it may be XDP)"


def test_another_backend_may_have_another_rule() -> None:
    backends = (BackendOutcome("10.0.0.1", 80, "denied"), BackendOutcome("10.0.0.2", 80, "denied"))
    open_question = (Finding("depends-on", "info", "the source port was not given"),)
    for several in (replace(DENIED, backends=backends), replace(DENIED, findings=open_question)):
        verdict, detail, codes = say(several, watched(QUIET, QUIET), None, probes(2))
        assert (verdict, codes) == ("undetermined", set())
        assert "another rule may decide" in detail


def test_a_counter_that_was_reset() -> None:
    verdict, detail, codes = say(DENIED, watched(QUIET, {**QUIET, DROP: 2}), None, probes(2))
    assert (verdict, codes) == ("undetermined", {"counters-disturbed"})
    assert "was reset" in detail


@pytest.mark.parametrize("how", ["gone", "other statements", "other comment"])
def test_a_rule_that_was_rewritten(how: str) -> None:
    seen = watched(QUIET, {**QUIET, DROP: 7})
    after = dict(seen.after)
    if how == "gone":
        del after[place(DROP)]
    elif how == "other statements":
        after[place(DROP)] = Reading(7, rule(DROP, *OTHER_STATEMENTS))
    else:
        after[place(DROP)] = Reading(7, replace(rule(DROP), comment="cali:new"))
    verdict, detail, codes = say(DENIED, replace(seen, after=after), None, probes(2))
    assert (verdict, codes) == ("undetermined", {"counters-disturbed"})
    assert "rewritten" in detail


def test_a_rule_without_a_counter() -> None:
    verdict, detail, codes = say(DENIED, watched({}, {}), None, probes(2))
    assert (verdict, detail, codes) == ("undetermined", "the rule that decides has no counter", set())


def test_copies_for_flow_logs_do_not_count() -> None:
    """A rule with nothing but NFLOG counts the packets of the rule beside it once more."""
    twin = rule(PASSED, Log("DPE|", 2))
    seen = watched(QUIET, {**QUIET, PASSED: 12, DROP: 7})
    seen = replace(seen, before={**seen.before, place(PASSED): Reading(10, twin)})
    assert place(PASSED) not in [move.place for move in movements(DENIED, NODE, seen)]
    verdict = rule(PASSED, Log("DPE|", 2), *OTHER_STATEMENTS)
    seen = replace(seen, before={**seen.before, place(PASSED): Reading(10, verdict)})
    assert place(PASSED) in [move.place for move in movements(DENIED, NODE, seen)]


def test_rules_behind_a_denial_that_count() -> None:
    _, detail, _ = say(DENIED, watched(QUIET, {**QUIET, DROP: 7, BEHIND: 3}), None, probes(2))
    assert detail == "drop counter of that rule +2 in 3 s; beside the path ns/a, rule 2 +2"


def test_the_deciding_rule_is_on_another_node() -> None:
    assert DENIED.decision is not None
    there = replace(DENIED, decision=replace(DENIED.decision, node="node2"))
    verdict, detail, codes = say(there, watched(QUIET, {**QUIET, PASSED: 11}), None, probes(1))
    assert (verdict, codes) == ("undetermined", set())
    assert detail == "the deciding rule is on node2; on the way there, in 3 s: ns/a, rule 0 +1"
    _, detail, _ = say(there, watched(QUIET, QUIET))
    assert detail.endswith("no counter of the predicted path moved on node1 in 3 s")


def test_a_rule_id_counts_for_the_whole_node() -> None:
    assert DENIED.decision is not None
    evidence = Evidence(rule_id="00000000000000ff")
    known = RulePlace(rule_id=evidence.rule_id)
    program = replace(DENIED, decision=replace(DENIED.decision, dataplane="ebpf", evidence=evidence), steps=())
    seen = Watched({known: Reading(4)}, {known: Reading(6)}, "", "2026-01-01T00:00:03Z", 3)
    verdict, detail, _ = say(program, seen, None, probes(2))
    assert verdict == "denied"
    assert "which counts for the whole node, +2 in 3 s" in detail
    assert say(program, replace(seen, after={known: Reading(9)}), None, probes(2))[0] == "undetermined"
    assert say(program, seen)[1].endswith("that meet the rule, --probe tells"), "no rules are traced there"


def test_programs_do_not_count_what_repeats_a_packet_of_a_connection_they_know() -> None:
    assert ALLOWED.decision is not None
    evidence = Evidence(rule_id="00000000000000ff")
    known = RulePlace(rule_id=evidence.rule_id)
    program = replace(ALLOWED, decision=replace(ALLOWED.decision, dataplane="ebpf", evidence=evidence), steps=())
    seen = Watched({known: Reading(4)}, {known: Reading(5)}, "", "2026-01-01T00:00:03Z", 3)
    verdict, detail, _ = say(program, seen, None, probes(2))
    assert verdict == "allowed"
    assert detail.endswith("+1 in 3 s: repeated packets of a connection that the programs know are not counted")
    denied = replace(program, verdict="denied")
    assert say(denied, seen, None, probes(2))[0] == "undetermined"


def test_readings_are_not_part_of_comparing() -> None:
    one, other = rule(DROP), replace(rule(DROP), statements=(Counter(99, 99), *rule(DROP).statements[1:]))
    assert one.statements == other.statements


def test_drops_of_the_flow_s_interfaces_are_everybody_s() -> None:
    seen = watched(QUIET, {**QUIET, DROP: 7})
    before = {("cali1", "by policy"): 4, ("cali1", "malformed IP packets"): 2}
    seen = replace(seen, drops_before=before, drops_after={**before, ("cali1", "by policy"): 6})
    assert say(DENIED, seen, None, probes(2))[1].endswith("+2 in 3 s; of all flows cali1 dropped by policy +2")
    without = replace(DENIED, decision=None)
    assert say(without, seen, None, probes(2))[1].endswith("of all flows cali1 dropped by policy +2")
