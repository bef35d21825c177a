"""Policy programs of the eBPF dataplane in the terms of policy: what each rule that was hit stands for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from calico_debug.explain.phrases import PRE_DNAT_PASSED, TIER_PASSED, UNTRACKED_PASSED, end_of_tier
from calico_debug.model.bytecode import SectionKind
from calico_debug.model.explanation import Decision, Evidence, PolicyRef, RuleRef, Step
from calico_debug.policy.identity import FELIX_KINDS, PolicyIdentity, PolicyIndex, identity_from_id
from calico_debug.policy.programmed import programmed_rules
from calico_debug.state.dataplane import EBPF
from calico_debug.walk.bpf_policy import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from calico_debug.model.bytecode import Section
    from calico_debug.walk.bpf_datapath import BpfDatapath
    from calico_debug.walk.bpf_outcomes import PolicyResult
    from calico_debug.walk.bpf_policy import Hit

PROFILE = "Profile"
CALICO_KINDS = ("NetworkPolicy", "GlobalNetworkPolicy")
"""Kinds whose rules are programmed one by one."""
_ACTIONS = {"allow": "Allow", "deny": "Deny", "pass": "Pass", "log": "Log"}
_NO_HOST_POLICY = "no policy of the host endpoint speaks of this traffic"
_NOT_UNTRACKED = "untracked policy (doNotTrack) says nothing of this traffic"
_EITHER = "no rule matched, and the end of the tier passes"
_UNEXPLAINED = "the policy program decided, and no debug file says for which rule"


@dataclass(frozen=True, slots=True)
class PolicyTold:
    """The steps of one run, and the decision that it stands for."""

    steps: tuple[Step, ...]
    decision: Decision


def with_names(result: PolicyResult, section: Callable[[int], Section | None]) -> PolicyResult:
    """The result with every hit named that ``section`` knows by its id: code without comments names none."""
    hits = tuple(
        replace(hit, section=with_name(hit.section, section(hit.rule_id)))
        if hit.rule_id and (hit.section is None or is_nameless(hit.section))
        else hit
        for hit in result.run.hits
    )
    return result if hits == result.run.hits else replace(result, run=replace(result.run, hits=hits))


def is_nameless(section: Section) -> bool:
    """Whether it is a profile's rule as Felix's files have it up to v3.31 (pol_prog_builder.go): without a name."""
    return section.owner == PROFILE and not section.name


def with_name(section: Section | None, computed: Section | None) -> Section | None:
    """What is ``computed`` from a rule's id, where Felix's file has no name for it."""
    if section is None or computed is None:
        return section or computed
    return replace(section, name=computed.name) if computed.owner == section.owner else section


def tell_policy(
    result: PolicyResult, node: str, index: PolicyIndex, datapath: BpfDatapath, hypothetical: bool
) -> PolicyTold:
    """Tell a run of an interface's policy program."""
    steps = [_step(hit, result, node, index, datapath, hypothetical) for hit in result.run.hits]
    if result.run.verdict is Verdict.PASSED:
        steps.append(Step(node, "host", "passed", _NOT_UNTRACKED, result.direction, hypothetical=hypothetical))
    elif _passed_everything(result):
        steps.append(Step(node, "host", "allowed", _NO_HOST_POLICY, result.direction, hypothetical=hypothetical))
    elif not steps:
        detail = result.run.detail or _UNEXPLAINED
        outcome = "allowed" if not result.denied else "denied"
        steps.append(Step(node, stage_of(result), outcome, detail, result.direction, hypothetical=hypothetical))
    last = steps[-1]
    decision = Decision(
        node,
        EBPF,
        _reason(result),
        result.direction,
        last.tier,
        last.policy,
        last.rule,
        last.detail,
        last.evidence,
    )
    return PolicyTold(tuple(steps), decision)


def stage_of(result: PolicyResult) -> str:
    """The stage of its steps."""
    return "host" if result.host else result.direction


def _passed_everything(result: PolicyResult) -> bool:
    """Whether a host endpoint's program let the packet through because no policy for such traffic spoke."""
    if not result.host or result.denied:
        return False
    last = result.run.hits[-1].section if result.run.hits else None
    return not result.run.hits or (last is not None and last.kind is SectionKind.END_OF_TIER)


