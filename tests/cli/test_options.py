"""Options that contradict each other, and questions without an end."""

from __future__ import annotations

import pytest

from calico_debug.cli.options import CONFLICTS, FORMATS, Conflict
from tests.cli.worlds import run

VALUES = {"--watch": ["1"], "--observe": ["1"], "--probe": []}


def values(conflict: Conflict) -> list[str]:
    return VALUES.get(conflict.second, [conflict.value or "x"])


@pytest.mark.parametrize("conflict", CONFLICTS, ids=lambda c: f"{c.first} {c.second} {c.value or ''}")
def test_conflicts(conflict: Conflict) -> None:
    ran = run("trace", conflict.first, "x", conflict.second, *values(conflict), "--from", "allowed", "--to", "b")
    assert (ran.code, ran.out, ran.asked) == (2, "", [])
    assert ran.err.count("\n") == 1
    if conflict.first != "--flows":  # --from contradicts that one already
        assert f"{conflict.first} and {conflict.second}" in ran.err
        assert conflict.remedy in ran.err


@pytest.mark.parametrize("conflict", [c for c in CONFLICTS if c.first == "--flows"], ids=lambda c: c.second)
def test_conflicts_of_flows_alone(conflict: Conflict) -> None:
    ran = run("trace", "--flows", "-", conflict.second, *values(conflict))
    assert ran.code == 2
    assert f"--flows and {conflict.second}" in ran.err
    assert conflict.remedy in ran.err


@pytest.mark.parametrize("output", [o for o in FORMATS if o != "jsonl"])
def test_formats_of_one_flow(output: str) -> None:
    assert run("trace", "--from", "allowed", "--to", "b", "-o", output).code == 0


@pytest.mark.parametrize("output", ["jsonl", "text", "wide"])
def test_formats_of_many_flows(output: str) -> None:
    assert run("trace", "--flows", "-", "-o", output).code == 0


def test_json_lines_are_for_many() -> None:
    ran = run("trace", "--from", "allowed", "--to", "b", "-o", "jsonl")
    assert (ran.code, ran.err) == (2, "calico-debug: error: -o jsonl is for --flows: use -o json for a single flow\n")


@pytest.mark.parametrize(
    ("given", "missing"),
    [((), "--from and --to missing"), (("--from", "a"), "--to missing"), (("--to", "a"), "--from missing")],
)
def test_both_ends_are_needed(given: tuple[str, ...], missing: str) -> None:
    ran = run("trace", *given)
    assert ran.code == 2
    assert ran.err.startswith(f"calico-debug: error: {missing}: name both ends")
