"""What Calico's chains did with a packet: endpoint by endpoint, tier by tier, policy by policy.

The walk yields the rules that matched, in order. Chain names and comments say what each of them stands for; this
module replays them into the terms of policy: which tiers were met, which policies were asked, what they answered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from calico_debug.explain.tier_names import SINGLE_TIER
from calico_debug.model.nft import Bitwise, Ct, Match, Meta, Reject, Verdict
from calico_debug.policy.chains import ChainKind, ChainRole, CommentKind, RuleComment, chain_role, parse_comment
from calico_debug.walk.context import Matched

if TYPE_CHECKING:
    from collections.abc import Iterable

    from calico_debug.model.nft import Rule
    from calico_debug.walk.context import Event

ENDPOINT_CHAINS = frozenset({ChainKind.WORKLOAD, ChainKind.HOST, ChainKind.HOST_FORWARD})
DENIED, ALLOWED, PASSED, NO_MATCH = "denied", "allowed", "passed", "no match"


@dataclass(slots=True)
class PolicyVisit:
    """A policy that was asked. ``rule`` is the kernel rule that stands for the API rule that answered."""

    family: str
    table: str
    chain: str
    outcome: str = NO_MATCH
    rule: Rule | None = None


@dataclass(slots=True)
class TierVisit:
    """A tier that was met. ``outcome`` is "" while the packet is in it; ``by`` is the policy that answered.

    ``name`` is what comments say, which may be of the past; ``first`` is the first of its rules that was met.
    """

    name: str
    policies: list[PolicyVisit] = field(default_factory=list)
    outcome: str = ""
    by: PolicyVisit | None = None
    rule: Rule | None = None
    first: Rule | None = None


@dataclass(slots=True)
class EndpointVisit:
    """One endpoint's chain: a workload's egress or ingress, or a host endpoint's.

    ``outcome`` is allowed, denied or "" (no answer: the packet went on); ``reason`` is a key of
    `calico_debug.model.explanation.REASONS`; ``rule`` is the kernel rule that settled it, ``profile`` the profile;
    ``position`` the index of the first event that belongs to it.
    """

    family: str
    table: str
    chain: str
    role: ChainRole
    hook: str
    hypothetical: bool
    position: int
    tiers: list[TierVisit] = field(default_factory=list)
    outcome: str = ""
    reason: str = ""
    rule: Rule | None = None
    profile: str = ""
    rejected: bool = False

    @property
    def tier(self) -> TierVisit | None:
        """The tier the packet is in, or ended in."""
        return self.tiers[-1] if self.tiers else None


def endpoint_visits(events: Iterable[Event]) -> list[EndpointVisit]:
    """The endpoints' chains that the events of one pass went through, in order."""
    reader = _Reader()
    for position, event in enumerate(events):
        if isinstance(event, Matched):
            reader.read(event, position)
    return reader.visits


