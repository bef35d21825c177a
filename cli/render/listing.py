"""Rows of a listing as a table, as JSON or as YAML, written as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from calico_debug.cli.render.terminal import safe

if TYPE_CHECKING:
    from calico_debug.explain.listing.rows import Listing

FORMATS = ("text", "wide", "json", "yaml")

MEASURED = 500
"""Rows that settle the widths of a table's columns; more are written as they come."""


def table(listing: Listing, wide: bool) -> Iterator[str]:
    """Lines; "nothing" for a listing without rows."""
    headings = (*listing.headings, *listing.more) if wide else listing.headings
    rows = ((*row.cells, *row.more) if wide else row.cells for row in listing.rows)
    first = list(islice(rows, MEASURED))
    if not first:
        yield "nothing\n"
        return
    widths = [max(len(safe(cell)) for cell in column) for column in zip(headings, *first, strict=True)]
    for cells in chain((headings,), first, rows):
        line = "  ".join(safe(cell).ljust(width) for cell, width in zip(cells, widths, strict=True))
        yield f"{line.rstrip()}\n"


def json_list(documents: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """One list, a document a line. Pure ASCII."""
    import json

    separator = "["
    for document in documents:
        # JSON leaves DEL as it is; it can only stand inside a string.
        yield f"{separator}\n  {json.dumps(document)}".replace("\x7f", "\\u007f")
        separator = ","
    yield "[]\n" if separator == "[" else "\n]\n"


def yaml_list(documents: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """One list in one document."""
    from calico_debug.cli.render.yaml import dump

    empty = True
    for document in documents:
        yield dump([document])
        empty = False
    if empty:
        yield "[]\n"
