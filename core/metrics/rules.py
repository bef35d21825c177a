"""What the counters of Calico's chains count for: which rule of which policy, or why packets were dropped.

Everything follows from the chains themselves (names, comments, marks) and, where there are any, the cluster's objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from calico_debug.explain.attribution import FAMILY_NUMBERS, PROFILE, api_indices
from calico_debug.explain.evaluation import ENDPOINT_CHAINS
from calico_debug.explain.rulegroups import DENY, Marks, endpoint_marks, rule_groups
from calico_debug.explain.tier_names import ASKED, SINGLE_TIER, chains_asked, policy_chains, tier_names
from calico_debug.model.cluster import PolicyObject
from calico_debug.model.nft import Bitwise, Ct, Fib, Match, Reject, Rule, Verdict
from calico_debug.policy.chains import ChainKind, ChainRole, CommentKind, chain_role, parse_comment
from calico_debug.policy.identity import PolicyIdentity, PolicyIndex, identify

Place = tuple[str, str, str]
"""Family, table and chain."""

END_OF_TIER, NO_PROFILE = "end-of-tier", "no-profile"
ANY, WORKLOAD, HOST = "any", "workload", "host"

INTERFACE_KINDS: Mapping[ChainKind, str] = {
    ChainKind.WORKLOAD: WORKLOAD,
    ChainKind.WORKLOAD_DISPATCH: WORKLOAD,
    ChainKind.WORKLOAD_TO_HOST: WORKLOAD,
    ChainKind.HOST: HOST,
    ChainKind.HOST_FORWARD: HOST,
    ChainKind.HOST_DISPATCH: HOST,
    ChainKind.HOST_FORWARD_DISPATCH: HOST,
}
"""Whose interfaces a chain is for; others serve any."""

CHAIN_REASONS: Mapping[ChainKind, str] = {
    ChainKind.POLICY: "rule",
    ChainKind.PROFILE: "rule",
    ChainKind.CIDR_BLOCK: "service-loop",
}
COMMENT_REASONS: Mapping[CommentKind, str] = {
    CommentKind.TIER_END: END_OF_TIER,
    CommentKind.NO_PROFILE: NO_PROFILE,
    CommentKind.ADMIN_DISABLED: "endpoint-disabled",
    CommentKind.ENCAPSULATED_BY_WORKLOAD: "encapsulation",
    CommentKind.TUNNEL_REFUSED: "encapsulation",
    CommentKind.PACKET_RATE: "rate-limit",
    CommentKind.CONNECTION_LIMIT: "rate-limit",
    CommentKind.UNKNOWN_INTERFACE: "unknown-interface",
    CommentKind.HOST_ACTION: "host-default",
}
"""Why a rule that drops does so, by its chain or else its comment: keys of `calico_debug.model.explanation.REASONS`."""
OTHER = "other"


class DropLabels(NamedTuple):
    """Values of the labels of `families.DROPS`; ``interface`` is the pod's, "" where rules are shared."""

    dataplane: str
    direction: str
    reason: str
    interface_kind: str
    interface: str


class Meaning(NamedTuple):
    """What a rule's counter counts: values of the labels of `families.RULE_PACKETS`, and of a drop. None: not that."""

    rule: tuple[str, ...] | None
    drop: DropLabels | None


class _Asked(NamedTuple):
    """What the endpoints' chains of a table say of the policies they ask: verdict bits, and the tier of each chain."""

    marks: Marks
    tiers: Mapping[str, str]