class _Reader:
    """Replays matched rules."""

    def __init__(self) -> None:
        self.visits: list[EndpointVisit] = []
        self._visit: EndpointVisit | None = None
        self._policy: PolicyVisit | None = None
        self._marked: Rule | None = None
        self._pass_mark = 0

    def read(self, event: Matched, position: int) -> None:
        role = chain_role(event.rule.chain)
        if role is None:
            return
        if role.kind in ENDPOINT_CHAINS:
            self._in_endpoint(role, event, position)
        elif self._visit is None:
            return
        elif role.kind is ChainKind.POLICY:
            self._in_policy(event)
        elif role.kind is ChainKind.POLICY_GROUP:
            self._jump(event)
        elif role.kind is ChainKind.PROFILE:
            self._visit.rule = event.rule
        elif role.kind is ChainKind.FAILSAFE:
            self._in_failsafe(event)

    # --------------------------------------------------------------------------------------------- endpoint chains

    def _in_endpoint(self, role: ChainRole, event: Matched, position: int) -> None:
        rule = event.rule
        visit = self._visit
        if visit is None or (visit.chain, visit.table, visit.hook) != (rule.chain, rule.table, event.hook):
            visit = EndpointVisit(rule.family, rule.table, rule.chain, role, event.hook, event.hypothetical, position)
            self.visits.append(visit)
            self._visit, self._policy, self._marked, self._pass_mark = visit, None, None, 0
        said = parse_comment(rule.comment)
        handler = _HANDLERS.get(said.kind)
        if handler is not None and handler(self, visit, said, event):
            return
        self._plain(visit, event)

    def _plain(self, visit: EndpointVisit, event: Matched) -> None:
        """A rule that its comment does not explain: jumps, and the conntrack shortcuts at the top."""
        verdict = event.verdict
        if verdict is None:
            return
        if isinstance(verdict, Reject) or verdict.kind == "drop":
            _settle(visit, DENIED, "ct-invalid" if _asks_conntrack(event.rule) else "rule", event)
        elif verdict.kind in ("jump", "goto"):
            self._jump(event)
        elif _asks_conntrack(event.rule) and verdict.kind in ("accept", "return"):
            _settle(visit, ALLOWED, "established", event)

    def _jump(self, event: Matched) -> None:
        verdict = event.verdict
        visit = self._visit
        if visit is None or verdict is None or isinstance(verdict, Reject) or not verdict.chain:
            return
        target = chain_role(verdict.chain)
        if target is None:
            return
        if target.kind is ChainKind.PROFILE:
            self._leave_tier(visit)
            visit.profile = target.subject
        elif target.kind in (ChainKind.POLICY, ChainKind.POLICY_GROUP):
            self._pass_mark = _cleared_mark(event.rule) or self._pass_mark
            if visit.tier is None:
                visit.tiers.append(TierVisit(SINGLE_TIER, first=event.rule))
            if target.kind is ChainKind.POLICY and visit.tier is not None:
                self._policy = PolicyVisit(visit.family, visit.table, verdict.chain)
                self._marked = None
                visit.tier.policies.append(self._policy)

    def _leave_tier(self, visit: EndpointVisit) -> None:
        """The packet goes on behind a tier: a policy passed it, or the tier's default action did."""
        tier = visit.tier
        if tier is not None and not tier.outcome:
            tier.outcome = PASSED

    # ------------------------------------------------------------------------------------------------ policy chains

    def _in_policy(self, event: Matched) -> None:
        policy, visit = self._policy, self._visit
        if policy is None or visit is None or visit.tier is None:
            return
        verdict = event.verdict
        if isinstance(verdict, Reject) or (verdict is not None and verdict.kind == "drop"):
            # v3.30 and later set a mark and drop on it: the rule that set the mark is the policy's.
            policy.outcome = DENIED
            policy.rule = self._marked if self._marked is not None and _tests_only_marks(event.rule) else event.rule
            visit.tier.outcome, visit.tier.by, visit.tier.rule = DENIED, policy, event.rule
            _settle(visit, DENIED, "rule", event)
            return
        new = _new_bits(event)
        if not new:
            return
        self._marked = event.rule
        if new & self._pass_mark:
            policy.outcome, policy.rule = PASSED, event.rule
            visit.tier.by = policy
        else:
            policy.rule = event.rule  # allowed or denied: what follows tells

    def _in_failsafe(self, event: Matched) -> None:
        verdict = event.verdict
        if self._visit is not None and isinstance(verdict, Verdict) and verdict.kind == "accept":
            _settle(self._visit, ALLOWED, "failsafe", event)

    # ----------------------------------------------------------------------------------------- what comments stand for

    def tier_start(self, visit: EndpointVisit, said: RuleComment, event: Matched) -> bool:
        self._leave_tier(visit)
        visit.tiers.append(TierVisit(said.name, first=event.rule))
        return True

    def tier_end(self, visit: EndpointVisit, said: RuleComment, event: Matched) -> bool:
        if not _denies(event):
            return True
        tier = visit.tier
        if tier is None:
            tier = TierVisit(said.name or SINGLE_TIER, first=event.rule)
            visit.tiers.append(tier)
        tier.outcome, tier.rule = DENIED, event.rule
        _settle(visit, DENIED, "end-of-tier", event)
        return True

    def policy_accepted(self, visit: EndpointVisit, _said: RuleComment, event: Matched) -> bool:
        tier, policy = visit.tier, self._policy
        if tier is not None and policy is not None:
            policy.outcome = ALLOWED
            policy.rule = self._marked or policy.rule
            tier.outcome, tier.by, tier.rule = ALLOWED, policy, event.rule
        _settle(visit, ALLOWED, "rule", event)
        return True

    def profile_accepted(self, visit: EndpointVisit, _said: RuleComment, event: Matched) -> bool:
        self._leave_tier(visit)
        _settle(visit, ALLOWED, "profile", event, visit.rule)
        return True

    def no_profile(self, visit: EndpointVisit, _said: RuleComment, event: Matched) -> bool:
        self._leave_tier(visit)
        if _denies(event):
            _settle(visit, DENIED, "no-profile", event)
        return True

    def disabled(self, visit: EndpointVisit, _said: RuleComment, event: Matched) -> bool:
        _settle(visit, DENIED, "endpoint-disabled", event)
        return True

    def encapsulated(self, visit: EndpointVisit, _said: RuleComment, event: Matched) -> bool:
        _settle(visit, DENIED, "encapsulation", event)
        return True

    def limited(self, visit: EndpointVisit, _said: RuleComment, event: Matched) -> bool:
        if _denies(event):
            _settle(visit, DENIED, "rate-limit", event)
        return True

    def forward_default(self, visit: EndpointVisit, _said: RuleComment, event: Matched) -> bool:
        _settle(visit, ALLOWED, "no-policy", event)
        return True


