"""Tables, JSON and YAML of rows."""

from __future__ import annotations

import json

import pytest
import yaml

from calico_debug.cli.render import listing
from calico_debug.cli.render.listing import json_list, table, yaml_list
from calico_debug.explain.listing.rows import Listing, Row

ROWS = [Row(("a", "long one"), {"n": "a"}, ("1",)), Row(("b\x1b[31m", "-"), {"n": "b\x7f"}, ("22",))]


def made(rows: list[Row]) -> Listing:
    return Listing(("X", "Y"), iter(rows), ("Z",))


def test_columns_are_aligned_and_names_cannot_steer_the_terminal() -> None:
    assert list(table(made(ROWS), wide=False)) == ["X          Y\n", "a          long one\n", "b\\x1b[31m  -\n"]
    assert next(table(made(ROWS), wide=True)) == "X          Y         Z\n"
    assert list(table(made([]), wide=False)) == ["nothing\n"]


def test_rows_are_written_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MEASURED", 1)
    read: list[int] = []

    def rows() -> object:
        for number in range(3):
            read.append(number)
            yield Row((str(number), ""), {})

    lines = table(Listing(("X", "Y"), rows(), ()), wide=False)  # type: ignore[arg-type]
    next(lines)
    assert read == [0]
    assert next(lines) == "0\n"
    next(lines)
    assert read == [0, 1]


def test_documents_are_one_list() -> None:
    documents = [row.document for row in ROWS]
    text = "".join(json_list(documents))
    assert json.loads(text) == documents
    assert text.isascii()
    assert "\x7f" not in text
    assert yaml.safe_load("".join(yaml_list(documents))) == documents
    assert json.loads("".join(json_list([]))) == yaml.safe_load("".join(yaml_list([]))) == []
