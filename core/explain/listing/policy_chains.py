"""Endpoints' policy as rules of the kernel have it: nftables and iptables mode."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from calico_debug.explain.attribution import profile_ref
from calico_debug.explain.listing.policy_view import (
    HOST,
    POD,
    RULES_UNIT,
    Count,
    EndpointView,
    PolicyView,
    RuleView,
    TierView,
)
from calico_debug.explain.listing.rule_text import rule_text, set_uses
from calico_debug.explain.rulegroups import rule_groups
from calico_debug.explain.tier_names import SINGLE_TIER
from calico_debug.model.explanation import Finding
from calico_debug.model.nft import Bitwise, Ct, Match, Reject, Verdict
from calico_debug.policy.chains import ChainKind, CommentKind, chain_role, parse_comment
from calico_debug.policy.programmed import programmed_rules
from calico_debug.policy.wording import describe_rule, rule_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.explain.attribution import Attributor, NamedPolicy
    from calico_debug.explain.listing.endpoints import EndpointChain
    from calico_debug.explain.rulegroups import Marks, RuleGroup
    from calico_debug.model.nft import Rule
    from calico_debug.walk.node import NodeWalker

STAGES = {
    ("filter", ChainKind.HOST_FORWARD, "ingress"): "forwarded traffic (applyOnForward)",
    ("filter", ChainKind.HOST_FORWARD, "egress"): "forwarded traffic (applyOnForward)",
    ("mangle", ChainKind.HOST, "ingress"): "before service translation (preDNAT)",
    ("mangle", ChainKind.HOST, "egress"): "the host's own traffic to services",
    ("raw", ChainKind.HOST, "ingress"): "untracked (doNotTrack)",
    ("raw", ChainKind.HOST, "egress"): "untracked (doNotTrack)",
}
"""When a host endpoint's chain is asked, by table, kind and direction (felix/rules/endpoints.go)."""

_SHORTCUTS = {
    CommentKind.ENCAPSULATED_BY_WORKLOAD: "denied: encapsulated by the workload",
    CommentKind.ADMIN_DISABLED: "denied: the endpoint is disabled",
    CommentKind.PACKET_RATE: "denied: over the packet rate limit",
    CommentKind.CONNECTION_LIMIT: "denied: over the connection limit",
    CommentKind.FORWARD_DEFAULT: "forwarded without policy",
}


def chain_view(
    walker: NodeWalker, attributor: Attributor, chain: EndpointChain, dataplane: str, pod: tuple[str, str] | None
) -> EndpointView:
    """What an endpoint's chain holds. Raises `EvidenceError` when rules cannot be read."""
    return _Reader(walker, attributor, chain).view(dataplane, pod)