_HANDLERS = {
    CommentKind.TIER_START: _Reader.tier_start,
    CommentKind.TIER_END: _Reader.tier_end,
    CommentKind.POLICY_ACCEPTED: _Reader.policy_accepted,
    CommentKind.PROFILE_ACCEPTED: _Reader.profile_accepted,
    CommentKind.NO_PROFILE: _Reader.no_profile,
    CommentKind.ADMIN_DISABLED: _Reader.disabled,
    CommentKind.ENCAPSULATED_BY_WORKLOAD: _Reader.encapsulated,
    CommentKind.FORWARD_DEFAULT: _Reader.forward_default,
    CommentKind.PACKET_RATE: _Reader.limited,
    CommentKind.CONNECTION_LIMIT: _Reader.limited,
}


def _settle(visit: EndpointVisit, outcome: str, reason: str, event: Matched, rule: Rule | None = None) -> None:
    """The first answer counts: what matches behind a denial belongs to what would have happened."""
    if not visit.outcome:
        visit.outcome, visit.reason, visit.rule = outcome, reason, rule or event.rule
        visit.rejected = isinstance(event.verdict, Reject)


def _denies(event: Matched) -> bool:
    return isinstance(event.verdict, Reject) or (event.verdict is not None and event.verdict.kind == "drop")


def _new_bits(event: Matched) -> int:
    """Bits of the mark that the rule set."""
    before, after = event.mark_before, event.mark_after
    return after & ~before if isinstance(before, int) and isinstance(after, int) else 0


def _asks_conntrack(rule: Rule) -> bool:
    return any(
        isinstance(s, Match) and isinstance(s.left, Bitwise) and s.left.operand == Ct("state") for s in rule.statements
    )


def mark_test(statement: object) -> tuple[int, int] | None:
    """(mask, wanted) when the statement compares bits of the packet's mark, else None."""
    if isinstance(statement, Match) and statement.operator == "==" and isinstance(statement.right, int):
        left = statement.left
        if isinstance(left, Bitwise) and left.operand == Meta("mark") and left.xor == 0:
            return left.mask, statement.right
    return None


def _cleared_mark(rule: Rule) -> int:
    """The bits that a jump wants clear: Felix asks policies only while the pass bit is."""
    tests = (mark_test(statement) for statement in rule.statements)
    return next((mask for test in tests if test is not None for mask, wanted in [test] if wanted == 0), 0)


def _tests_only_marks(rule: Rule) -> bool:
    return all(mark_test(s) is not None for s in rule.statements if isinstance(s, Match))
