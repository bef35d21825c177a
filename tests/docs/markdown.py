"""Reads the tables and code blocks of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def section(page: str, heading: str) -> str:
    """The text below a heading, up to the next one of the same or a higher level."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,2}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/{page} has no section {heading}"
    return found[2]


def tables(text: str) -> list[list[tuple[str, ...]]]:
    """Every table's rows without its heading; cells without the quotes of code, an escaped bar is a bar."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()[2:]]
        found.append([tuple(cell.strip().replace("\\|", "|") for cell in row) for row in rows])
    return found


def code(cell: str) -> str:
    """The text of a cell that is one piece of code."""
    assert cell.startswith("`"), cell
    assert cell.endswith("`"), cell
    return cell[1:-1]


def commands(text: str) -> list[str]:
    """Lines that run this program."""
    return re.findall(r"^\s*(?:\$ )?(calico-debug (?!\d).*)$", text, re.MULTILINE)
