"""The frames of ``calico-debug top``: lines that fit into a terminal, made of counters, findings and dropped flows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from unicodedata import east_asian_width

from calico_debug.cli.render.terminal import safe
from calico_debug.hits.rates import RATE, Rate, ordered

RULES, DROPS, FINDINGS, FLOWS = "rules", "drops", "findings", "flows"
KEYS = "q quit  p pause  s sort  v view  ↑↓ scroll"
SHORT_KEYS = "q p s v"
DENIED = "!"
"""Stands before what was dropped; colours are not needed to see it."""
_NARROW = 60
"""Columns below which numbers are shortened and columns left out."""


@dataclass(frozen=True, slots=True)
class DroppedFlow:
    """Packets of one flow that the kernel dropped. ``name`` are its ends, ``why`` the kernel's reason."""

    name: str
    why: str
    packets: int


@dataclass(frozen=True, slots=True)
class View:
    """What is known at a moment. ``findings`` are (severity, code, what was seen)."""

    node: str
    at: str
    rules: Sequence[Rate] = ()
    drops: Sequence[Rate] = ()
    findings: Sequence[tuple[str, str, str]] = ()
    flows: Sequence[DroppedFlow] | None = None
    notes: Sequence[str] = field(default=())


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user wants to see. ``top`` is the first row that is shown."""

    shown: str = RULES
    order: str = RATE
    paused: bool = False
    top: int = 0


def shown_parts(view: View) -> tuple[str, ...]:
    """What can be looked at; flows only where packets are watched."""
    return (RULES, DROPS, FINDINGS, *((FLOWS,) if view.flows is not None else ()))


def frame(view: View, wish: Wish, columns: int, lines: int) -> list[str]:
    """At most ``lines`` lines of at most ``columns`` cells, without anything that could steer the terminal."""
    rows = list(_rows(view, wish, columns))
    head = [_title(view, wish, columns), _totals(view), _heading(wish.shown, columns)]
    tail = [*(f"note: {note}" for note in list(view.notes)[:1]), KEYS if columns >= len(KEYS) else SHORT_KEYS]
    room = max(lines - len(head) - len(tail), 0)
    first = min(wish.top, max(len(rows) - room, 0))
    body = rows[first : first + room]
    body += [""] * (room - len(body))
    return [fit(line, columns) for line in [*head, *body, *tail][:lines]]


def text(view: View) -> str:
    """Everything once, for a pipe."""
    blocks = []
    for part in shown_parts(view):
        rows = list(_rows(view, Wish(part), _NARROW))
        blocks.append("\n".join([f"{part.upper()}  {_heading(part, _NARROW)}", *map(safe, rows or ["nothing"])]))
    notes = [safe(f"note: {note}") for note in view.notes]
    return "\n\n".join([safe(f"{view.node} at {view.at}"), *blocks, *notes]) + "\n"


def fit(line: str, columns: int) -> str:
    """The line in that many cells at most. What takes two cells is shown as an escape, so that cells can be counted."""
    plain = "".join(
        one if one.isascii() or east_asian_width(one) not in "WF" else f"\\u{ord(one):04x}" for one in safe(line)
    )
    return plain if len(plain) <= columns else f"{plain[: max(columns - 1, 0)]}…"[:columns]


def _title(view: View, wish: Wish, columns: int) -> str:
    state = "  PAUSED" if wish.paused else ""
    parts = " ".join(f"[{one}]" if one == wish.shown else one for one in shown_parts(view))
    if columns < _NARROW:
        return f"{view.node}{state} [{wish.shown}] by {wish.order}"
    return f"calico-debug top  {view.node}  {view.at}{state}  {parts}  by {wish.order}"


def _totals(view: View) -> str:
    denied = sum(one.per_second or 0.0 for one in view.drops)
    worst = {severity: sum(one[0] == severity for one in view.findings) for severity in ("error", "warning")}
    return f"dropped {_speed(denied)}/s  findings: {worst['error']} errors, {worst['warning']} warnings"


def _heading(part: str, columns: int) -> str:
    if part == FINDINGS:
        return "SEVERITY CODE SEEN"
    if part == FLOWS:
        return f"{'PACKETS':>9} FLOW  REASON"
    return f"  {'RATE/S':>8} {'TOTAL':>10}  WHAT" if columns >= _NARROW else f"  {'RATE/S':>7}  WHAT"


def _rows(view: View, wish: Wish, columns: int) -> Iterator[str]:
    if wish.shown == FINDINGS:
        yield from (f"{severity.upper():8} {code} {seen}" for severity, code, seen in view.findings)
    elif wish.shown == FLOWS:
        for flow in sorted(view.flows or (), key=lambda one: (-one.packets, one.name)):
            yield f"{flow.packets:>9} {flow.name}  {flow.why}"
    else:
        for one in ordered(view.rules if wish.shown == RULES else view.drops, wish.order):
            mark = DENIED if one.denied else " "
            speed = "" if one.per_second is None else _speed(one.per_second)
            if columns >= _NARROW:
                yield f"{mark} {speed:>8} {one.total:>10.0f}  {one.name}"
            else:
                yield f"{mark} {speed:>7}  {one.name}"


def _speed(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:.0f}"