class _Reader:
    """Reads one endpoint's chain from the top."""

    def __init__(self, walker: NodeWalker, attributor: Attributor, chain: EndpointChain) -> None:
        self._walker, self._attributor, self._chain = walker, attributor, chain
        self._marks: Marks = attributor.marks(walker, chain.family, chain.table, chain.name)
        self._names = attributor.tiers(walker, chain.family, chain.table, chain.name)
        self._tiers: list[TierView] = []
        self._profiles: list[PolicyView] = []
        self._counts: list[Count] = []
        self._findings: dict[Finding, None] = {}
        self._end: RuleView | None = None
        self._asked = ""

    def view(self, dataplane: str, pod: tuple[str, str] | None) -> EndpointView:
        chain = self._chain
        for rule in self._rules(chain.name):
            self._read(rule)
        self._close_tier()
        kind = POD if chain.role.kind is ChainKind.WORKLOAD else HOST
        return EndpointView(
            node=self._walker.name,
            dataplane=dataplane,
            interface=chain.role.subject,
            kind=kind,
            direction=chain.role.direction,
            family=chain.ip_version,
            place=f"table {chain.family} {chain.table}, chain {chain.name}",
            unit=RULES_UNIT,
            stage=STAGES.get((chain.layer, chain.role.kind, chain.role.direction), ""),
            pod=pod,
            tiers=tuple(self._tiers),
            profiles=tuple(self._profiles),
            end=self._end,
            counts=tuple(self._counts),
            findings=tuple(self._findings),
        )

    def _rules(self, name: str) -> Sequence[Rule]:
        return self._walker.state.ruleset.rules(self._chain.family, self._chain.table, name) or ()

    def _read(self, rule: Rule) -> None:
        said = parse_comment(rule.comment)
        kind = said.kind
        if kind is CommentKind.TIER_START:
            self._close_tier()
            self._tiers.append(TierView(self._names.get(id(rule), said.name)))
        elif kind is CommentKind.TIER_END:
            self._end_tier(rule)
        elif kind in (CommentKind.POLICY_ACCEPTED, CommentKind.GROUP_VERDICT):
            self._count(f"accepted by {self._asked}", rule)
        elif kind is CommentKind.PROFILE_ACCEPTED:
            self._count(f"accepted by {self._asked}", rule, tier="")
        elif kind is CommentKind.NO_PROFILE:
            if _denial(rule):
                self._close_tier()
                self._end = _ending(rule, _denial(rule))
                self._count("denied: no profile allowed", rule, tier="")
        elif kind in _SHORTCUTS:
            if _verdict(rule) and (kind is CommentKind.FORWARD_DEFAULT or _denial(rule)):
                self._count(_SHORTCUTS[kind], rule, tier="")
        else:
            self._plain(rule)

    def _plain(self, rule: Rule) -> None:
        target = next((s.chain for s in rule.statements if isinstance(s, Verdict) and s.chain), "")
        role = chain_role(target) if target else None
        if role is None:
            self._shortcut(rule)
        elif role.kind is ChainKind.PROFILE:
            self._close_tier()
            profile = PolicyView(profile_ref(role.subject), self._rule_views(None, target), target)
            self._profiles.append(profile)
            self._asked = f"profile {role.subject}"
        elif role.kind is ChainKind.POLICY:
            view = self._policy(target)
            self._add(view)
            self._asked = _name(view)
            self._count(f"asked {self._asked}", rule)
        elif role.kind is ChainKind.POLICY_GROUP:
            members = [self._policy(name, target) for name in self._members(target)]
            for member in members:
                self._add(member)
            self._asked = ", ".join(map(_name, members)) or "an empty group"
            self._count(f"asked {self._asked}", rule)
        elif role.kind is ChainKind.FAILSAFE:
            self._count("looked up among the failsafe ports", rule, tier="")

    def _shortcut(self, rule: Rule) -> None:
        verdict = _verdict(rule)
        if not verdict or not _asks_state(rule):
            return
        word = "denied: invalid for conntrack" if _denial(rule) else "accepted: conntrack knows the connection"
        self._count(word, rule, tier="")

    def _members(self, group: str) -> list[str]:
        """The policies of a group's chain, in order."""
        found = []
        for rule in self._rules(group):
            for statement in rule.statements:
                role = chain_role(statement.chain) if isinstance(statement, Verdict) and statement.chain else None
                if role is not None and role.kind is ChainKind.POLICY:
                    assert isinstance(statement, Verdict)
                    found.append(statement.chain)
        return found

    def _policy(self, chain: str, group: str = "") -> PolicyView:
        named = self._attributor.policy(self._walker, self._chain.family, self._chain.table, chain, self._marks)
        self._compare(named, chain)
        return PolicyView(named.ref, self._rule_views(named, chain), chain, group)

    def _rule_views(self, named: NamedPolicy | None, chain: str) -> tuple[RuleView, ...]:
        if named is None:
            groups = rule_groups(self._rules(chain), self._marks)
            return tuple(self._rule_view(group, number, None) for number, group in enumerate(groups))
        return tuple(
            self._rule_view(group, index, named) for group, index in zip(named.groups, named.indices, strict=True)
        )

    def _rule_view(self, group: RuleGroup, index: int | None, named: NamedPolicy | None) -> RuleView:
        text = ""
        if named is not None and named.object is not None and index is not None:
            text = self._wording(named, index, group.action)
        counter = group.main.counter
        ruleset = self._walker.state.ruleset
        return RuleView(
            action=group.action,
            index=index,
            text=text,
            programmed=rule_text(group.main),
            hits=counter.packets if counter is not None else None,
            handles=tuple(rule.handle for rule in group.rules if rule.handle),
            ip_sets=set_uses(ruleset, group.rules),
        )

    def _wording(self, named: NamedPolicy, index: int, action: str) -> str:
        """The API's words for a rule, "" where the object has another rule there by now."""
        assert named.object is not None
        if index >= rule_count(named.object, named.direction):
            return ""
        words = describe_rule(named.object, named.direction, index)
        return words if words.startswith(action) else ""

    def _compare(self, named: NamedPolicy, chain: str) -> None:
        """Tell where the object is not what is programmed."""
        if named.object is None:
            return
        expected = programmed_rules(named.object, named.direction, self._chain.ip_version)
        actions = [group.action for group in named.groups]
        if expected is None or [rule.action for rule in expected] == actions:
            return
        finding = differs(named.object.kind, _full(named), named.direction, f"chain {chain} of {self._walker.name}")
        self._findings.setdefault(finding)

    # ------------------------------------------------------------------------------------------------------- tiers

    def _add(self, policy: PolicyView) -> None:
        if not self._tiers or self._tiers[-1].end is not None:
            self._tiers.append(TierView(SINGLE_TIER))
        tier = self._tiers[-1]
        self._tiers[-1] = replace(tier, policies=(*tier.policies, policy))

    def _end_tier(self, rule: Rule) -> None:
        denial = _denial(rule)
        if not denial:
            return
        if not self._tiers:
            self._tiers.append(TierView(self._names.get(id(rule), SINGLE_TIER)))
        self._count("denied: end of tier", rule)
        self._tiers[-1] = replace(self._tiers[-1], end=_ending(rule, denial))

    def _close_tier(self) -> None:
        """A tier without a denial at its end lets the packet go on."""
        if self._tiers and self._tiers[-1].end is None:
            self._tiers[-1] = replace(self._tiers[-1], end=RuleView("Pass"))

    def _count(self, what: str, rule: Rule, tier: str | None = None) -> None:
        if tier is None:
            tier = self._tiers[-1].name if self._tiers else ""
        counter = rule.counter
        self._counts.append(Count(what, tier, counter.packets if counter is not None else None, rule.handle))


