"""How often rules were met, as text, JSON and YAML."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from calico_debug.cli.render import json, yaml
from calico_debug.cli.render.terminal import safe, table
from calico_debug.hits.model import AS_SETS_ARE, EMPTY, UNREACHABLE, HitReport, RuleHits
from calico_debug.hits.report import document

HEADINGS = ("TIER", "POLICY", "DIRECTION", "RULE", "ACTION", "COUNT", "UNIT", "GROWTH", "RESETS", "STANDING")
SHOWN = 3
"""Shadowing rules that text names; JSON has all."""


def text(report: HitReport) -> str:
    """A table of the rules, then why some of them cannot be met, then what the counts are of."""
    return "".join(f"{line}\n" for line in _lines(report))


def _lines(report: HitReport) -> Iterator[str]:
    if report.rules:
        yield from table([HEADINGS, *(_row(one) for one in report.rules)])
    else:
        yield "no rule"
    shadowed = [one for one in report.rules if one.proof is not None and one.key.policy]
    if shadowed:
        yield ""
        for one in shadowed:
            yield safe(_why(one))
    yield ""
    yield safe(f"counts since {report.since}")
    for note in report.notes:
        yield safe(f"note: {note}")


def _row(one: RuleHits) -> tuple[str, ...]:
    key = one.key
    owner = key.owner if key.policy else ""
    count = "" if one.count is None else str(one.count)
    grown = "" if one.past is None else f"{one.past:.0f}" if one.past >= 1 or not one.past else "1"
    resets = "" if one.past is None else str(one.resets)
    return (key.tier, owner, key.direction, key.rule, key.action, count, one.unit, grown, resets, one.standing)


def _why(one: RuleHits) -> str:
    proof = one.proof
    assert proof is not None
    held = f" ({proof.holds})" if proof.holds == AS_SETS_ARE else ""
    if proof.standing == EMPTY:
        return f"{one.key}, {one.key.direction}: {EMPTY}: {one.text or 'its conditions exclude each other'}{held}"
    more = f" and {len(proof.by) - SHOWN} more" if len(proof.by) > SHOWN else ""
    return f"{one.key}, {one.key.direction}: {UNREACHABLE}: shadowed by {'; '.join(proof.by[:SHOWN])}{more}{held}"


RENDERERS: Mapping[str, Callable[[HitReport], str]] = {
    "text": text,
    "json": lambda report: json.dump(document(report)),
    "yaml": lambda report: yaml.dump(document(report)),
}
"""By ``-o``."""
