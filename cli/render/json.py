"""``-o json`` and ``-o jsonl``: the document of contract 3 (docs/json.md). Pure ASCII, so safe on any terminal."""

from __future__ import annotations

import json

from calico_debug.cli.render.terminal import Style
from calico_debug.explain.document import error_document, to_document
from calico_debug.model.explanation import FlowExplanation

_COMPACT = json.JSONEncoder(ensure_ascii=True, check_circular=False, separators=(",", ":"))
_INDENTED = json.JSONEncoder(ensure_ascii=True, indent=2)


def render(explanation: FlowExplanation, style: Style) -> str:  # noqa: ARG001 - one signature for every renderer
    """One indented document."""
    return _ascii_printable(_INDENTED.encode(to_document(explanation)))


def render_line(explanation: FlowExplanation, style: Style | None = None) -> str:  # noqa: ARG001 - as above
    """One document in one line."""
    return _ascii_printable(_COMPACT.encode(to_document(explanation)))


def render_error(line: int, message: str) -> str:
    """The document that stands for a line of ``--flows`` that could not be answered, in one line."""
    return _ascii_printable(_COMPACT.encode(error_document(line, message)))


def dump(document: object) -> str:
    """Anything as indented JSON."""
    return _ascii_printable(_INDENTED.encode(document))


def _ascii_printable(text: str) -> str:
    # JSON leaves DEL as it is; it can only stand inside a string.
    return text.replace("\x7f", "\\u007f") + "\n"
