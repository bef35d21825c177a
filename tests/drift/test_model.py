"""Codes of drift."""

from __future__ import annotations

import ast
from pathlib import Path

import calico_debug.drift.model as model
from calico_debug.drift.model import CODES, Drift


def test_every_code_is_raised_somewhere_and_no_other() -> None:
    raised = set()
    for file in Path(model.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Drift":
                assert isinstance(node.args[0], ast.Constant)
                raised.add(node.args[0].value)
    assert raised == set(CODES)


def test_document() -> None:
    document = Drift("set-missing", "error", "n", "o", "m", "c").to_dict()
    assert (document["kind"], document["code"], document["cause"]) == ("Drift", "set-missing", "c")
