"""The rules of one node: what they have counted, and which of them nothing gets to. One form for every dataplane."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from calico_debug.decode.bpf_layout_types import Role
from calico_debug.errors import EvidenceError
from calico_debug.explain.attribution import PROFILE, Attributor
from calico_debug.explain.listing.endpoints import EndpointChain, endpoint_chains
from calico_debug.explain.listing.policy_chains import chain_view
from calico_debug.explain.rulegroups import DENY
from calico_debug.hits.boxes import Values, ranges
from calico_debug.hits.model import (
    ALWAYS,
    AS_SETS_ARE,
    EMPTY,
    UNREACHABLE,
    NodeCount,
    NodeHits,
    Proof,
    RuleKey,
    everywhere,
)
from calico_debug.hits.programs import Named, Proofs
from calico_debug.hits.reach import ALL_STEPS, Reach, Unclear
from calico_debug.metrics.rules import END_OF_TIER
from calico_debug.model.nft import Counter, Verdict
from calico_debug.policy.chains import CommentKind, parse_comment
from calico_debug.state.dataplane import EBPF
from calico_debug.walk.node import NodeWalker

if TYPE_CHECKING:
    from calico_debug.explain.listing.node import NodeListings
    from calico_debug.explain.listing.policy_view import EndpointView, PolicyView, RuleView
    from calico_debug.model.nft import Rule

SINCE_CHAINS: Final = (
    "Felix last wrote each rule: it writes a policy's rules anew when they change, and all at its start"
)
SINCE_BPF: Final = "each rule's first match since Felix made the map of counters; rules keep their count when rewritten"
NO_DEBUG: Final = (
    "rules are counted only while Felix's BPFPolicyDebugEnabled is on (or flow logs are), and no debug file is there"
)


def node_hits(listings: NodeListings, steps: int = ALL_STEPS) -> NodeHits:
    """Every rule of a node's endpoints. Raises `EvidenceError` when its rules cannot be read.

    ``steps`` bounds what is spent on proofs for rules of the kernel (`calico_debug.hits.reach`).
    """
    if listings.dataplane == EBPF:
        return _Programs(listings).read()
    return _Chains(listings, steps).read()


def rule_word(rule: RuleView, place: int, family: int) -> str:
    """The rule as the label of metrics has it."""
    if rule.index is not None:
        return str(rule.index)
    return f"#{place}{'/ip6' if family == 6 else ''}"


def _key(dataplane: str, view: EndpointView, tier: str, policy: PolicyView, rule: RuleView, place: int) -> RuleKey:
    ref = policy.ref
    word = rule_word(rule, place, view.family)
    shown = "" if ref.kind == PROFILE else tier
    return RuleKey(dataplane, view.direction, shown, ref.kind, ref.namespace, ref.name, word, rule.action)


def _policies(view: EndpointView) -> Iterator[tuple[str, PolicyView]]:
    for tier in view.tiers:
        for policy in tier.policies:
            yield tier.name, policy
    for profile in view.profiles:
        yield "", profile


class _Found:
    """Counts by rule, added up, with what was proven in every place where the rule stands."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._counts: dict[RuleKey, NodeCount] = {}
        self._proofs: dict[RuleKey, list[Proof | None]] = {}

    def add(self, key: RuleKey, count: int | None, size: int | None, text: str) -> None:
        """Another counter of the rule."""
        known = self._counts.get(key)
        if known is None:
            self._counts[key] = NodeCount(self._node, key, count, size, text)
            return
        self._counts[key] = replace(known, count=_sum(known.count, count), bytes=_sum(known.bytes, size))

    def prove(self, key: RuleKey, proof: Proof | None) -> None:
        """What is known of another place of the rule: None, if packets may match there."""
        self._proofs.setdefault(key, []).append(proof)

    def may_be_proven(self, key: RuleKey) -> bool:
        """Whether packets have been kept from the rule wherever it was looked for so far."""
        return None not in self._proofs.get(key, ())

    def counts(self) -> tuple[NodeCount, ...]:
        return tuple(replace(one, proof=everywhere(self._proofs.get(key, []))) for key, one in self._counts.items())


