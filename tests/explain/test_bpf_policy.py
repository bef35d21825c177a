"""Runs of policy programs told as policy, made by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from calico_debug.explain.bpf_policy import PolicyTold, tell_policy, with_names
from calico_debug.model.bytecode import Section, SectionKind
from calico_debug.model.cluster import PolicyObject
from calico_debug.model.explanation import PolicyRef, RuleRef
from calico_debug.policy.identity import policy_index
from calico_debug.policy.rule_ids import end_of_tier_id, rule_id
from calico_debug.state.dataplane import EBPF
from calico_debug.walk.bpf_datapath import BpfDatapath
from calico_debug.walk.bpf_outcomes import PolicyResult
from calico_debug.walk.bpf_policy import Hit, PolicyRun, Verdict
from tests.explain.world import decided
from tests.walk.recorded_bpf import CUSTOMER, SUMMARY, RecordedCluster

RULE, END, NOBODY = SectionKind.RULE, SectionKind.END_OF_TIER, SectionKind.NO_PROFILE
PASS = Section(RULE, "security", "GlobalNetworkPolicy", "", "security.quarantine", 1, 11, "pass")
ALLOW = Section(RULE, "default", "NetworkPolicy", "shop", "web", 0, 12, "allow")
LEGACY = Section(RULE, "default", "", "shop", "default.web", 2, 12, "deny")
KUBERNETES = Section(RULE, "default", "KubernetesNetworkPolicy", "shop", "web", 3, 13, "allow")
PROFILE = Section(RULE, "", "Profile", "", "kns.shop", 0, 14, "allow")
DENIED_AT_END = Section(END, "platform", match_id=15, action="deny")
PASSED_AT_END = Section(END, "platform", match_id=15, action="pass")
NO_PROFILE = Section(NOBODY, match_id=0)
COUNTERS = {11: 4, 12: 9}


def told(
    *sections: Section | int | None,
    verdict: Verdict = Verdict.ALLOWED,
    host: bool = False,
    detail: str = "",
    hypothetical: bool = False,
) -> PolicyTold:
    """``sections`` in the order they were hit, a number for an id that nothing names."""
    hits = [Hit(one.match_id, one) if isinstance(one, Section) else Hit(one, None) for one in sections]
    run = PolicyRun(verdict, tuple(hits), tuple(hit.rule_id for hit in hits if hit.rule_id), (), detail)
    result = PolicyResult("cali1", "ingress", host, run)
    datapath = cast("BpfDatapath", SimpleNamespace(lookups=SimpleNamespace(rule_counter=COUNTERS.get)))
    return tell_policy(result, "n1", policy_index([]), datapath, hypothetical)


def test_rules_in_order_the_last_one_decides() -> None:
    made = told(PASS, ALLOW)
    assert [(step.action, step.tier, step.policy) for step in made.steps] == [
        ("passed", "security", PolicyRef("GlobalNetworkPolicy", "security.quarantine", "")),
        ("allowed", "default", PolicyRef("NetworkPolicy", "web", "shop")),
    ]
    decision = made.decision
    assert (decision.dataplane, decision.reason, decision.direction, decision.tier) == (
        EBPF,
        "rule",
        "ingress",
        "default",
    )
    assert decision.rule == RuleRef("Allow", 0)
    assert decision.evidence is not None
    assert (decision.evidence.rule_id, decision.evidence.counter) == (f"{12:016x}", 9)


@pytest.mark.parametrize(
    ("section", "verdict", "reason", "words"),
    [
        (DENIED_AT_END, Verdict.DENIED, "end-of-tier", "none of their rules"),
        (NO_PROFILE, Verdict.DENIED, "no-profile", "no profile allowed"),
        (PROFILE, Verdict.ALLOWED, "profile", "profile kns.shop allows"),
        (14, Verdict.DENIED, "rule", "no debug file says for which rule"),
        (None, Verdict.DENIED, "rule", "no debug file says for which rule"),
    ],
)
def test_reasons(section: Section | int | None, verdict: Verdict, reason: str, words: str) -> None:
    made = told(PASS, section, verdict=verdict)
    assert made.decision.reason == reason
    assert words in made.decision.detail
    assert made.steps[-1].action == ("denied" if verdict is Verdict.DENIED else "allowed")


def test_a_tier_that_passes() -> None:
    made = told(PASSED_AT_END, PROFILE)
    assert [step.action for step in made.steps] == ["passed", "allowed"]
    assert "default action is to pass" in made.steps[0].detail


@pytest.mark.parametrize(
    ("flags", "untracked", "words"),
    [
        ((False, False), False, "no rule matched, and the tier's default action is to pass"),
        ((True, True), False, "no rule matched; policy before translation (preDNAT) denies only by a rule"),
        ((True, False), False, "no rule matched, and the end of the tier passes"),
        ((True,), False, "no rule matched, and the end of the tier passes"),
        ((False, False), True, "no rule matched; untracked policy (doNotTrack) denies only by a rule"),
    ],
)
def test_why_the_end_of_a_host_endpoints_tier_passes(flags: tuple[bool, ...], untracked: bool, words: str) -> None:
    policies = [PolicyObject("GlobalNetworkPolicy", "", f"p{n}", "t", 1, {"preDNAT": f}) for n, f in enumerate(flags)]
    rules = tuple(Section(RULE, "t", "GlobalNetworkPolicy", "", f"p{number}", 0, 1, "deny") for number in range(2))
    ended = Hit(15, Section(END, "t", match_id=15, action="pass"))
    run = PolicyRun(Verdict.PASSED if untracked else Verdict.ALLOWED, (ended,), (15,), ())
    result = PolicyResult("eth0", "ingress", True, run, rules=rules, untracked=untracked)
    datapath = cast("BpfDatapath", SimpleNamespace(lookups=SimpleNamespace(rule_counter=COUNTERS.get)))
    assert tell_policy(result, "n1", policy_index(policies), datapath, False).steps[0].detail == words


@pytest.mark.parametrize("sections", [(), (PASSED_AT_END,)])
def test_host_endpoints_that_nobody_spoke_of(sections: tuple[Section, ...]) -> None:
    made = told(*sections, host=True)
    assert made.decision.reason == "no-policy"
    assert made.steps[-1].stage == "host"
    assert "no policy of the host endpoint" in made.decision.detail
    assert len(made.steps) == len(sections) + 1


def test_a_broken_program() -> None:
    made = told(verdict=Verdict.BROKEN, detail="its next part is missing")
    assert (made.decision.reason, made.decision.detail) == ("program-missing", "its next part is missing")
    assert made.steps[0].action == "denied"


def test_rules_of_kubernetes_without_their_object_have_no_number() -> None:
    assert told(KUBERNETES).decision.rule == RuleRef("Allow", None)


def test_policies_before_the_release_that_names_their_kind() -> None:
    made = told(LEGACY, verdict=Verdict.DENIED)
    assert made.decision.policy == PolicyRef("NetworkPolicy", "web", "shop")
    assert made.decision.rule == RuleRef("Deny", 2)


def test_hypothetical_steps_say_so() -> None:
    assert all(step.hypothetical for step in told(PASS, ALLOW, hypothetical=True).steps)


def test_names_for_ids_alone() -> None:
    run = PolicyRun(Verdict.ALLOWED, (Hit(11, None), Hit(12, ALLOW), Hit(None, None), Hit(99, None)), (11, 12, 99), ())
    result = PolicyResult("cali1", "ingress", False, run)
    named = with_names(result, {11: PASS, 12: LEGACY}.get)
    assert [hit.section for hit in named.run.hits] == [PASS, ALLOW, None, None]
    assert with_names(result, {}.get) is result


def test_up_to_v3_31_files_do_not_name_profiles() -> None:
    nameless = Section(SectionKind.RULE, owner="Profile", action="allow")
    named = replace(nameless, name="kns.shop")
    result = PolicyResult("cali1", "ingress", False, PolicyRun(Verdict.ALLOWED, (Hit(11, nameless),), (11,), ()))
    (hit,) = with_names(result, {11: named}.get).run.hits
    assert hit.section == named
    assert with_names(result, {11: ALLOW}.get) is result  # an id of something else
    assert told(nameless).steps[-1].detail == "no tier decided; a profile allows"


def test_ids_are_computed_from_the_cluster_s_objects() -> None:
    attributor = RecordedCluster().engine._attributor
    security = attributor.section(rule_id("PPE1|gnp/security.quarantine"))
    assert security is not None
    assert (security.owner, security.name, security.index, security.action) == (
        "GlobalNetworkPolicy",
        "security.quarantine",
        1,
        "pass",
    )
    end = attributor.section(end_of_tier_id("platform", "egress", "deny"))
    assert end is not None
    assert (end.kind, end.tier) == (END, "platform")
    profile = attributor.section(rule_id("ARE0|kns.yaobank"))
    assert profile is not None
    assert profile.owner == "Profile"
    assert attributor.section(1) is None


def test_a_whole_flow() -> None:
    cluster = RecordedCluster()
    answer = cluster.engine.explain(cluster.resolver.resolve(CUSTOMER, f"{SUMMARY}:81"))
    assert decided(answer) == ("denied", "rule", "node1")
    assert answer.decision is not None
    assert answer.decision.policy == PolicyRef("GlobalNetworkPolicy", "default-deny", "")
    assert {finding.code for finding in answer.findings if finding.severity == "error"} == set()


def test_untracked_policy_that_says_nothing_decides_nothing() -> None:
    run = PolicyRun(Verdict.PASSED, (), (), ())
    result = PolicyResult("eth0", "ingress", True, run, untracked=True)
    datapath = cast("BpfDatapath", SimpleNamespace(lookups=SimpleNamespace(rule_counter=COUNTERS.get)))
    [step] = tell_policy(result, "n1", policy_index([]), datapath, False).steps
    assert (step.stage, step.action) == ("host", "passed")
    assert "doNotTrack" in step.detail
    assert not result.denied
    assert not result.accepted_untracked
