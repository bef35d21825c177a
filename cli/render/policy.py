"""Endpoints' policy as text, and with everything in the wide form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from calico_debug.cli.render.terminal import safe

if TYPE_CHECKING:
    from calico_debug.explain.listing.policy_view import EndpointView, PolicyView, RuleView, SetUse

WIDTH = 9
"""Columns of a number of hits."""
SHOWN = 12
"""Members of an IP set that are shown."""


def render(views: Iterable[EndpointView], wide: bool) -> Iterator[str]:
    """Lines: one block for each endpoint and direction, and in the end what hits are."""
    units: dict[str, None] = {}
    for position, view in enumerate(views):
        if position:
            yield ""
        yield from (safe(line).rstrip() for line in _view(view, wide))
        if not view.problem:
            units.setdefault(view.unit)
    for unit in units:
        yield ""
        yield f"hits: {unit}"


def _view(view: EndpointView, wide: bool) -> Iterator[str]:
    who = f"{'/'.join(view.pod)}, interface {view.interface}" if view.pod else f"interface {view.interface}"
    kind = "host, " if view.kind == "host" else ""
    yield f"{kind}{who} of {view.node} ({view.dataplane})"
    yield f"{view.direction}, IPv{view.family}{f', {view.stage}' if view.stage else ''}"
    if wide and view.place:
        yield _line(None, 0, view.place)
    for finding in view.findings:
        yield _line(None, 0, f"{finding.severity}: {finding.message}")
    if view.problem:
        yield _line(None, 0, view.problem)
        return
    for tier in view.tiers:
        yield _line(None, 0, f"tier {tier.name}")
        for policy in tier.policies:
            yield from _policy(policy, 1, wide)
        if tier.end is not None:
            yield from _rule(tier.end, 1, f"end of tier: {tier.end.action}", wide)
    for profile in view.profiles:
        yield from _policy(profile, 0, wide)
    if view.end is not None:
        yield from _rule(view.end, 0, f"nothing decided: {view.end.action}", wide)
    if not (view.tiers or view.profiles or view.end):
        yield _line(None, 0, "no policy: everything passes")


def _policy(policy: PolicyView, depth: int, wide: bool) -> Iterator[str]:
    ref = policy.ref
    name = f"{ref.namespace}/{ref.name}" if ref.namespace else ref.name
    unnamed = f"policy of chain {name}, which no object or comment names" if name else "rules that nothing names"
    yield _line(None, depth, f"{ref.kind} {name}" if ref.kind else unnamed)
    if wide and policy.chain:
        group = f", asked through {policy.group}" if policy.group else ""
        yield _line(None, depth + 1, f"chain {policy.chain}{group}")
    if not policy.rules:
        yield _line(None, depth + 1, "no rules")
    for rule in policy.rules:
        number = f"rule {rule.index}" if rule.index is not None else "a rule"
        said = rule.text or f"{rule.action} {rule.programmed}".strip()
        unnamed = f", id {rule.rule_id}" if rule.rule_id and not (rule.text or rule.programmed) and not wide else ""
        yield from _rule(rule, depth + 1, f"{number}  {said}{unnamed}", wide)


def _rule(rule: RuleView, depth: int, words: str, wide: bool) -> Iterator[str]:
    absent = f" (not in the program: {rule.absent})" if rule.absent else ""
    yield _line(rule.hits, depth, f"{words}{absent}")
    if not wide:
        return
    if rule.text and rule.programmed:
        yield _line(None, depth + 2, f"programmed: {rule.programmed}")
    for one in rule.ip_sets:
        yield _line(None, depth + 2, f"{one.side} in {one.name}: {_members(one)}")
    if rule.rule_id:
        yield _line(None, depth + 2, f"rule id {rule.rule_id}")
    if rule.handles:
        yield _line(None, depth + 2, f"handle {', '.join(map(str, rule.handles))}")


def _members(use: SetUse) -> str:
    if use.members is None:
        return "its members are not known"
    more = f" and {len(use.members) - SHOWN} more" if len(use.members) > SHOWN else ""
    return (", ".join(use.members[:SHOWN]) or "empty") + more


def _line(hits: int | None, depth: int, words: str) -> str:
    return f"{'' if hits is None else hits:>{WIDTH}}  {'  ' * depth}{words}"
