"""docs/switch.md against the tables of the checks and the documents."""

from __future__ import annotations

from calico_debug.cli.render.switch import document
from calico_debug.doctor.examine import Report
from calico_debug.switch.catalogue import REQUIREMENTS
from calico_debug.switch.check import CLUSTER_ROWS, NODE_ROWS, Row
from calico_debug.switch.compare import SwitchReport
from calico_debug.switch.connections import STATUSES
from calico_debug.switch.document import to_document
from calico_debug.switch.leftovers import LEFTOVER_ROWS, LEFTOVERS
from calico_debug.switch.model import Record
from calico_debug.switch.platform import UNSUPPORTED
from tests.docs.markdown import code, section, tables

PAGE = "switch.md"


def _cells(row: Row) -> tuple[str, str, str]:
    return row.name, ", ".join(row.targets), row.about


def test_checks() -> None:
    once, on_nodes = tables(section(PAGE, "What check looks at"))
    assert once == [_cells(row) for row in CLUSTER_ROWS]
    assert on_nodes == [_cells(row) for row in NODE_ROWS]


def test_findings() -> None:
    found, unsupported = tables(section(PAGE, "What check may find"))
    assert found == [(f"`{key}`", entry.meaning, entry.remedy) for key, entry in REQUIREMENTS.items()]
    assert unsupported == [(row.name, row.since) for row in UNSUPPORTED]


def test_leftovers() -> None:
    checks, found = tables(section(PAGE, "What may be left behind"))
    assert checks == list(LEFTOVER_ROWS)
    assert found == [(f"`{key}`", entry.meaning, entry.remedy) for key, entry in LEFTOVERS.items()]


def test_connections() -> None:
    rows = tables(section(PAGE, "What becomes of open connections"))[0]
    assert rows == [(f"`{key}`", meaning) for key, meaning in STATUSES.items()]


def test_fields() -> None:
    record = [code(row[0]) for row in tables(section(PAGE, "The record's file"))[0]]
    assert record == list(to_document(Record("memory", (), ())))
    report = [code(row[0]) for row in tables(section(PAGE, "The report's JSON"))[0]]
    empty = SwitchReport("a", "b", (), (), (), Report("memory", (), (), ()), ())
    assert report == list(document(empty))
