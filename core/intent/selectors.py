"""Calico's selector language: text to a selector, a selector to an answer for labels, and to canonical text.

Canonical form and meaning: libcalico-go/lib/selector/parser/ast.go; ids: libcalico-go/lib/hash (v3.28 to v3.32).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from calico_debug.intent.selector_parser import (
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

__all__ = ["Labels", "Selector", "SelectorError", "normalise", "parse", "prefixed", "selector_of", "unique_id"]

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Selector:
    """A parsed selector. Equal if the canonical texts are equal, as for Calico itself."""

    root: Node = field(compare=False, repr=False)
    text: str
    """The canonical text, whose hash names the IP set."""
    evaluate: Callable[[Labels], bool] = field(compare=False, repr=False)
    """Whether labels are selected."""
    labels: frozenset[str] = field(compare=False, repr=False)
    """Every label that is looked at."""

    def __str__(self) -> str:
        """The canonical text."""
        return self.text

    def evaluate_partly(self, labels: Labels, unknown: Callable[[str], bool]) -> bool | None:
        """Like ``evaluate`` where some labels are not known: None if the answer hangs on one of those.

        ``unknown`` says of a label that ``labels`` does not have whether it may exist nevertheless.
        """
        return _partly(self.root, labels, unknown)

    @property
    def unique_id(self) -> str:
        """Felix's id of the IP set of everything selected: ``s:`` and a hash (libcalico-go/lib/hash)."""
        return unique_id("s", self.text)


def unique_id(prefix: str, content: str) -> str:
    """``MakeUniqueID`` of libcalico-go/lib/hash: the prefix and an unpadded, URL-safe SHA-224 of both."""
    digest = hashlib.sha224(f"{prefix}:{content}".encode("utf-8", "surrogatepass")).digest()
    return f"{prefix}:{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


@lru_cache(maxsize=16384)
def parse(text: str) -> Selector:
    """The selector that ``text`` is; an empty one selects everything. Raises `SelectorError`."""
    return selector_of(Parser(text).parse())


def selector_of(root: Node) -> Selector:
    """The selector with that tree."""
    return Selector(root, _canonical(root), _compile(root), frozenset(_labels(root)))


def normalise(text: str) -> str:
    """The canonical text of a selector, or the text without space around it where it cannot be parsed."""
    text = text.strip()
    try:
        return parse(text).text
    except SelectorError:
        return text


def prefixed(text: str, prefix: str) -> str:
    """The canonical text with ``prefix`` in front of every label. Raises `SelectorError`."""
    return _canonical(_with_prefix(parse(text).root, prefix))


# ------------------------------------------------------------------------------------------------------ over the tree


def _canonical(node: Node) -> str:
    if isinstance(node, Comparison):
        return f"{node.label} {node.operator} {_quoted(node.value)}"
    if isinstance(node, Membership):
        operator = "not in" if node.negated else "in"
        return f"{node.label} {operator} {{{', '.join(_quoted(value) for value in node.values)}}}"
    if isinstance(node, Has):
        return f"has({node.label})"
    if isinstance(node, Everything):
        return f"{node.name}()"
    if isinstance(node, Not):
        return f"!{_canonical(node.operand)}"
    return f"({f' {node.operator} '.join(_canonical(operand) for operand in node.operands)})"


def _quoted(value: str) -> str:
    quote = "'" if '"' in value else '"'
    return f"{quote}{value}{quote}"


def _labels(node: Node) -> Iterator[str]:
    if isinstance(node, Not):
        yield from _labels(node.operand)
    elif isinstance(node, Combination):
        for operand in node.operands:
            yield from _labels(operand)
    elif not isinstance(node, Everything):
        yield node.label


def _with_prefix(node: Node, prefix: str) -> Node:
    if isinstance(node, Everything):
        return node
    if isinstance(node, Not):
        return Not(_with_prefix(node.operand, prefix))
    if isinstance(node, Combination):
        return replace(node, operands=tuple(_with_prefix(operand, prefix) for operand in node.operands))
    return replace(node, label=prefix + node.label)


_TESTS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "==": str.__eq__,
    "!=": str.__ne__,
    "contains": str.__contains__,
    "starts with": str.startswith,
    "ends with": str.endswith,
}


def _compile(node: Node) -> Callable[[Labels], bool]:
    """A function of labels. A label that is absent satisfies ``!=`` and ``not in``, and nothing else."""
    if isinstance(node, Comparison):
        label, value, test = node.label, node.value, _TESTS[node.operator]
        absent = node.operator == "!="
        if node.operator == "==":
            return lambda labels: labels.get(label) == value
        return lambda labels: test(found, value) if (found := labels.get(label)) is not None else absent
    if isinstance(node, Membership):
        label, values, negated = node.label, frozenset(node.values), node.negated
        return lambda labels: (labels.get(label) in values) is not negated
    if isinstance(node, Has):
        label = node.label
        return lambda labels: label in labels
    if isinstance(node, Everything):
        return lambda _labels: True
    if isinstance(node, Not):
        negative = _compile(node.operand)
        return lambda labels: not negative(labels)
    operands = tuple(_compile(operand) for operand in node.operands)
    if node.operator == "&&":
        return lambda labels: all(operand(labels) for operand in operands)
    return lambda labels: any(operand(labels) for operand in operands)


def _partly(node: Node, labels: Labels, unknown: Callable[[str], bool]) -> bool | None:
    if isinstance(node, Not):
        answer = _partly(node.operand, labels, unknown)
        return None if answer is None else not answer
    if isinstance(node, Combination):
        answers = [_partly(operand, labels, unknown) for operand in node.operands]
        decisive = node.operator == "||"
        return decisive if decisive in answers else None if None in answers else not decisive
    if not isinstance(node, Everything) and node.label not in labels and unknown(node.label):
        return None
    return _compile(node)(labels)