def differs(kind: str, name: str, direction: str, place: str) -> Finding:
    """The finding that a policy's object has other rules than the dataplane."""
    return Finding(
        "policy-not-as-programmed",
        "warning",
        f"{kind} {name} has other {direction} rules than {place}: Felix has not programmed the latest object, or the "
        "two were recorded at different times",
    )


def _full(named: NamedPolicy) -> str:
    return f"{named.ref.namespace}/{named.ref.name}" if named.ref.namespace else named.ref.name


def _name(view: PolicyView) -> str:
    ref = view.ref
    full = f"{ref.namespace}/{ref.name}" if ref.namespace else ref.name
    return f"{ref.kind} {full}".strip()


def _ending(rule: Rule, action: str) -> RuleView:
    counter = rule.counter
    return RuleView(
        action,
        hits=counter.packets if counter is not None else None,
        handles=(rule.handle,) if rule.handle else (),
    )


def _denial(rule: Rule) -> str:
    """Deny or Reject when the rule drops or refuses, else ""."""
    for statement in rule.statements:
        if isinstance(statement, Reject):
            return "Reject"
        if isinstance(statement, Verdict) and statement.kind == "drop":
            return "Deny"
    return ""


def _verdict(rule: Rule) -> bool:
    return any(
        isinstance(s, Reject) or (isinstance(s, Verdict) and s.kind in ("accept", "drop", "return"))
        for s in rule.statements
    )


def _asks_state(rule: Rule) -> bool:
    return any(
        isinstance(s, Match) and isinstance(s.left, Bitwise) and s.left.operand == Ct("state") for s in rule.statements
    )
