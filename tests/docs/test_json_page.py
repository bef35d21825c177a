"""docs/json.md against the code; the schema is compared with the code in tests/explain/test_document.py."""

from __future__ import annotations

import ast
import re

import pytest

from calico_debug.explain.document import FIELDS
from calico_debug.model.explanation import FINDINGS, REASONS, VERDICTS, FlowExplanation
from tests.docs.markdown import DOCS, code, section, tables
from tests.explain.test_document import DEFINITIONS, SCHEMA


def fields(heading: str) -> list[tuple[str, bool]]:
    return [
        (code(name), {"yes": True, "no": False}[always])
        for name, _, always, _ in tables(section("json.md", heading))[0]
    ]


@pytest.mark.parametrize("heading", DEFINITIONS)
def test_fields(heading: str) -> None:
    expected = next(found for kind, found in FIELDS.items() if kind.__name__ == DEFINITIONS[heading])
    assert fields(heading) == [(field.name, field.always) for field in expected]


def test_fields_of_the_whole() -> None:
    whole = [(field.name, field.always) for field in FIELDS[FlowExplanation]]
    assert fields("flow") == whole[:4]
    assert fields("FlowExplanation") == [("apiVersion", True), ("kind", True), ("flow", True), *whole[4:]]


@pytest.mark.parametrize("heading", ["FlowExplanation", "flow", "Error", *DEFINITIONS])
def test_fields_are_those_of_the_schema(heading: str) -> None:
    definition = SCHEMA["$defs"][heading[0].lower() + heading[1:]]
    assert fields(heading) == [(name, name in definition["required"]) for name in definition["properties"]]


@pytest.mark.parametrize("heading", ["FlowExplanation", "flow", *DEFINITIONS])
def test_types_have_a_section_or_are_json_types(heading: str) -> None:
    page = (DOCS / "json.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^## (\S+)$", page, re.MULTILINE))
    for _, kind, _, _ in tables(section("json.md", heading))[0]:
        assert kind.split(" of ")[-1] in headings | {"string", "integer", "boolean", "object"}


def test_verdicts() -> None:
    assert [code(row[0]) for row in tables(section("json.md", "Verdicts"))[0]] == list(VERDICTS)


def test_reasons() -> None:
    assert [(code(name), meaning) for name, meaning in tables(section("json.md", "Reasons"))[0]] == list(
        REASONS.items()
    )


def test_stages() -> None:
    stages = SCHEMA["$defs"]["step"]["properties"]["stage"]["enum"]
    assert [code(row[0]) for row in tables(section("json.md", "Stages"))[0]] == stages


def test_findings() -> None:
    assert [(code(name), meaning) for name, meaning in tables(section("json.md", "Findings"))[0]] == list(
        FINDINGS.items()
    )


def test_every_finding_in_the_code_is_in_the_table() -> None:
    """Codes are written where findings are made: as the first argument, or assigned to ``code`` before."""
    found = set()
    for path in (DOCS.parent / "core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name == "Finding" or (name == "_note" and len(node.args) == 3):
                    found.add(node.args[0].value)
            elif isinstance(node, ast.Assign) and "code" in {
                name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)
            }:
                found |= {n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant) and "-" in str(n.value)}
    assert found == set(FINDINGS)