def _sum(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left + right


class _Chains:
    """Rules of the kernel."""

    def __init__(self, listings: NodeListings, steps: int) -> None:
        self._listings = listings
        self._walker = NodeWalker(listings.state)
        self._attributor = Attributor(listings.cluster)
        self._ruleset = self._walker.program.ruleset
        self._reach = {
            ALWAYS: Reach(self._ruleset, members=False, steps=steps // 2),
            AS_SETS_ARE: Reach(self._ruleset, members=True, steps=steps // 2),
        }
        self._found = _Found(listings.state.name)
        self._names: dict[int, str] = {}
        self._counted: set[int] = set()
        self._asked: dict[tuple[str, int], Proof | None] = {}
        self._unclear = 0

    def read(self) -> NodeHits:
        endpoints = []
        for chain in endpoint_chains(self._ruleset):
            view = chain_view(self._walker, self._attributor, chain, self._listings.dataplane, None)
            endpoints.append((chain, view, list(self._rules(chain, view))))
            self._ends(view)
        for chain, _, rules in endpoints:
            shape = self._shape(chain)
            for key, main in rules:
                if self._found.may_be_proven(key):
                    self._found.prove(key, self._proof(chain, shape, main))
        notes: list[str] = []
        if self._unclear:
            notes.append(f"whether {self._unclear} rules can be reached is not known: chains do too much or are many")
        return NodeHits(self._listings.state.name, SINCE_CHAINS, self._found.counts(), tuple(notes))

    def _rules(self, chain: EndpointChain, view: EndpointView) -> Iterator[tuple[RuleKey, Rule]]:
        """The rules of an endpoint's policies, each with the kernel's rule that counts."""
        marks = self._attributor.marks(self._walker, chain.family, chain.table, chain.name)
        for tier, policy in _policies(view):
            named = self._attributor.policy(self._walker, chain.family, chain.table, policy.chain, marks)
            for place, (group, rule) in enumerate(zip(named.groups, policy.rules, strict=True)):
                key = _key(self._listings.dataplane, view, tier, policy, rule, place)
                for one in group.rules:
                    self._names.setdefault(id(one), str(key))
                if id(group.main) not in self._counted:
                    self._counted.add(id(group.main))
                    counter = group.main.counter or Counter(None, None)
                    self._found.add(key, counter.packets, counter.bytes, rule.text or rule.programmed)
                yield key, group.main

    def _ends(self, view: EndpointView) -> None:
        """Ends of tiers: every endpoint has its own."""
        for tier in view.tiers:
            end = tier.end
            if end is not None and end.action == DENY:
                key = RuleKey(view.dataplane, view.direction, tier.name, "", "", "", END_OF_TIER, end.action)
                self._found.add(key, end.hits, None, "")

    def _proof(self, chain: EndpointChain, shape: str, main: Rule) -> Proof | None:
        """Of endpoints whose chains are the same one is asked."""
        known = (shape, id(main))
        if known not in self._asked:
            self._asked[known] = self._prove(chain, main)
        return self._asked[known]

    def _prove(self, chain: EndpointChain, main: Rule) -> Proof | None:
        for holds, reach in self._reach.items():
            try:
                answer = reach.ask((chain.family, chain.table, chain.name), main)
            except (Unclear, EvidenceError):
                self._unclear += 1
                return None
            if not answer.reached:
                # The end of a tier takes whatever is left, so who took a part before is of no interest
                ends = [one for one in answer.takers if parse_comment(one.comment).kind is CommentKind.TIER_END]
                by = tuple(dict.fromkeys(map(self._name, ends or answer.takers)))
                return Proof(UNREACHABLE if by else EMPTY, holds, by)
        return None

    def _shape(self, chain: EndpointChain) -> str:
        rules = self._ruleset.rules(chain.family, chain.table, chain.name) or ()
        statements = [[one for one in rule.statements if not isinstance(one, Counter)] for rule in rules]
        return f"{chain.family} {chain.table} {statements!r}"

    def _name(self, rule: Rule) -> str:
        known = self._names.get(id(rule))
        if known is not None:
            return known
        comment = parse_comment(rule.comment)
        if comment.kind is CommentKind.TIER_END:
            return f"end of tier {comment.name}" if comment.name else "end of tier"
        said = comment.text
        verdict = next((one.kind for one in rule.statements if isinstance(one, Verdict)), "")
        place = f"chain {rule.chain}, handle {rule.handle}{f', {verdict}' if verdict else ''}"
        return f"{said} ({place})" if said else place


class _Programs:
    """Rules of policy programs."""

    def __init__(self, listings: NodeListings) -> None:
        self._listings = listings
        self._found = _Found(listings.state.name)
        self._counted: dict[RuleKey, set[str]] = {}

    def read(self) -> NodeHits:
        views = list(self._listings.policies())
        members = {family: self._members(family) for family in (4, 6)}
        judge = Proofs()
        for view in views:
            known = members[view.family]
            proven = {id(rule): (rule, why) for (_, rule, _), why in judge.of(view, known.get)}
            keys = {}
            for tier, policy in _policies(view):
                for place, rule in enumerate(policy.rules):
                    keys[id(rule)] = key = _key(EBPF, view, tier, policy, rule, place)
                    self._add(key, rule)
            for tier, policy in _policies(view):
                for rule in policy.rules if tier else ():
                    if not rule.absent.startswith("it is not of"):
                        self._found.prove(keys[id(rule)], self._proof(proven.get(id(rule)), keys))
            for ended in view.tiers:
                if ended.end is not None and ended.end.hits is not None:
                    end = RuleKey(EBPF, view.direction, ended.name, "", "", "", END_OF_TIER, ended.end.action)
                    self._add(end, ended.end)
        counts = self._found.counts()
        notes = [f"{view.interface}, {view.direction}: {view.problem}" for view in views if view.problem]
        if not self._listings.state.policy_debug_files and not any(one.count for one in counts):
            counts = tuple(replace(one, count=None) for one in counts)
            notes.append(NO_DEBUG)
        return NodeHits(self._listings.state.name, SINCE_BPF, counts, (*notes, *self._saturation()))

    def _add(self, key: RuleKey, rule: RuleView) -> None:
        """Count a rule once, in however many programs it is."""
        counted = self._counted.setdefault(key, set())
        if not counted:
            self._found.add(key, rule.hits, None, rule.text or rule.programmed)
        elif rule.rule_id and rule.rule_id not in counted:
            self._found.add(key, rule.hits, None, "")
        counted.add(rule.rule_id)

    def _proof(
        self,
        found: tuple[RuleView, tuple[str, str, tuple[Named, ...]]] | None,
        keys: Mapping[int, RuleKey],
    ) -> Proof | None:
        if found is None:
            return None
        standing, holds, by = found[1]
        return Proof(standing, holds, tuple(dict.fromkeys(str(keys[id(rule)]) for _, rule, _ in by)))

    def _members(self, family: int) -> Mapping[str, Values]:
        """The addresses of each set by Felix's id for it; sets with ports are left out unless they are empty."""
        state = self._listings.state.bpf
        found: dict[int, list[tuple[int, int]] | None] = {}
        for one in state.entries(Role.IP_SETS, family):
            known = found.setdefault(one.set_id, [])
            if one.protocol or known is None:
                found[one.set_id] = None
            else:
                known.append((int(one.prefix.network_address), int(one.prefix.broadcast_address)))
        names = self._listings.set_ids()
        values = {name: found.get(number, []) for number, name in names.items()}
        return {name: ranges(known) for name, known in values.items() if known is not None}

    def _saturation(self) -> Iterator[str]:
        state = self._listings.state.bpf
        chosen = state.map(Role.RULE_COUNTERS)
        if chosen is None:
            yield "there is no map of rule counters"
            return
        held = sum(batch.count for batch in state.kernel.batches(chosen.info))
        if held >= chosen.info.max_entries:
            yield f"the map of rule counters is full ({held} entries): rules that were met since are not counted"
