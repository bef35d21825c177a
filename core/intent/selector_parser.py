"""Calico's selector language, read: tokens, and a frozen tree of what they mean.

Grammar and messages: libcalico-go/lib/selector (tokenizer, parser) of v3.30 to v3.32. v3.28 and v3.29 accept the same
selectors, and also line breaks inside ``all( )``, ``not in`` and the like; their messages differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

LONGEST_LABEL: Final = 512
"""MaxLabelLength of the tokenizer, in characters."""

DEEPEST: Final = 64
"""Parentheses inside parentheses that are followed. Calico has no limit; beyond it a selector is said to be unread."""


class SelectorError(ValueError):
    """A selector that Calico refuses. ``problem`` is Calico's message, ``position`` counts characters from 0."""

    def __init__(self, problem: str, position: int, text: str) -> None:
        """Say what is wrong, and where."""
        self.problem, self.position = problem, position
        around = text[max(0, position - 20) : position + 20]
        super().__init__(f"{problem}, at character {position} of {len(text)} (…{around}…)" if text else problem)


# ------------------------------------------------------------------------------------------------------------ the tree


@dataclass(frozen=True, slots=True)
class Comparison:
    """``label <operator> "value"``. ``operator`` is ``==``, ``!=``, ``contains``, ``starts with`` or ``ends with``."""

    label: str
    operator: str
    value: str


@dataclass(frozen=True, slots=True)
class Membership:
    """``label in {…}``, or with ``negated`` ``label not in {…}``. ``values`` are sorted, without repetitions."""

    label: str
    values: tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Has:
    """``has(label)``."""

    label: str


@dataclass(frozen=True, slots=True)
class Everything:
    """``all()`` or ``global()``: true for all labels. Where ``global()`` means more, it was replaced before."""

    name: str = "all"


@dataclass(frozen=True, slots=True)
class Not:
    """``!operand``."""

    operand: Node


@dataclass(frozen=True, slots=True)
class Combination:
    """``(a && b && …)`` or ``(a || b || …)``, of two operands or more."""

    operator: str
    operands: tuple[Node, ...]


Node = Comparison | Membership | Has | Everything | Not | Combination


# -------------------------------------------------------------------------------------------------------------- parser


class _Token(NamedTuple):
    kind: str
    value: str
    position: int

    def __str__(self) -> str:
        return f"Tok{self.kind}({self.value})"


_SIGNS: Final = {
    "(": "LParen",
    ")": "RParen",
    "{": "LBrace",
    "}": "RBrace",
    ",": "Comma",
}
_DOUBLED: Final = {"=": "Eq", "&": "And", "|": "Or"}
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_./-]*")
_OPERATORS: Final = tuple(
    (kind, re.compile(rf"{words}(?![A-Za-z0-9_./-])"))
    for kind, words in (
        ("Contains", "contains"),
        # blanks behind "with" belong to the operator, and what follows them must not go on a word
        ("StartsWith", r"starts[ \t]*with[ \t]*+"),
        ("EndsWith", r"ends[ \t]*with[ \t]*+"),
        ("NotIn", r"not[ \t]*in[ \t]*+"),
        ("In", "in"),
    )
)
_CALLS: Final = (("Has", "has("), ("All", "all("), ("Global", "global("))
_COMPARISONS: Final = {
    "Eq": "==",
    "Ne": "!=",
    "Contains": "contains",
    "StartsWith": "starts with",
    "EndsWith": "ends with",
}


