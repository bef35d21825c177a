"""A matrix as one HTML page that needs nothing else and loads nothing.

Its policy of content security names its own style and script by their hashes, so that nothing else can run; data is
JSON that the script puts into the page as text. Names are shown as on a terminal: what is not printable is escaped.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from calico_debug.cli.render.matrix import MOST_MEMBERS, SYMBOLS, document, heading, reason_lines
from calico_debug.cli.render.terminal import safe
from calico_debug.errors import UsageError
from calico_debug.matrix.model import MIXED

if TYPE_CHECKING:
    from calico_debug.matrix.model import FlowMatrix

MOST_CELLS: Final = 250_000
"""Cells that a browser is given to draw."""

_WORDS: Final = {"": "the pod itself", MIXED: "differs from pod to pod: allowed/pairs"}


def render(matrix: FlowMatrix) -> str:
    """The page. Raises `UsageError` for more cells than a browser can draw."""
    cells = len(matrix.sources) * len(matrix.destinations) * len(matrix.sheets)
    if cells > MOST_CELLS:
        raise UsageError(
            f"a page of {cells} cells is too large to draw, {MOST_CELLS} is the limit: name fewer with --from, --to "
            "and --port, or take --by namespaces"
        )
    style, script = _file("matrix.css"), _file("matrix.js")
    parts = {
        "@style-hash@": _hash(style),
        "@script-hash@": _hash(script),
        "@style@": style,
        "@script@": script,
        "@data@": _embedded(_data(matrix)),
    }
    page = _file("matrix.html")
    for place, content in parts.items():
        before, _, after = page.partition(place)
        page = before + content + after
    return page


def _data(matrix: FlowMatrix) -> Mapping[str, Any]:
    about = f"{heading(matrix)}: {matrix.origin}"
    return {
        **_safe(document(matrix)),
        "about": safe(about),
        "symbols": SYMBOLS,
        "words": {verdict: _WORDS.get(verdict, verdict) for verdict in SYMBOLS},
        "reasonLines": [[safe(line) for line in reason_lines(reason)] for reason in matrix.reasons],
        "mostMembers": MOST_MEMBERS,
    }


def _safe(value: Any) -> Any:
    """Every text of a document with what is not printable escaped."""
    if isinstance(value, str):
        return safe(value)
    if isinstance(value, Mapping):
        return {key: _safe(one) for key, one in value.items()}
    return [_safe(one) for one in value] if isinstance(value, list) else value


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON that can stand inside of a script element: nothing in it ends one or opens a comment."""
    return (
        json.dumps(data, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    )


def _file(name: str) -> str:
    return files("calico_debug.cli.render").joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    """As a Content-Security-Policy names what may run (CSP level 3, hash-source)."""
    return f"sha256-{b64encode(sha256(content.encode()).digest()).decode()}"
