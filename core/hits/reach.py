"""Whether any packet can get to a rule of the kernel, by following all that would match it through an endpoint's chain.

What arrives at a rule is never underestimated: that nothing arrives is proven, that something does is not. What a rule
means that is not understood, it may match and may not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from calico_debug.explain.evaluation import mark_test
from calico_debug.hits.boxes import ANY, Box, apart, rest, restricted
from calico_debug.hits.conditions import Reader, mark_bit, try_conditions
from calico_debug.model.nft import (
    Bitwise,
    ConnectionLimit,
    Counter,
    Harmless,
    Limit,
    Log,
    Lookup,
    Match,
    Meta,
    Notrack,
    Quota,
    Recent,
    Reject,
    SetCt,
    SetMeta,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.model.nft import Rule, Ruleset

Place = tuple[str, str, str]
"""Family, table and chain."""

STEPS: Final = 200_000
"""Rules times boxes that a question may take; beyond that it is not answered."""
ALL_STEPS: Final = 2_000_000
"""The same for all questions about a node."""
DEPTH: Final = 16
"""Chains inside chains (NFT_JUMP_STACK_SIZE of Linux)."""

_TESTS: Final = (Match, Lookup, Limit, Quota, ConnectionLimit, Recent)
_KNOWN: Final = (*_TESTS, Counter, Log, Harmless, Notrack, Reject, SetCt, SetMeta, Verdict)


class Unclear(Exception):  # noqa: N818 - ends a question, is never shown
    """The chains do something that this does not follow."""


@dataclass(frozen=True, slots=True)
class Answer:
    """``reached``: something may match the rule. ``arrived``: something may arrive and does not match.

    ``takers`` are the rules that kept the rest away, in the order in which they did; one alone where it is enough.
    """

    reached: bool
    arrived: bool = False
    takers: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class _Group:
    """Packets on their way, and the rule that set each bit of their mark. ``arrived``: they met the target in vain."""

    box: Box
    setters: Mapping[int, Rule] = field(default_factory=dict)
    arrived: bool = False


class Reached(Exception):  # noqa: N818 - ends a walk early
    """Something may match."""


class Reach:
    """Answers for the chains of one node."""

    def __init__(self, ruleset: Ruleset, *, members: bool, steps: int = ALL_STEPS) -> None:
        """With ``members`` answers hold for what sets hold now, without for whatever they may hold. All questions
        together may take so many ``steps``, rules times boxes.
        """
        self._ruleset = ruleset
        self._steps = steps
        self.reader = Reader(ruleset, members=members)

    def ask(self, chain: Place, target: Rule) -> Answer:
        """Whether a packet that enters ``chain`` can match ``target``. Raises `Unclear` and `EvidenceError`."""
        if not any(one is target for one in self._ruleset.rules(target.family, target.table, target.chain) or ()):
            raise Unclear
        own = restricted(ANY, try_conditions(self.reader, target))
        if own is None:
            return Answer(False, arrived=True)
        # What the mark is when the packet enters is open; bits that the target tests are set on the way
        start = {one: values for one, values in own.items() if not isinstance(one.what, tuple) or one.what[0] != "mark"}
        walk = _Walk(self._ruleset, self.reader, target, min(STEPS, self._steps))
        try:
            return walk.answer(chain, _Group(start))
        finally:
            self._steps -= walk.steps


class _Walk:
    """One question."""

    def __init__(self, ruleset: Ruleset, reader: Reader, target: Rule, most: int) -> None:
        self._ruleset, self._reader, self._target = ruleset, reader, target
        self._takers: dict[int, Rule] = {}
        self._arrived = False
        self.steps, self._most = 0, most
        self._leads: dict[str, bool] = {}

    def answer(self, chain: Place, start: _Group) -> Answer:
        try:
            self._chain(chain, [start], 0)
        except Reached:
            return Answer(True)
        takers = tuple(self._takers.values())
        enough = next((one for one in takers if self._takes_all(one, start.box)), None)
        return Answer(False, self._arrived, takers if enough is None else (enough,))

    def _takes_all(self, taker: Rule, box: Box) -> bool:
        """Whether a rule by itself matches all packets of the box."""
        conditions = try_conditions(self._reader, taker)
        if any(isinstance(one.what, tuple) and one.what[0] == "mark" for one, _ in conditions.wanted):
            return False
        return next(rest(box, conditions), None) is None

    def _chain(self, chain: Place, groups: list[_Group], depth: int) -> list[_Group]:
        """What comes back from a chain."""
        rules = self._ruleset.rules(*chain)
        if rules is None or depth > DEPTH:
            raise Unclear
        returned: list[_Group] = []
        for rule in rules:
            if not groups:
                break
            groups = self._rule(rule, groups, returned, depth)
        return [*returned, *groups]

    def _rule(self, rule: Rule, groups: list[_Group], returned: list[_Group], depth: int) -> list[_Group]:
        verdict = _ending(rule)
        conditions = try_conditions(self._reader, rule)
        self.steps += len(groups)
        if self.steps > self._most:
            raise Unclear
        matched: list[_Group] = []
        left: list[_Group] = []
        for group in groups:
            met = None if apart(group.box, conditions) else restricted(group.box, conditions)
            if met is None:
                left.append(group)
                self._kept_away(rule, verdict, group)
                continue
            if rule is self._target:
                raise Reached
            changed = replace(group, box=met)
            if isinstance(verdict, Verdict) and verdict.kind == "jump":
                self._kept_away(rule, verdict, group)
            matched.append(_marked(changed, rule))
            left += [replace(group, box=one) for one in rest(group.box, conditions)]
        if rule is self._target:
            self._arrived = True
            return [replace(group, arrived=True) for group in groups]
        if not matched:
            return groups
        if verdict is None or verdict.kind == "continue":
            # A rule that changes nothing leaves the packets as they were
            return [*matched, *left] if any(isinstance(one, SetMeta) for one in rule.statements) else groups
        if verdict.kind == "jump":
            return [*self._chain((rule.family, rule.table, verdict.chain), matched, depth + 1), *left]
        if verdict.kind == "goto":
            returned += self._chain((rule.family, rule.table, verdict.chain), matched, depth + 1)
        elif verdict.kind == "return":
            returned += matched
            if depth == 0:
                self._take(rule, matched)
        else:
            self._take(rule, matched)
        return left

    def _take(self, rule: Rule, groups: Sequence[_Group]) -> None:
        for group in (one for one in groups if not one.arrived):
            for taker in _setters(rule, group) or [rule]:
                # A rule that is not understood takes away nothing for certain
                if try_conditions(self._reader, taker).exact:
                    self._takers.setdefault(id(taker), taker)

    def _kept_away(self, rule: Rule, verdict: Verdict | None, group: _Group) -> None:
        """Packets that skip the jump to the target's chain, since a rule before has set their mark."""
        if verdict is None or verdict.kind != "jump" or group.arrived:
            return
        if not self._leads_to_target(rule, verdict.chain):
            return
        for test in map(mark_test, rule.statements):
            for bit, setter in group.setters.items() if test is not None and not test[1] else ():
                if test is not None and test[0] >> bit & 1 and group.box.get(mark_bit(bit)) == ((1, 1),):
                    self._takers.setdefault(id(setter), setter)

    def _leads_to_target(self, rule: Rule, chain: str) -> bool:
        if chain not in self._leads:
            inside = self._ruleset.rules(rule.family, rule.table, chain) or ()
            targets = {one.chain for member in inside for one in member.statements if isinstance(one, Verdict)}
            self._leads[chain] = self._target.chain in (chain, *targets)
        return self._leads[chain]


