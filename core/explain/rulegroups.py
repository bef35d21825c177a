"""Which kernel rules stand for which rule of a policy.

Felix renders one API rule to several kernel rules: marks that collect alternatives, the rule that sets the verdict's
mark, one that logs for flow logs, one that acts on the mark (felix/rules/policy.go, ProtoRuleToIptablesRules). This
module groups a policy chain's rules again, from the marks alone, so that it holds for every release and mark mask.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.explain.evaluation import mark_test
from calico_debug.model.nft import Bitwise, Log, Match, Meta, Reject, SetMeta, Verdict
from calico_debug.policy.chains import ChainKind, CommentKind, chain_role, parse_comment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.model.nft import Rule

ALLOW, DENY, PASS, LOG = "Allow", "Deny", "Pass", "Log"

_FLOW_LOG_PREFIX = re.compile(r"[ADP]P[IE](\d+)\|")
"""NFLOG prefix of a policy rule: action, P, direction, the API rule's index (felix/rules/rule_defs.go)."""


@dataclass(frozen=True, slots=True)
class Marks:
    """The bits that an endpoint's chain uses for "accepted" and "passed to the next tier"; 0 when it shows none."""

    accept: int
    passed: int


@dataclass(frozen=True, slots=True)
class RuleGroup:
    """The kernel rules of one API rule. ``main`` is the one that matches and sets the verdict.

    ``logged_index`` is the API rule's index where flow logs write it down, else None.
    """

    rules: tuple[Rule, ...]
    main: Rule
    action: str
    logged_index: int | None


def endpoint_marks(rules: Sequence[Rule]) -> Marks:
    """Read the bits from an endpoint's chain: what its returns test, and what its jumps to policies want clear."""
    accept = passed = 0
    for rule in rules:
        tests = [test for statement in rule.statements if (test := mark_test(statement)) is not None]
        if not tests:
            continue
        mask, wanted = tests[0]
        if wanted and parse_comment(rule.comment).kind in (CommentKind.POLICY_ACCEPTED, CommentKind.PROFILE_ACCEPTED):
            accept |= mask
        elif not wanted and _jumps_to_policy(rule):
            passed |= mask
    return Marks(accept, passed)


def rule_groups(rules: Sequence[Rule], marks: Marks) -> tuple[RuleGroup, ...]:
    """A policy chain's rules, grouped by the API rule that they stand for, in order."""
    actions = {marks.accept: ALLOW, marks.passed: PASS}
    for rule in rules:
        if _acts_on_mark(rule) and _is_denial(rule):
            actions.update((mask, DENY) for mask, wanted in _tests(rule) if wanted)
    actions.pop(0, None)
    found: list[RuleGroup] = []
    pending: list[Rule] = []
    for rule in rules:
        if _acts_on_mark(rule) and found and not pending:
            last = found[-1]
            index = _logged_index(rule) if last.logged_index is None else last.logged_index
            found[-1] = RuleGroup((*last.rules, rule), last.main, last.action, index)
            continue
        action = _action(rule, actions)
        if action:
            found.append(RuleGroup((*pending, rule), rule, action, _logged_index(rule)))
            pending = []
        elif not any(isinstance(statement, Verdict) for statement in rule.statements):
            pending.append(rule)
    return tuple(found)


def _action(rule: Rule, actions: dict[int, str]) -> str:
    """What API action the rule carries out itself, "" for one that only prepares."""
    bits = _set_bits(rule)
    for mask, action in actions.items():
        if bits & mask:
            return action
    if _is_denial(rule):
        return DENY
    if not bits and any(isinstance(s, Log) and s.group is None for s in rule.statements):
        return LOG
    return ""


def _acts_on_mark(rule: Rule) -> bool:
    """A rule that only tests marks, and then logs for flow logs, returns or denies: the second half of a verdict."""
    tests_nothing_else = all(mark_test(s) is not None for s in rule.statements if isinstance(s, Match))
    if not tests_nothing_else or not _tests(rule) or _set_bits(rule):
        return False
    return any(isinstance(s, Reject | Verdict) or (isinstance(s, Log) and s.group is not None) for s in rule.statements)


def _is_denial(rule: Rule) -> bool:
    return any(isinstance(s, Reject) or (isinstance(s, Verdict) and s.kind == "drop") for s in rule.statements)


def _tests(rule: Rule) -> list[tuple[int, int]]:
    return [test for statement in rule.statements if (test := mark_test(statement)) is not None]


def _set_bits(rule: Rule) -> int:
    bits = 0
    for statement in rule.statements:
        if isinstance(statement, SetMeta) and statement.key == "mark" and isinstance(statement.value, Bitwise):
            value = statement.value
            bits |= value.xor & ~value.mask if value.operand == Meta("mark") else 0
    return bits


def _logged_index(rule: Rule) -> int | None:
    for statement in rule.statements:
        if isinstance(statement, Log) and statement.group is not None:
            match = _FLOW_LOG_PREFIX.match(statement.prefix)
            return int(match[1]) if match else None
    return None


def _jumps_to_policy(rule: Rule) -> bool:
    for statement in rule.statements:
        if isinstance(statement, Verdict) and statement.kind == "jump":
            role = chain_role(statement.chain)
            return role is not None and role.kind in (ChainKind.POLICY, ChainKind.POLICY_GROUP)
    return False
