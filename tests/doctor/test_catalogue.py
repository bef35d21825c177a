"""The table of findings against the code that makes them."""

from __future__ import annotations

import ast
from pathlib import Path

import calico_debug.doctor
from calico_debug.doctor.catalogue import CATALOGUE
from calico_debug.model.explanation import FINDINGS

OF_PROGRAMS_RUN = {"bpf-policy-debug-missing", "bpf-policy-debug-stale", "bpf-policy-not-compared"}
FROM_DATAPLANES = {"nftables-beside-iptables", "node-not-programmed", "two-dataplanes", "two-iptables-backends"}


def test_every_code_is_in_the_table_and_made_somewhere() -> None:
    made = set()
    for path in Path(calico_debug.doctor.__path__[0]).glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") in ("Symptom", "_level"):
                made |= {one.value for one in call.args[:1] if isinstance(one, ast.Constant)}
    shared = {code for code in FINDINGS if code.startswith("bpf-")} - OF_PROGRAMS_RUN | FROM_DATAPLANES
    assert made | shared == set(CATALOGUE)
    assert not made & shared


def test_each_says_what_it_means_and_what_to_do_in_one_sentence() -> None:
    for code, entry in CATALOGUE.items():
        for text in (entry.meaning, entry.remedy):
            assert text, code
            assert not text.endswith("."), code
            assert "\n" not in text, code
