"""What reaches a terminal cannot steer it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.cli.render import renderer
from calico_debug.cli.render.terminal import PLAIN, Style, safe, table, wrap
from calico_debug.model.explanation import (
    Decision,
    Evidence,
    Finding,
    FlowEnd,
    FlowExplanation,
    PolicyRef,
    RuleRef,
    Step,
)
from tests.cli.samples import SAMPLES

ANY = st.text(st.characters(codec=None))
STEERING = st.sampled_from(
    ["\x1b[2J", "\x9b0m", "\u202e", "\u2066", "\u2028", "\r", "\x07", "\x7f", "\u200b", "\ud800"]
)
HOSTILE = st.lists(ANY | STEERING, max_size=6).map("".join)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("stars/frontend", "stars/frontend"),
        ("grün 中", "grün 中"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x9b31m", "\\x9b31m"),
        ("a\tb\r\nc", "a\\tb\\r\\nc"),
        ("\u202egpj", "\\u202egpj"),
        ("\u2028", "\\u2028"),
        ("\u00a0", "\\xa0"),
        ("a\u0301", "a\\u0301"),
        ("\U000e0001", "\\U000e0001"),
        ("\ud800", "\\ud800"),
        ("\x7f", "\\x7f"),
    ],
)
def test_safe(text: str, shown: str) -> None:
    assert safe(text) == shown


@given(HOSTILE)
def test_safe_is_printable_and_stable(text: str) -> None:
    assert safe(text).isprintable()
    assert safe(safe(text)) == safe(text)


@given(HOSTILE, HOSTILE, st.sampled_from(["text", "wide", "json", "yaml", "jsonl"]))
def test_no_format_lets_anything_through(one: str, two: str, output: str) -> None:
    policy = PolicyRef(one, two, one)
    evidence = Evidence(one, two, 1, one, two, 1)
    end = FlowEnd(one, 1, {"namespace": one, "name": two}, {"namespace": two, "name": one}, two, one)
    step = Step(one, two, two, one, "egress", one, policy, RuleRef(two, 1), evidence)
    explanation = FlowExplanation(
        protocol=one,
        source=end,
        destination=end,
        verdict="denied",
        decision=Decision(one, two, one, "egress", two, policy, RuleRef(one, 0), two, evidence),
        steps=(step, dataclasses.replace(step, stage="egress"), dataclasses.replace(step, hypothetical=True)),
        findings=(Finding(one, two, two),),
    )
    text = renderer(output)(explanation, Style(columns=60))
    assert text.endswith("\n")
    assert all(line.isprintable() for line in text.split("\n"))


@given(st.text("ab ", max_size=200), st.integers(0, 30), st.integers(20, 90))
def test_wrap_keeps_every_word_and_the_width(text: str, indent: int, columns: int) -> None:
    lines = wrap(text, indent, Style(columns=columns))
    assert " ".join(lines).split() == text.split()
    if columns - indent >= 24:
        assert all(len(line) <= columns - indent or " " not in line for line in lines)


def test_no_width_no_wrapping() -> None:
    assert wrap("a " * 500, 10, PLAIN) == ["a " * 500]


def test_table_leaves_out_empty_columns() -> None:
    assert table([("A", "B", "C"), ("1", "", "x"), ("22", "", "")]) == ["A   C", "1   x", "22"]


@pytest.mark.parametrize("columns", [None, 10, 80, 200])
def test_colour_changes_nothing_but_colour(columns: int | None) -> None:
    for sample in SAMPLES.values():
        plain: Any = renderer("wide")(sample, Style(columns=columns))
        coloured = renderer("wide")(sample, Style(colour=True, columns=columns))
        assert coloured != plain
        for code in ("32", "31", "1;33", "0"):
            coloured = coloured.replace(f"\x1b[{code}m", "")
        assert coloured == plain
