"""Endpoints' policy as the programs of the eBPF dataplane have it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from calico_debug.decode.bpf_instructions import recorded_ids
from calico_debug.decode.bpf_layout_types import Role
from calico_debug.errors import EvidenceError
from calico_debug.explain.bpf_policy import PROFILE, identity_of, is_nameless, policy_and_rule, with_name
from calico_debug.explain.listing.felix_text import member_text, programmed_text, set_names
from calico_debug.explain.listing.policy_chains import differs
from calico_debug.explain.listing.policy_view import (
    BPF_UNIT,
    HOST,
    POD,
    EndpointView,
    PolicyView,
    RuleView,
    SetUse,
    TierView,
)
from calico_debug.model.bytecode import Section, SectionKind
from calico_debug.model.explanation import Finding, PolicyRef
from calico_debug.policy.programmed import programmed_rules
from calico_debug.policy.wording import describe_rule, rule_count
from calico_debug.state.bpf_lookups import BpfLookups
from calico_debug.state.dataplane import EBPF
from calico_debug.walk.bpf_loaded import LoadedPolicies, LoadedPolicy
from calico_debug.walk.context import Undecided

if TYPE_CHECKING:
    from calico_debug.explain.attribution import Attributor
    from calico_debug.model.bpf_objects import Attachment
    from calico_debug.model.bytecode import PolicyDebug
    from calico_debug.model.cluster import PolicyObject
    from calico_debug.state.bpf_programs import PolicyPrograms
    from calico_debug.state.node import NodeState

OPPOSITE: Final = {"ingress": "egress", "egress": "ingress"}
XDP: Final = "xdp"
STAGE_XDP: Final = "untracked, before everything else (XDP)"

_PLACEHOLDERS: Final = {
    "deny": "the policy is not loaded yet, and until then everything is denied",
    "allow": "the policy is not loaded yet, and until then everything is allowed",
}
_ACTIONS: Final = {"allow": "Allow", "deny": "Deny", "pass": "Pass", "log": "Log", "next-tier": "Pass"}
_UNREACHED: Final = "nothing gets to it"
_UNNAMED: Final = Section(SectionKind.RULE, "?")
"""A rule of which only the id is known."""


@dataclass(frozen=True, slots=True)
class _Run:
    """What is told of one program: ``coded`` are the sections that have code, None where no file lists sections."""

    view: EndpointView
    loaded: LoadedPolicy
    findings: dict[Finding, None]
    coded: frozenset[Section] | None

    def absent(self, section: Section, index: int | None, known: PolicyObject | None) -> str:
        """Why a listed rule has no code: Felix lists those of the other IP version, and those that nothing gets to."""
        if self.coded is None or section in self.coded:
            return ""
        view = self.view
        of_family = programmed_rules(known, view.direction, view.family) if known is not None else None
        if of_family is not None and index not in {rule.index for rule in of_family}:
            return f"it is not of IPv{view.family}"
        return _UNREACHED


class ProgramPolicies:
    """Reads the policy programs of one node."""

    def __init__(self, state: NodeState, attributor: Attributor) -> None:
        """Nothing is read yet."""
        self._state, self._attributor = state, attributor
        self._lookups = BpfLookups(state.bpf)
        self._loaded = LoadedPolicies(state)

    def views(self, interfaces: frozenset[str] | None, pods: Mapping[str, tuple[str, str]]) -> Iterator[EndpointView]:
        """Every endpoint's policy; ``interfaces`` None means all that have policy. Raises `EvidenceError`."""
        bpf = self._state.bpf
        known = {one.name: one for one in self._lookups.interfaces.values()}
        for attachment in bpf.reach.attachments:
            name = attachment.interface
            if not name or (interfaces is not None and name not in interfaces):
                continue
            hook = XDP if attachment.mechanism == XDP else attachment.hook
            if hook not in (*OPPOSITE, XDP):
                continue
            workload = name in known and known[name].workload
            for family in bpf.reach.families(attachment):
                view = self._view(attachment, hook, family, workload, pods.get(name), interfaces is not None)
                if view is not None:
                    yield view

    def _view(
        self,
        attachment: Attachment,
        hook: str,
        family: int,
        workload: bool,
        pod: tuple[str, str] | None,
        asked: bool,
    ) -> EndpointView | None:
        loaded = self._state.bpf.reach.policy(attachment, family)
        if hook == XDP:
            direction, file = "ingress", XDP
        else:
            direction = file = OPPOSITE[hook] if workload else hook
        numbers = ", ".join(map(str, loaded.programs))
        view = EndpointView(
            node=self._state.name,
            dataplane=EBPF,
            interface=attachment.interface,
            kind=POD if workload else HOST,
            direction=direction,
            family=family,
            place=f"program {numbers}" if numbers else "",
            unit=BPF_UNIT,
            stage=STAGE_XDP if hook == XDP else "",
            pod=pod,
        )
        if loaded.problem:
            return replace(view, problem=loaded.problem, unread=True)
        if loaded.placeholder:
            return replace(view, problem=_PLACEHOLDERS[loaded.placeholder])
        if not loaded.programs:
            if workload:
                return replace(view, problem="there is no policy program, so everything is dropped")
            # Without a host endpoint an interface has programs, and no policy.
            return replace(view, problem="there is no policy here: no host endpoint has it") if asked else None
        try:
            found = self._loaded.policy(attachment.interface, file, loaded)
        except (EvidenceError, Undecided) as error:
            return replace(view, problem=str(error), unread=True)
        return self._told(view, found, loaded)

    def _told(self, view: EndpointView, found: LoadedPolicy, loaded: PolicyPrograms) -> EndpointView:
        numbers = loaded.programs
        view = replace(view, place=f"program{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}")
        coded = _coded(found)
        coded = frozenset(self._profiles_named(tuple(coded))) if coded is not None else None
        run = _Run(view, found, dict.fromkeys(found.findings), coded)
        sections = self._profiles_named(_listed(found.debug)) if found.debug is not None else self._named(found)
        tiers: list[TierView] = []
        profiles: list[PolicyView] = []
        for tier, group in _by_tier(sections):
            policies = self._policies(group, run)
            if not tier:
                profiles += policies
                continue
            ends = [one for one in group if one.kind is SectionKind.END_OF_TIER]
            tiers.append(TierView(tier, tuple(policies), self._ending(ends[-1], run) if ends else None))
        return replace(
            view,
            tiers=tuple(tiers),
            profiles=tuple(profiles),
            # felix/bpf/polprog: a workload's packets are denied behind the last profile, a host's go on.
            end=RuleView("Deny") if view.kind == POD else None,
            findings=tuple(run.findings),
        )

    def _profiles_named(self, sections: Sequence[Section]) -> Sequence[Section]:
        computed = self._attributor.sections(one.match_id for one in sections if one.match_id and is_nameless(one))
        return [with_name(one, computed.get(one.match_id or 0)) or one if is_nameless(one) else one for one in sections]

    def _named(self, found: LoadedPolicy) -> Sequence[Section]:
        """What the ids stand for that a program notes, in the order of its code: without Felix's file that is all."""
        parts = (recorded_ids(part.program.instructions) for part in found.program.parts)
        numbers = [number for ids in parts for _, number in sorted(ids.items()) if number]
        names = found.program.names
        computed = self._attributor.sections(number for number in numbers if number not in names)
        known = (names.get(number) or computed.get(number) or _UNNAMED for number in dict.fromkeys(numbers))
        return [replace(one, match_id=number) for one, number in zip(known, dict.fromkeys(numbers), strict=True)]

    # ------------------------------------------------------------------------------------------------------ policies

    def _policies(self, sections: Sequence[Section], run: _Run) -> list[PolicyView]:
        grouped: dict[tuple[str, str, str], list[Section]] = {}
        for one in sections:
            if one.kind in (SectionKind.RULE, SectionKind.POLICY):
                grouped.setdefault((one.owner, one.namespace, one.name), []).append(one)
        return [self._policy(group, run) for group in grouped.values()]

    def _policy(self, sections: Sequence[Section], run: _Run) -> PolicyView:
        first, direction = sections[0], run.view.direction
        if first.owner == PROFILE or not first.name:
            ref = PolicyRef(first.owner, first.name)
            numbers = [one.index if first.name else None for one in sections]
            return PolicyView(ref, tuple(self._rule(*pair, None, run) for pair in zip(sections, numbers, strict=True)))
        ref, _ = policy_and_rule(first, direction, self._attributor.index)
        known = self._object(first)
        rules = [one for one in sections if one.kind is SectionKind.RULE]
        if known is not None and run.loaded.rules:
            expected = programmed_rules(known, direction, 0)
            actions = [_ACTIONS.get(one.action, one.action) for one in rules]
            if expected is not None and [rule.action for rule in expected] != actions:
                full = f"{ref.namespace}/{ref.name}" if ref.namespace else ref.name
                place = f"{run.view.place} of {run.view.node}"
                run.findings.setdefault(differs(ref.kind, full, direction, place))
        indices = [policy_and_rule(one, direction, self._attributor.index)[1].index for one in rules]
        return PolicyView(ref, tuple(self._rule(*pair, known, run) for pair in zip(rules, indices, strict=True)))

    def _object(self, section: Section) -> PolicyObject | None:
        identity = identity_of(section)
        return self._attributor.index.find(identity) if identity is not None else None

    def _rule(self, section: Section, index: int | None, known: PolicyObject | None, run: _Run) -> RuleView:
        counted = section.action != "log" and section.match_id
        action = _ACTIONS.get(section.action, section.action or "?")
        text = ""
        if known is not None and index is not None and index < rule_count(known, run.view.direction):
            words = describe_rule(known, run.view.direction, index)
            text = words if words.startswith(action) else ""
        return RuleView(
            action=action,
            index=index,
            text=text,
            programmed=programmed_text(section.text),
            hits=self._hits(section.match_id) if counted else None,
            rule_id=f"{section.match_id:016x}" if counted else "",
            ip_sets=self._sets(section.text, run),
            absent=run.absent(section, index, known),
        )

    def _ending(self, section: Section, run: _Run) -> RuleView:
        number = section.match_id
        action = _ACTIONS.get(section.action, "?")
        if number:
            return RuleView(action, hits=self._hits(number), rule_id=f"{number:016x}")
        return RuleView(action, absent=run.absent(section, None, None))

    def _hits(self, number: int | None) -> int | None:
        """Hits of a rule; a rule that was never met has no entry in the map, which is 0 where there is a map."""
        if number is None or self._state.bpf.map(Role.RULE_COUNTERS) is None:
            return None
        return self._lookups.rule_counter(number) or 0

    # ---------------------------------------------------------------------------------------------------------- sets

    def _sets(self, text: str, run: _Run) -> tuple[SetUse, ...]:
        """The sets that a rule names. Felix tells the numbers of those that it looks addresses up in, not of others."""
        names = run.loaded.debug.ip_sets if run.loaded.debug is not None else {}
        numbers = {name: number for number, name in names.items()}
        found = []
        for side, name in set_names(text):
            number = numbers.get(name)
            if number is None:
                found.append(SetUse(side, name))
            else:
                members = tuple(self._members.get((run.view.family, number), ()))
                found.append(SetUse(side, f"{number:#x} ({name})", members))
        return tuple(found)

    @cached_property
    def _members(self) -> Mapping[tuple[int, int], list[str]]:
        found: dict[tuple[int, int], list[str]] = {}
        for family in (4, 6):
            for one in self._state.bpf.entries(Role.IP_SETS, family):
                found.setdefault((family, one.set_id), []).append(member_text(one))
        return found


def _coded(found: LoadedPolicy) -> frozenset[Section] | None:
    if found.debug is None:
        return None
    by_identity = {id(one): one for part in found.debug.programs for one in part.sections.values()}
    return frozenset(by_identity.values())


def _listed(debug: PolicyDebug) -> Sequence[Section]:
    """Felix's list of rules, with the policies that have none."""
    found = list(debug.rules)
    for position, section in reversed(debug.ruleless):
        found.insert(position, section)
    return found


def _by_tier(sections: Sequence[Section]) -> Iterator[tuple[str, list[Section]]]:
    """Sections of each tier in order; "" for profiles. A tier ends with its end: the same may come again."""
    group: list[Section] = []
    for one in sections:
        if group and one.tier != group[0].tier:
            yield group[0].tier, group
            group = []
        group.append(one)
        if one.kind is SectionKind.END_OF_TIER:
            yield one.tier, group
            group = []
    if group:
        yield group[0].tier, group