class RuleBook:
    """Meanings of chains. Those of chains that did not change are kept."""

    def __init__(self, index: PolicyIndex) -> None:
        """``index`` has the cluster's policies; it may be empty."""
        self._index = index
        self._kept: dict[str, dict[Place, tuple[Sequence[Rule], object, tuple[Meaning, ...]]]] = {}

    def meanings(self, dataplane: str, chains: Mapping[Place, Sequence[Rule]]) -> dict[Place, tuple[Meaning, ...]]:
        """For every chain one meaning a rule. A chain whose rules are the same object as before is not read again."""
        found: dict[Place, tuple[Meaning, ...]] = {}
        before, after = self._kept.get(dataplane, {}), {}
        asked = {table: self._asked(table, chains) for table in dict.fromkeys(place[:2] for place in chains)}
        for place, rules in chains.items():
            about = asked[place[:2]]
            context = (dataplane, about.marks, about.tiers.get(place[2], ""))
            kept = before.get(place)
            if kept is None or kept[0] is not rules or kept[1] != context:
                kept = (rules, context, tuple(self._chain(place, chains, dataplane, about)))
            after[place] = kept
            found[place] = kept[2]
        self._kept[dataplane] = after
        return found

    # ----------------------------------------------------------------------------------------------------- internals

    @staticmethod
    def _asked(table: tuple[str, str], chains: Mapping[Place, Sequence[Rule]]) -> _Asked:
        accept = passed = 0
        tiers: dict[str, str] = {}
        groups: dict[str, str] = {}
        for place, rules in chains.items():
            role = chain_role(place[2]) if place[:2] == table else None
            if role is None or role.kind not in ENDPOINT_CHAINS:
                continue
            marks = endpoint_marks(rules)
            accept, passed = accept | marks.accept, passed | marks.passed
            said = tier_names(rules, lambda _: ())
            for rule in rules:
                for target in chains_asked(rule, ASKED):
                    kind = chain_role(target)
                    known = groups if kind is not None and kind.kind is ChainKind.POLICY_GROUP else tiers
                    known.setdefault(target, said.get(id(rule), SINGLE_TIER))
        for group, tier in groups.items():
            for rule in chains.get((*table, group), ()):
                for target in chains_asked(rule):
                    tiers.setdefault(target, tier)
        return _Asked(Marks(accept, passed), tiers)

    def _chain(
        self, place: Place, chains: Mapping[Place, Sequence[Rule]], dataplane: str, asked: _Asked
    ) -> Iterator[Meaning]:
        rules, role = chains[place], chain_role(place[2])
        if role is None:
            yield from (Meaning(None, None) for _ in rules)
            return
        labels = dict[int, tuple[str, ...]]()
        if role.kind is ChainKind.POLICY:
            labels = self._policy(place, rules, role, dataplane, asked)
        elif role.kind is ChainKind.PROFILE:
            labels = _profile(rules, role, dataplane, asked.marks)
        elif role.kind in ENDPOINT_CHAINS:
            labels = _ends(rules, role, dataplane, tier_names(rules, partial(self._tiers, place[:2], chains)))
        for rule in rules:
            yield Meaning(labels.get(id(rule)), _drop(rule, role, dataplane))

    def _policy(
        self, place: Place, rules: Sequence[Rule], role: ChainRole, dataplane: str, asked: _Asked
    ) -> dict[int, tuple[str, ...]]:
        """Labels of the rules that match, by the rule's id()."""
        identity, found = self._identity(role, rules, place[2])
        groups = rule_groups(rules, asked.marks)
        indices = api_indices(found, role.direction, FAMILY_NUMBERS.get(place[0], 4), groups)
        tier = (found.tier if found else "") or asked.tiers.get(place[2], "") or (identity.tier if identity else "")
        names = (identity.kind, identity.namespace, identity.name) if identity else ("", "", role.subject)
        family = "/ip6" if place[0] == "ip6" else ""
        return {
            id(group.main): (
                dataplane,
                role.direction,
                tier,
                *names,
                str(index) if index is not None else f"#{number}{family}",
                group.action,
            )
            for number, (group, index) in enumerate(zip(groups, indices, strict=True))
        }

    def _identity(
        self, role: ChainRole, rules: Sequence[Rule], chain: str
    ) -> tuple[PolicyIdentity | None, PolicyObject | None]:
        identity = identify(role, parse_comment(rules[0].comment) if rules else None, self._index, chain)
        return identity, self._index.find(identity) if identity is not None else None

    def _tiers(self, table: tuple[str, str], chains: Mapping[Place, Sequence[Rule]], chain: str) -> Iterator[str]:
        """The tiers of the policies behind a chain of a policy or a group."""
        for member in policy_chains(chain, lambda name: chains.get((*table, name), ())):
            role = chain_role(member)
            assert role is not None
            identity, found = self._identity(role, chains.get((*table, member), ()), member)
            yield (found.tier if found else "") or (identity.tier if identity else "")


def _profile(rules: Sequence[Rule], role: ChainRole, dataplane: str, marks: Marks) -> dict[int, tuple[str, ...]]:
    said = parse_comment(rules[0].comment) if rules else None
    name = said.name if said is not None and said.kind is CommentKind.PROFILE else role.subject
    return {
        id(group.main): (dataplane, role.direction, "", PROFILE, "", name, str(number), group.action)
        for number, group in enumerate(rule_groups(rules, marks))
    }


def _ends(
    rules: Sequence[Rule], role: ChainRole, dataplane: str, tiers: Mapping[int, str]
) -> dict[int, tuple[str, ...]]:
    """Of an endpoint's chain: the ends of its tiers, and what no profile allows."""
    found: dict[int, tuple[str, ...]] = {}
    for rule in rules:
        said = parse_comment(rule.comment)
        if said.kind is CommentKind.TIER_END and _denies(rule):
            name = tiers.get(id(rule), SINGLE_TIER)
            found[id(rule)] = (dataplane, role.direction, name, "", "", "", END_OF_TIER, DENY)
        elif said.kind is CommentKind.NO_PROFILE and _denies(rule):
            found[id(rule)] = (dataplane, role.direction, "", "", "", "", NO_PROFILE, DENY)
    return found


def _drop(rule: Rule, role: ChainRole, dataplane: str) -> DropLabels | None:
    if not _denies(rule) or role.kind is ChainKind.ARP:
        return None
    reason = CHAIN_REASONS.get(role.kind) or COMMENT_REASONS.get(parse_comment(rule.comment).kind) or _by_match(rule)
    interface = role.subject if role.kind is ChainKind.WORKLOAD else ""
    return DropLabels(dataplane, role.direction, reason, INTERFACE_KINDS.get(role.kind, ANY), interface)


def _by_match(rule: Rule) -> str:
    """Why a rule without a telling comment drops: what it looks at."""
    lefts = [statement.left for statement in rule.statements if isinstance(statement, Match)]
    if any(isinstance(left, Fib) for left in lefts):
        return "rpf"
    if any(isinstance(left, Bitwise) and left.operand == Ct("state") for left in lefts):
        return "ct-invalid"
    return OTHER


def _denies(rule: Rule) -> bool:
    return any(isinstance(s, Reject) or (isinstance(s, Verdict) and s.kind == "drop") for s in rule.statements)
