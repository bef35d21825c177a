"""Pages on installing and on trouble: messages, findings, variables, overlays and pages that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.daemonset.test_manifests import OVERLAYS
from tests.docs.markdown import DOCS, code, section, tables

ROOT = DOCS.parent
FOLDERS = ("agent", "cli", "core")


@cache
def texts() -> str:
    """Every text in the program, those with something to fill in by what stands between."""
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(str(v.value) if isinstance(v, ast.Constant) else "\0" for v in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


MESSAGES = [code(row[0]) for row in tables(section("troubleshooting.md", "Messages"))[0]]


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_are_said(message: str) -> None:
    assert message in texts()


def test_findings_and_variables_exist() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    for name in re.findall(r"finding `([a-z-]+)`", page):
        assert f"\n{name}\n" in texts()
    for name in set(re.findall(r"CALICO_DEBUG_[A-Z_]+", page)):
        assert name in texts()


def test_overlays_of_the_page_on_installing() -> None:
    rows = tables(section("install.md", "Agents on a cluster"))[0]
    assert {row[1].split("`")[1] for row in rows} == set(OVERLAYS)


@pytest.mark.parametrize("page", ["install.md", "troubleshooting.md"])
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", (DOCS / page).read_text(encoding="utf-8")):
        assert (DOCS / target).exists(), target


def test_every_page_is_found_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in sorted(Path(DOCS).glob("*.md")):
        assert f"docs/{path.name}" in readme, path.name