class Parser:
    """Recursive descent over the tokens, lowest precedence first: ``||``, ``&&``, ``!`` and the rest."""

    def __init__(self, text: str) -> None:
        """Take the text to tokens. Raises `SelectorError`."""
        self._text = text
        self._tokens = list(self._tokenize())
        self._next = 0
        self._depth = 0

    def parse(self) -> Node:
        """The tree; of an empty text, ``all()``. Raises `SelectorError`."""
        if self._kind() == "EOF":
            return Everything()
        node = self._expression()
        if self._kind() != "EOF":
            rest = " ".join(str(token) for token in self._tokens[self._next :][:16])
            raise self._error(f"unexpected content at end of selector [{rest}]")
        return node

    # ------------------------------------------------------------------------------------------------ tokens

    def _tokenize(self) -> Iterator[_Token]:
        token, at = _Token("None", "", 0), 0
        while token.kind != "EOF":
            token, at = self._token(self._blanks(at), token)
            yield token

    def _blanks(self, at: int) -> int:
        while self._text[at : at + 1] in (" ", "\t"):
            at += 1
        return at

    def _token(self, at: int, last: _Token) -> tuple[_Token, int]:
        """The token at a position that is no blank, and the position behind it."""
        text = self._text
        if at == len(text):
            return _Token("EOF", "", at), at
        sign = text[at]
        if sign in _SIGNS:
            return _Token(_SIGNS[sign], "", at), at + 1
        if sign in "'\"":
            end = text.find(sign, at + 1)
            if end < 0:
                raise SelectorError("unterminated string", at, text)
            return _Token("StringLiteral", text[at + 1 : end], at), end + 1
        if sign in _DOUBLED:
            if text[at + 1 : at + 2] != sign:
                raise SelectorError(f"expected {sign * 2}", at, text)
            return _Token(_DOUBLED[sign], "", at), at + 2
        if sign == "!":
            return (_Token("Ne", "", at), at + 2) if text[at + 1 : at + 2] == "=" else (_Token("Not", "", at), at + 1)
        return self._word(at, last)

    def _word(self, at: int, last: _Token) -> tuple[_Token, int]:
        text = self._text
        if last.kind == "Label":
            for kind, words in _OPERATORS:
                if found := words.match(text, at):
                    return _Token(kind, "", at), found.end()
            raise SelectorError(f'expected operator after label "{last.value}"', at, text)
        for kind, call in _CALLS:
            if text.startswith(call, at):
                name, end = "", self._blanks(at + len(call))
                if kind == "Has":
                    name, end = self._identifier(end)
                    end = self._blanks(end)
                if text[end : end + 1] != ")":
                    raise SelectorError(f"no closing ')' after {call}", end, text)
                return _Token(kind, name, at), end + 1
        name, end = self._identifier(at)
        return _Token("Label", name, at), end

    def _identifier(self, at: int) -> tuple[str, int]:
        found = _IDENTIFIER.match(self._text, at)
        name = found[0] if found else ""
        if not name:
            raise SelectorError("expected identifier", at, self._text)
        if len(name) > LONGEST_LABEL:
            raise SelectorError(f"label too long: {name[:LONGEST_LABEL]}…", at, self._text)
        return name, at + len(name)

    # --------------------------------------------------------------------------------------------- expressions

    def _kind(self, ahead: int = 0) -> str:
        return self._tokens[self._next + ahead].kind

    def _take(self) -> _Token:
        self._next += 1
        return self._tokens[self._next - 1]

    def _error(self, problem: str) -> SelectorError:
        return SelectorError(problem, self._tokens[self._next].position, self._text)

    def _expression(self) -> Node:
        return self._combination("||", "Or", lambda: self._combination("&&", "And", self._operation))

    def _combination(self, operator: str, kind: str, operand: Callable[[], Node]) -> Node:
        operands = [operand()]
        while self._kind() == kind:
            self._take()
            operands.append(operand())
        return operands[0] if len(operands) == 1 else Combination(operator, tuple(operands))

    def _operation(self) -> Node:
        negated = False
        while self._kind() == "Not":
            self._take()
            negated = not negated
        node = self._positive()
        return Not(node) if negated else node

    def _positive(self) -> Node:
        kind = self._kind()
        if kind == "Has":
            return Has(self._take().value)
        if kind in ("All", "Global"):
            return Everything(self._take().kind.lower())
        if kind == "Label":
            return self._comparison()
        if kind == "LParen":
            return self._parenthesis()
        raise self._error(f"unexpected token: {self._tokens[self._next]}")

    def _parenthesis(self) -> Node:
        if self._depth == DEEPEST:
            raise self._error(f"more than {DEEPEST} parentheses inside each other, which are not followed here")
        self._take()
        self._depth += 1
        node = self._expression()
        self._depth -= 1
        if self._kind() != "RParen":
            raise self._error("expected )")
        self._take()
        return node

    def _comparison(self) -> Node:
        if self._kind(1) == "EOF":
            raise self._error("unexpected end of string looking for op")
        label, operator = self._take().value, self._tokens[self._next]
        if operator.kind in _COMPARISONS:
            self._take()
            if self._kind() != "StringLiteral":
                raise self._error("expected string")
            return Comparison(label, _COMPARISONS[operator.kind], self._take().value)
        if operator.kind not in ("In", "NotIn"):
            raise self._error(f"expected == or != not: {operator}")
        self._take()
        return Membership(label, self._set(), negated=operator.kind == "NotIn")

    def _set(self) -> tuple[str, ...]:
        if self._kind() != "LBrace":
            raise self._error("expected set literal")
        self._take()
        values = set()
        while self._kind() == "StringLiteral":
            values.add(self._take().value)
            if self._kind() != "Comma":
                break
            self._take()  # a comma behind the last value is allowed
        if self._kind() != "RBrace":
            raise self._error("expected }")
        self._take()
        return tuple(sorted(values))
