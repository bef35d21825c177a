"""Text for a terminal: neutralising what must not steer it, colour, wrapping."""

from __future__ import annotations

import re
from dataclasses import dataclass

from calico_debug.model.printable import safe as safe  # what renderers pass text through

VERDICT_COLOURS = {"ALLOWED": "32", "DENIED": "31", "REJECTED": "31", "UNDETERMINED": "1;33"}
"""Verdicts as text shows them and their SGR parameters (ECMA-48): green, red, red, bold yellow."""

_SHORTEST_WRAP = 24
"""Columns below which wrapping is worse than a long line."""


@dataclass(frozen=True, slots=True)
class Style:
    """How human output looks. ``columns`` is the width to wrap at, None for no wrapping."""

    colour: bool = False
    columns: int | None = None

    def paint(self, word: str) -> str:
        """The word, coloured when it is a verdict and colour is wanted."""
        if self.colour and (parameters := VERDICT_COLOURS.get(word)):
            return f"\x1b[{parameters}m{word}\x1b[0m"
        return word


PLAIN = Style()


def wrap(text: str, indent: int, style: Style) -> list[str]:
    """The text in lines that fit behind ``indent`` columns; one line when there is no width to fit in.

    Breaks at spaces only: a name stays whole and can be copied.
    """
    room = (style.columns or 0) - indent
    if room < _SHORTEST_WRAP or len(text) <= room:
        return [text]
    lines, line = [], ""
    for word in re.findall(r"\S+\s*", text):
        if line and len(line) + len(word.rstrip()) > room:
            lines.append(line.rstrip())
            line = ""
        line += word
    return [*lines, line.rstrip()]


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Lines with aligned columns from rows of equal length, the first of which is the heading.

    A column without any content below its heading is left out.
    """
    cells = [[safe(cell) for cell in row] for row in rows]
    kept = [column for column in zip(*cells, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in kept]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in zip(*kept, strict=True)
    ]