def _ending(rule: Rule) -> Verdict | None:
    """What ends the rule: of a refusal, a drop. Raises `Unclear` for rules that do more than policy does."""
    ending: Verdict | None = None
    changed = False
    for statement in rule.statements:
        if not isinstance(statement, _KNOWN) or (changed and isinstance(statement, _TESTS)) or ending is not None:
            raise Unclear
        if isinstance(statement, SetMeta):
            changed = True
        elif isinstance(statement, Reject):
            ending = Verdict("drop")
        elif isinstance(statement, Verdict):
            ending = statement
    if ending is not None and ending.kind not in ("accept", "drop", "return", "jump", "goto", "continue"):
        raise Unclear
    return ending


def _setters(rule: Rule, group: _Group) -> list[Rule]:
    """The rules that set the bits which a rule wants set, where it wants nothing else."""
    found = []
    for statement in rule.statements:
        if isinstance(statement, _TESTS):
            test = mark_test(statement)
            if test is None:
                return []
            found += [group.setters[bit] for bit in group.setters if test[1] >> bit & 1]
    return found


def _marked(group: _Group, rule: Rule) -> _Group:
    """The packets with their mark as the rule leaves it."""
    box, setters = dict(group.box), dict(group.setters)
    for statement in rule.statements:
        if not isinstance(statement, SetMeta) or statement.key != "mark":
            continue
        value = statement.value
        kept = value.mask if isinstance(value, Bitwise) and value.operand == Meta("mark") else None
        flipped = value.xor if isinstance(value, Bitwise) else 0
        for bit in range(32):
            one = mark_bit(bit)
            if kept is None:
                box.pop(one, None)
                setters.pop(bit, None)
            elif not kept >> bit & 1:
                box[one] = ((flipped >> bit & 1,) * 2,)
                setters.pop(bit, None)
                if flipped >> bit & 1:
                    setters[bit] = rule
            elif flipped >> bit & 1:
                box.pop(one, None)
                setters.pop(bit, None)
    return replace(group, box=box, setters=setters)
