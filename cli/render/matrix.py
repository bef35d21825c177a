"""A matrix of flows as text, JSON and YAML; `calico_debug.cli.render.matrix_page` draws it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from calico_debug.cli.render import json, words, yaml
from calico_debug.cli.render.terminal import safe
from calico_debug.explain.document import decision_document
from calico_debug.matrix.model import MIXED
from calico_debug.model.explanation import API_VERSION
from calico_debug.model.flow import protocol_name

if TYPE_CHECKING:
    from calico_debug.matrix.model import Cell, FlowMatrix, Group, Reason, Sheet

KIND: Final = "FlowMatrix"

SYMBOLS: Final[Mapping[str, str]] = {
    "allowed": "+",
    "denied": "x",
    "rejected": "!",
    "undetermined": "?",
    MIXED: "~",
    "": ".",
}
"""What stands for a verdict; "" is a pod with itself."""

_MEANINGS = {"": "the pod itself", MIXED: "differs from pod to pod: allowed/pairs"}
_INDENT = "    "
MOST_MEMBERS: Final = 12
"""Pods of a group that text lists; JSON has all."""


def document(matrix: FlowMatrix) -> dict[str, Any]:
    """The matrix for machines (docs/cli.md)."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "basis": matrix.basis,
        "by": matrix.by,
        "ipVersion": matrix.version,
        "sources": [_group(one) for one in matrix.sources],
        "destinations": [_group(one) for one in matrix.destinations],
        "reasons": [reason_document(one) for one in matrix.reasons],
        "sheets": [_sheet(one) for one in matrix.sheets],
        "notes": list(matrix.notes),
    }


def _group(group: Group) -> dict[str, Any]:
    return {"name": group.name, "namespaces": list(group.namespaces), "pods": list(group.pods)}


def reason_document(reason: Reason) -> dict[str, Any]:
    """A reason for machines."""
    return {
        "verdict": reason.verdict,
        "decisions": [_decision(decision_document(one)) for one in reason.decisions],
        **({"closest": reason.closest} if reason.closest else {}),
    }


def _decision(found: dict[str, Any]) -> dict[str, Any]:
    """Without what is the same for every node, and so left out."""
    return {key: value for key, value in found.items() if value or key == "reason"}


def _sheet(sheet: Sheet) -> dict[str, Any]:
    return {
        "ports": [
            {"protocol": protocol_name(one.protocol), **({"port": one.port} if one.port is not None else {})}
            for one in sheet.asked
        ],
        "rows": [[_cell(cell) for cell in row] for row in sheet.rows],
    }


def _cell(cell: Cell) -> dict[str, Any] | None:
    if not cell.counts:
        return None
    return {"verdict": cell.verdict, "reasons": [{"reason": one, "pairs": pairs} for one, pairs in cell.counts]}


def reason_lines(reason: Reason) -> Iterator[str]:
    """Why, a line for each place that decided."""
    word = reason.verdict.upper()
    for decision in reason.decisions:
        scope = f"{decision.direction}: " if decision.direction else ""
        tier = f"tier {decision.tier}, " if decision.tier and decision.policy else ""
        yield f"{word} {scope}{tier}{words.because(decision)}"
    if not reason.decisions:
        yield word
    if reason.closest:
        yield f"closest: {reason.closest}"


def basis_words(matrix: FlowMatrix) -> str:
    """What the verdicts are made from."""
    if matrix.basis == "intent":
        return "decided from the API's objects alone"
    return "predicted from the rules of the nodes, for new connections"


def heading(matrix: FlowMatrix) -> str:
    """How many pods, and what the verdicts are made from."""
    sources, destinations = matrix.pods
    pods = f"{words.counted(sources, 'pod')} to {words.counted(destinations, 'pod')}"
    return f"{pods}, IPv{matrix.version}, {basis_words(matrix)}"


def text(matrix: FlowMatrix) -> str:
    """Tables, one for each port, then the reasons by number."""
    return "".join(f"{safe(line)}\n" for line in _lines(matrix))


def _lines(matrix: FlowMatrix) -> Iterator[str]:
    yield heading(matrix)
    yield from (f"note: {note}" for note in matrix.notes)
    yield ""
    yield "destinations"
    letters = [_letters(number) for number in range(len(matrix.destinations))]
    width = max((len(one) for one in letters), default=1)
    for letter, group in zip(letters, matrix.destinations, strict=True):
        yield f"{_INDENT}{letter.rjust(width)}  {_members(group)}"
    used: dict[int, None] = {}
    for sheet in matrix.sheets:
        yield ""
        yield from _sheet_lines(matrix, sheet, letters, used)
    yield ""
    for source in matrix.sources:
        if len(source.pods) > 1 and matrix.by == "pods":
            yield f"{_INDENT}{source.name}: {_members(source)}"
    yield ", ".join(f"{symbol} {_MEANINGS.get(verdict, verdict)}" for verdict, symbol in SYMBOLS.items())
    for number in sorted(used):
        reason = matrix.reasons[number]
        first, *rest = reason_lines(reason)
        yield f"{_INDENT}{SYMBOLS[reason.verdict]}{number + 1}  {first}"
        yield from (f"{_INDENT}{' ' * len(str(number + 1))}   {line}" for line in rest)


def _sheet_lines(matrix: FlowMatrix, sheet: Sheet, letters: list[str], used: dict[int, None]) -> Iterator[str]:
    cells = [[_short(matrix, cell, used) for cell in row] for row in sheet.rows]
    widths = [max(len(one) for one in column) for column in zip(letters, *cells, strict=True)]
    title = ", ".join(map(str, sheet.asked))
    names = [*(f"{_INDENT}{safe(group.name)}" for group in matrix.sources)]
    head = max(map(len, names))
    yield title
    for name, row in zip(["", *names], [letters, *cells], strict=True):
        yield "  ".join(
            [name.ljust(head), *(one.ljust(width) for one, width in zip(row, widths, strict=True))]
        ).rstrip()


def _short(matrix: FlowMatrix, cell: Cell, used: dict[int, None]) -> str:
    symbol = SYMBOLS[cell.verdict]
    if cell.verdict == MIXED:
        allowed = sum(pairs for reason, pairs in cell.counts if matrix.reasons[reason].verdict == "allowed")
        return f"{symbol}{allowed}/{sum(pairs for _, pairs in cell.counts)}"
    if not cell.counts:
        return symbol
    reason, _ = cell.counts[0]
    used.setdefault(reason)
    return f"{symbol}{reason + 1}{'…' if len(cell.counts) > 1 else ''}"


def _members(group: Group) -> str:
    shown = ", ".join(group.pods[:MOST_MEMBERS])
    more = len(group.pods) - MOST_MEMBERS
    listed = f"{shown} and {more} more" if more > 0 else shown
    return f"{group.name}: {listed}" if group.name in group.namespaces else listed


def _letters(number: int) -> str:
    """A, B, … Z, AA, AB, …"""
    found = ""
    number += 1
    while number:
        number, place = divmod(number - 1, 26)
        found = chr(ord("A") + place) + found
    return found


def render_json(matrix: FlowMatrix) -> str:
    """The document, indented."""
    return json.dump(document(matrix))


def render_yaml(matrix: FlowMatrix) -> str:
    """The document as YAML."""
    return yaml.dump(document(matrix))
