"""The rows of a listing: cells for people, a document for machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One entry. ``cells`` are for a table with the listing's headings, ``more`` for its further columns.

    ``document`` is for machines.
    """

    cells: tuple[str, ...]
    document: Mapping[str, Any]
    more: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """``headings`` of the table, ``more`` of what the wide form has besides, and the rows, made while they are read."""

    headings: tuple[str, ...]
    rows: Iterator[Row]
    more: tuple[str, ...] = ()
