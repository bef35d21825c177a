"""docs/doctor.md against the tables of the doctor."""

from __future__ import annotations

from calico_debug.cli.render.doctor import document
from calico_debug.doctor.catalogue import CATALOGUE
from calico_debug.doctor.combinations import COMBINATIONS
from calico_debug.doctor.examine import CLUSTER_CHECKS, NODE_CHECKS, Report
from calico_debug.doctor.model import SEVERITIES
from tests.docs.markdown import DOCS, code, section, tables

PAGE = "doctor.md"


def test_severities() -> None:
    assert [code(row[0]) for row in tables(section(PAGE, "Doctor"))[0]] == list(SEVERITIES)


def test_checks() -> None:
    for heading, checks in (("Looked at on each node", NODE_CHECKS), ("Looked at once", CLUSTER_CHECKS)):
        assert tables(section(PAGE, heading))[0] == [(check.name, check.about) for check in checks]


def test_findings() -> None:
    found, together = tables(section(PAGE, "What may be found"))
    assert found == [(f"`{key}`", entry.meaning, entry.remedy) for key, entry in CATALOGUE.items()]
    assert together == [(one.name, one.since) for one in COMBINATIONS]


def test_fields() -> None:
    fields = [code(row[0]) for row in tables(section(PAGE, "JSON"))[0]]
    assert fields == list(document(Report("memory", (), (), ())))


def test_the_page_is_linked() -> None:
    assert "doctor.md" in (DOCS.parent / "README.md").read_text(encoding="utf-8")
