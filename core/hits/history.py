"""What Prometheus remembers of rules: the questions, in its language, and its answers, which are not trusted.

The metrics are those of docs/metrics.md; the answers' form is that of Prometheus' HTTP interface (instant queries).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from calico_debug.errors import EvidenceError, UsageError
from calico_debug.hits.model import RuleKey
from calico_debug.metrics.families import INFO, RULE_BYTES, RULE_EVALUATIONS, RULE_PACKETS, SERIES_DROPPED

LONGEST: Final = 1024
"""Characters of a label; longer ones are no name of Kubernetes'."""
SERIES: Final = 200_000
"""Most series of an answer."""
POINTS: Final = 500
"""Into how many steps the window is divided to find the oldest sample."""
LEAST_STEP: Final = 15
COUNTED: Final = (RULE_PACKETS, RULE_EVALUATIONS)

_WINDOW: Final = re.compile(r"([1-9]\d{0,8})([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

Ask = Callable[[str], Any]
"""Answers a query with the decoded document. Raises `EvidenceError`."""


@dataclass(frozen=True, slots=True)
class Past:
    """A rule in the window: how much its counters grew, how often they began anew, and where they stood last."""

    growth: float = 0.0
    resets: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True)
class History:
    """Every rule that has a series in the window. ``since`` and ``notes`` are sentences without a full stop."""

    rules: Mapping[RuleKey, Past]
    since: str
    notes: tuple[str, ...] = ()


def window_seconds(text: str) -> int:
    """Seconds of a window such as 30m, 12h, 7d or 4w. Raises `UsageError`."""
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} is no window: give a number with s, m, h, d or w, such as 7d")
    return int(found[1]) * _SECONDS[found[2]]


def read_history(ask: Ask, seconds: int) -> History:
    """What is known of the last ``seconds``. Raises `EvidenceError` for answers that are none."""
    rules: dict[RuleKey, Past] = {}
    labels = ", ".join(RuleKey._fields)
    for family in COUNTED:
        grown = _by_rule(ask(f"sum by ({labels}) (increase({family.name}[{seconds}s]))"))
        last = _by_rule(ask(f"sum by ({labels}) (max_over_time({family.name}[{seconds}s]))"))
        resets = _by_rule(ask(f"sum by ({labels}) (resets({family.name}[{seconds}s]))"))
        for key, value in last.items():
            rules[key] = Past(grown.get(key, 0.0), round(resets.get(key, 0.0)), round(value))
    return History(rules, *_told(ask, seconds, bool(rules)))


def _told(ask: Ask, seconds: int, found: bool) -> tuple[str, tuple[str, ...]]:
    """Since when there are samples, and what they lack."""
    step = max(LEAST_STEP, seconds // POINTS)
    agents = _number(ask(f"count(count by (instance) (last_over_time({INFO.name}[{seconds}s])))"))
    # The window's steps may all be before the first sample of an agent that is new: then there is only the last
    oldest = _number(ask(f"min(min_over_time(timestamp({INFO.name})[{seconds}s:{step}s]) or timestamp({INFO.name}))"))
    refused = _number(ask(f"max(max_over_time({SERIES_DROPPED.name}[{seconds}s]))"))
    notes = []
    if not found:
        notes.append(
            f"Prometheus has no series of {RULE_PACKETS.name}, {RULE_BYTES.name} or {RULE_EVALUATIONS.name} in the "
            "window: see whether it scrapes the agents"
        )
    if refused:
        notes.append(
            f"agents left out up to {round(refused)} series of a metric ({SERIES_DROPPED.name}): rules without a "
            "series count as not met"
        )
    if oldest is None or agents is None:
        return "unknown: Prometheus has no sample of an agent in the window", tuple(notes)
    first = datetime.fromtimestamp(oldest, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    number = "1 agent" if round(agents) == 1 else f"{round(agents)} agents"
    return f"{first} ({seconds} s were asked for; {number})", tuple(notes)


def _by_rule(document: Any) -> dict[RuleKey, float]:
    found: dict[RuleKey, float] = {}
    for labels, value in _vector(document):
        key = RuleKey(*(labels.get(name, "") for name in RuleKey._fields))
        found[key] = found.get(key, 0.0) + value
    return found


def _number(document: Any) -> float | None:
    return next((value for _, value in _vector(document)), None)


def _vector(document: Any) -> Iterator[tuple[Mapping[str, str], float]]:
    """The samples of an instant vector: labels and value."""
    if not isinstance(document, dict) or document.get("status") != "success":
        said = document.get("error") if isinstance(document, dict) else None
        raise EvidenceError(
            f"Prometheus did not answer the query{f': {str(said)[:LONGEST]}' if said else ''}; is it a Prometheus?"
        )
    data = document.get("data")
    result = data.get("result") if isinstance(data, dict) and data.get("resultType") == "vector" else None
    if not isinstance(result, list) or len(result) > SERIES:
        raise EvidenceError("Prometheus answered with something that is no instant vector, or far too long")
    for one in result:
        labels, pair = (one.get("metric"), one.get("value")) if isinstance(one, dict) else (None, None)
        if not isinstance(labels, dict) or not isinstance(pair, list) or len(pair) != 2:
            raise EvidenceError("Prometheus answered with a sample without labels or value")
        if not all(isinstance(text, str) and len(text) <= LONGEST for item in labels.items() for text in item):
            raise EvidenceError("Prometheus answered with labels that are no names")
        try:
            value = float(pair[1])
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value) or value < 0:
            raise EvidenceError(f"Prometheus answered with a count that is none: {str(pair[1])[:LONGEST]!r}")
        yield labels, value
