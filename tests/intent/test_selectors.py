from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.intent.selector_parser import (
    Combination,
    Comparison,
    Everything,
    Has,
    Membership,
    Node,
    Not,
)
from calico_debug.intent.selectors import Selector, SelectorError, normalise, parse, prefixed, selector_of
from tests.intent.selector_cases import LABELS, READ

KEYS = ("a", "b", "has", "in", "not", "projectcalico.org/namespace", "x-y_z.")
VALUES = ("", "x", "xy", "it's", 'say "so"', "日本", "all()", "\n")


@pytest.mark.parametrize(("text", "canonical", "selected"), READ, ids=repr)
def test_what_calico_reads(text: str, canonical: str, selected: str) -> None:
    selector = parse(text)
    assert selector.text == canonical
    assert "".join("01"[selector.evaluate(labels)] for labels in LABELS) == selected


def leaves() -> st.SearchStrategy[Node]:
    keys, values = st.sampled_from(KEYS), st.sampled_from(VALUES)
    operators = st.sampled_from(["==", "!=", "contains", "starts with", "ends with"])
    sets = st.frozensets(values, max_size=3).map(lambda found: tuple(sorted(found)))
    return st.one_of(
        st.builds(Comparison, keys, operators, values),
        st.builds(Membership, keys, sets, st.booleans()),
        st.builds(Has, keys),
        st.builds(Everything, st.sampled_from(["all", "global"])),
    )


def trees() -> st.SearchStrategy[Node]:
    return st.recursive(
        leaves(),
        lambda inner: st.one_of(
            st.builds(Not, inner.filter(lambda node: not isinstance(node, Not))),
            st.builds(Combination, st.sampled_from(["&&", "||"]), st.lists(inner, min_size=2, max_size=4).map(tuple)),
        ),
        max_leaves=20,
    )


LABEL_SETS = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))


def meaning(node: Node, labels: dict[str, str]) -> bool:
    """What a tree means, once more and by hand."""
    match node:
        case Comparison(label, "==", value):
            return label in labels and labels[label] == value
        case Comparison(label, "!=", value):
            return label not in labels or labels[label] != value
        case Comparison(label, "contains", value):
            return label in labels and value in labels[label]
        case Comparison(label, "starts with", value):
            return label in labels and labels[label][: len(value)] == value
        case Comparison(label, _, value):
            return label in labels and (not value or labels[label][-len(value) :] == value)
        case Membership(label, values, negated):
            inside = label in labels and labels[label] in values
            return not inside if negated else inside
        case Has(label):
            return label in labels
        case Not(operand):
            return not meaning(operand, labels)
        case Combination(operator, operands):
            answers = [meaning(operand, labels) for operand in operands]
            return all(answers) if operator == "&&" else any(answers)
        case _:
            return True


@given(trees(), LABEL_SETS)
def test_canonical_text_is_read_as_the_same_tree(tree: Node, labels: dict[str, str]) -> None:
    selector = selector_of(tree)
    again = parse(selector.text)
    assert again.root == tree
    assert again == selector
    assert again.evaluate(labels) is selector.evaluate(labels) is meaning(tree, labels)


@given(trees(), LABEL_SETS)
def test_prefixed_labels(tree: Node, labels: dict[str, str]) -> None:
    under = parse(prefixed(selector_of(tree).text, "pcns."))
    assert under.evaluate({f"pcns.{key}": value for key, value in labels.items()}) is meaning(tree, labels)
    assert all(label.startswith("pcns.") for label in under.labels)


@given(trees(), LABEL_SETS, st.frozensets(st.sampled_from(KEYS)))
def test_partly_known_labels(tree: Node, labels: dict[str, str], hidden: frozenset[str]) -> None:
    """An answer that is given in spite of unknown labels is the answer, whatever those are."""
    selector = selector_of(tree)
    known = {key: value for key, value in labels.items() if key not in hidden}
    answer = selector.evaluate_partly(known, hidden.__contains__)
    assert answer in (None, selector.evaluate(labels))
    if not hidden & selector.labels:
        assert answer is selector.evaluate(labels)


@given(st.text(alphabet="ab'\"(){}=!&|, \tinoths.é\n", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    canonical = parse_or(text)
    assert normalise(text) == parse_or(text.strip())
    assert parse_or(canonical) == canonical


def parse_or(text: str) -> str:
    try:
        return parse(text).text
    except SelectorError:
        return text


def test_selectors_are_equal_by_their_text() -> None:
    assert parse("a=='x'") == parse('( a == "x" )')
    assert hash(parse("a=='x'")) == hash(parse('a == "x"'))
    assert parse("a == 'x'") != parse("a != 'x'")
    assert isinstance(parse(""), Selector)


def test_ids_of_sets() -> None:
    """As in the names of the sets of a real cluster."""
    assert parse("").unique_id == "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"
    assert parse("pcns.x not in {}").unique_id == "s:0VK1qqtuAOSpN7nlqgEo68-0vOaOyowyuiN-iw"