def _reason(result: PolicyResult) -> str:
    if _passed_everything(result):
        return "no-policy"
    if result.run.verdict is Verdict.BROKEN:
        return "program-missing"
    section = result.run.hits[-1].section if result.run.hits else None
    if section is None:
        return "rule"
    if section.kind is SectionKind.END_OF_TIER:
        return "end-of-tier"
    if section.kind is SectionKind.NO_PROFILE:
        return "no-profile" if result.denied else "no-policy"
    return "profile" if section.owner == PROFILE else "rule"


def _step(
    hit: Hit,
    result: PolicyResult,
    node: str,
    index: PolicyIndex,
    datapath: BpfDatapath,
    hypothetical: bool,
) -> Step:
    section = hit.section
    evidence = _evidence(hit, datapath)
    stage, direction = stage_of(result), result.direction
    decides = not _passed_everything(result) and result.run.verdict is not Verdict.PASSED
    last = decides and hit is result.run.hits[-1]
    outcome = ("denied" if result.denied else "allowed") if last else "passed"
    if section is None:
        return Step(node, stage, outcome, _UNEXPLAINED, direction, evidence=evidence, hypothetical=hypothetical)
    ref: PolicyRef | None = None
    rule: RuleRef | None = None
    detail = ""
    if section.kind is SectionKind.END_OF_TIER:
        asked = _asked(section.tier, result, direction, index)
        detail = _passed(asked, result, index) if outcome == "passed" else end_of_tier(not result.host, asked)
    elif section.kind is SectionKind.NO_PROFILE:
        detail = "no tier decided and no profile allowed"
    elif section.owner == PROFILE:
        ref = PolicyRef(PROFILE, section.name)
        named = f"profile {section.name}" if section.name else "a profile"
        detail = f"no tier decided; {named} {'allows' if outcome == 'allowed' else 'denies'}"
    else:
        ref, rule = policy_and_rule(section, direction, index)
    return Step(node, stage, outcome, detail, direction, section.tier, ref, rule, evidence, hypothetical)


def _passed(asked: Sequence[PolicyRef], result: PolicyResult, index: PolicyIndex) -> str:
    """Why the end of a tier does not deny. Its policies tell, as the program's code is the same for each reason."""
    if result.untracked:
        return UNTRACKED_PASSED
    if not result.host:
        return TIER_PASSED
    found = [index.find(PolicyIdentity(ref.kind, ref.namespace, ref.name)) for ref in asked]
    if not found or None in found:
        return _EITHER
    before = {policy.spec.get("preDNAT") is True for policy in found if policy is not None}
    return TIER_PASSED if True not in before else PRE_DNAT_PASSED if False not in before else _EITHER


def _asked(tier: str, result: PolicyResult, direction: str, index: PolicyIndex) -> list[PolicyRef]:
    """The policies of a tier that the program has rules of, in their order."""
    found = (one for one in result.rules if one.kind is SectionKind.RULE and one.tier == tier and one.owner != PROFILE)
    return list(dict.fromkeys(policy_and_rule(one, direction, index)[0] for one in found))


def policy_and_rule(section: Section, direction: str, index: PolicyIndex) -> tuple[PolicyRef, RuleRef]:
    """The policy and the rule that a section stands for; ``index`` counts the object's rules where that is known."""
    identity = identity_of(section)
    found = index.find(identity) if identity is not None else None
    action = _ACTIONS.get(section.action, section.action)
    if identity is None:
        return PolicyRef(section.owner, section.name, section.namespace), RuleRef(action)
    name = found.name if found is not None else identity.name
    number: int | None = section.index
    if identity.kind not in CALICO_KINDS:
        # The program has the rules that Felix converted, numbered before those of the other IP version are left out;
        # the user wrote entries.
        programmed = programmed_rules(found, direction, 0) if found is not None else None
        number = programmed[section.index].index if programmed and section.index < len(programmed) else None
    return PolicyRef(identity.kind, name, identity.namespace), RuleRef(action, number)


def identity_of(section: Section) -> PolicyIdentity | None:
    """Whose rule a section is, None if its name cannot be read."""
    if section.owner:
        kind = FELIX_KINDS.get(section.owner, section.owner)
        return PolicyIdentity(kind, section.namespace, section.name, section.tier)
    full = f"{section.namespace}/{section.name}" if section.namespace else section.name
    return identity_from_id(full, tiered=False)


def _evidence(hit: Hit, datapath: BpfDatapath) -> Evidence | None:
    if hit.rule_id is None:
        return None
    return Evidence(rule_id=f"{hit.rule_id:016x}", counter=datapath.lookups.rule_counter(hit.rule_id))
