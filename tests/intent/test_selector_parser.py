"""What is read as which tree, and what is refused, with Calico's message and the place."""

from __future__ import annotations

import pytest

from calico_debug.intent.selector_parser import (
    DEEPEST,
    Combination,
    Comparison,
    Everything,
    Has,
    Membership,
    Node,
    Not,
    Parser,
    SelectorError,
)
from calico_debug.intent.selectors import parse
from tests.intent.selector_cases import REFUSED

A, B, C = Has("a"), Has("b"), Has("c")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", Everything()),
        ("global()", Everything("global")),
        ("a starts  with 'x'", Comparison("a", "starts with", "x")),
        ("a notin {'y', 'x', 'y',}", Membership("a", ("x", "y"), negated=True)),
        ("has(a) || has(b) && has(c)", Combination("||", (A, Combination("&&", (B, C))))),
        ("(has(a) || has(b)) && has(c)", Combination("&&", (Combination("||", (A, B)), C))),
        ("has(a) && has(b) && has(c)", Combination("&&", (A, B, C))),
        ("has(a) && (has(b) && has(c))", Combination("&&", (A, Combination("&&", (B, C))))),
        ("!!has(a)", A),
        ("!!!has(a)", Not(A)),
        ("!(has(a))", Not(A)),
        ("!has(a) && has(b)", Combination("&&", (Not(A), B))),
    ],
)
def test_trees(text: str, tree: Node) -> None:
    assert Parser(text).parse() == tree


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=repr)
def test_what_calico_refuses(text: str, message: str) -> None:
    with pytest.raises(SelectorError) as refusal:
        parse(text)
    problem = refusal.value.problem.removesuffix("…")
    assert message.startswith(problem) if len(text) > 500 else message == problem
    assert 0 <= refusal.value.position <= len(text)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("a == 'x' && b = 'y'", 14),
        ("a == 'x' && 'b'", 12),
        ("a in {'x' 'y'}", 10),
        ("has(a b)", 6),
        ("(a == 'x'", 9),
        ("a == 'x' b", 9),
        ("a == 'open", 5),
    ],
)
def test_errors_say_where(text: str, position: int) -> None:
    with pytest.raises(SelectorError, match=rf"at character {position} of {len(text)}") as refusal:
        parse(text)
    assert refusal.value.position == position


def test_depth_is_bounded() -> None:
    assert parse("(" * DEEPEST + "has(a)" + ")" * DEEPEST).text == "has(a)"
    nested = "!(" * DEEPEST + "has(a)" + ")" * DEEPEST
    assert parse(nested).evaluate({"a": ""}) is (DEEPEST % 2 == 0)
    for number in (DEEPEST + 1, 100_000):
        with pytest.raises(SelectorError, match="not followed here"):
            parse("(" * number + "has(a)" + ")" * number)


def test_long_selectors() -> None:
    text = " || ".join(f"a == '{number}'" for number in range(20_000))
    selector = parse(text)
    assert selector.evaluate({"a": "19999"})
    assert not selector.evaluate({"a": "20000"})
    assert parse("!" * 100_001 + "has(a)").text == "!has(a)"
