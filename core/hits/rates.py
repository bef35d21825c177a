"""What counters did between two readings: rules and drops with their rates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from calico_debug.hits.model import RuleKey
from calico_debug.metrics.families import DROPS, RULE_EVALUATIONS, RULE_PACKETS
from calico_debug.metrics.rules import DropLabels

RULES: Final = frozenset({RULE_PACKETS.name, RULE_EVALUATIONS.name})
RATE, TOTAL, NAME = "rate", "total", "name"
ORDERS: Final = (RATE, TOTAL, NAME)
"""How rows may be sorted."""

Key = tuple[str, tuple[str, ...]]
"""Name of the metric and values of its labels, in the order of its family."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters as they were. ``at`` is in seconds of a clock that does not jump."""

    at: float
    values: Mapping[Key, float]


@dataclass(frozen=True, slots=True)
class Rate:
    """A counter's way. ``denied`` where what it counts was dropped or rejected; ``per_second`` None at the first."""

    name: str
    denied: bool
    total: float
    grown: float = 0.0
    per_second: float | None = None
    key: RuleKey | None = None


def reading(at: float, samples: Iterable[tuple[str, Mapping[str, str], float]]) -> Reading:
    """The counters of rules and drops among samples of metrics."""
    values: dict[Key, float] = {}
    for name, labels, value in samples:
        if name in RULES:
            values[name, tuple(labels.get(label, "") for label in RuleKey._fields)] = value
        elif name == DROPS.name:
            values[name, tuple(labels.get(label, "") for label in DropLabels._fields)] = value
    return Reading(at, values)


def rates(before: Reading | None, after: Reading) -> tuple[list[Rate], list[Rate]]:
    """Rules, and drops by reason. A counter that went back has started anew."""
    rules: list[Rate] = []
    drops: list[Rate] = []
    for key, total in after.values.items():
        grown, speed = 0.0, None
        if before is not None and after.at > before.at:
            known = before.values.get(key, total)
            grown = total - known if known <= total else total
            speed = grown / (after.at - before.at)
        if key[0] in RULES:
            rule = RuleKey(*key[1])
            name = f"{rule} {rule.direction}".strip()
            rules.append(Rate(name, rule.action == "Deny", total, grown, speed, rule))
        else:
            drop = DropLabels(*key[1])
            words = [drop.reason, drop.direction, drop.interface_kind]
            drops.append(Rate(" ".join(filter(None, words)), True, total, grown, speed))
    return rules, drops


def ordered(found: Iterable[Rate], order: str) -> list[Rate]:
    """Sorted by one of `ORDERS`: what changes most, or counted most, first."""
    if order == NAME:
        return sorted(found, key=lambda one: one.name)
    if order == TOTAL:
        return sorted(found, key=lambda one: (-one.total, one.name))
    return sorted(found, key=lambda one: (-(one.per_second or 0.0), -one.total, one.name))


def document(one: Rate) -> Mapping[str, Any]:
    """For machines (docs/cli.md)."""
    key = one.key
    named = {} if key is None else {field: value for field, value in key._asdict().items() if value}
    return {
        **(named if key is not None else {"reason": one.name}),
        "total": one.total,
        **({"grown": one.grown, "perSecond": round(one.per_second, 3)} if one.per_second is not None else {}),
    }
