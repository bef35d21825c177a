"""Comparisons with three answers: yes, no, and it depends.

Every function returns True, False or `Unsure`. Source for the semantics: Linux net/netfilter/nft_cmp.c, nft_range.c,
nft_lookup.c; string comparison of interface names as nft_cmp does on IFNAMSIZ bytes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from calico_debug.model.nft import Element, Interval, Key, NamePrefix, Scalar, SetContent
from calico_debug.model.values import Drawn, Open, Partial, Value
from calico_debug.walk.choices import Kind, Unsure

Answer = bool | Unsure

_EXACT: dict[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


def unsure(value: Open) -> Unsure:
    """The answer "it depends" for a value that is not settled."""
    return Unsure(Kind.BACKEND if isinstance(value, Drawn) else Kind.UNKNOWN, value.why)


def opposite(answer: Answer) -> Answer:
    """The answer of the negated question."""
    return answer if isinstance(answer, Unsure) else not answer


def compare(left: Value, sign: str, right: Scalar) -> Answer:
    """``left sign right`` as a rule's match evaluates it."""
    if isinstance(left, int) and isinstance(right, int):
        return _EXACT[sign](left, right)
    if sign == "==":
        return holds(left, right)
    if sign == "!=":
        return opposite(holds(left, right))
    if isinstance(left, Partial | Drawn) and isinstance(right, int):
        return _order(left, sign, right)
    return Unsure(Kind.UNKNOWN, f"comparison of {left!r} {sign} {right!r} is not understood")


def holds(value: Value, scalar: Scalar) -> Answer:
    """Whether ``value`` is, or lies in, one field of a key."""
    if isinstance(scalar, Interval):
        return _within(value, scalar)
    if isinstance(scalar, NamePrefix):
        if isinstance(value, str):
            return value.startswith(scalar.prefix)
        return _depends(value)
    if isinstance(value, Partial | Drawn):
        if isinstance(scalar, str):
            return unsure(value)
        if not value.may_equal(scalar):
            return False
        return True if value.lowest == value.highest else unsure(value)
    return value == scalar


def _within(value: Value, interval: Interval) -> Answer:
    if isinstance(value, int):
        return interval.low <= value <= interval.high
    if isinstance(value, str):
        return False
    if value.highest < interval.low or value.lowest > interval.high:
        return False
    if interval.low <= value.lowest and value.highest <= interval.high:
        return True
    return unsure(value)


def _order(left: Open, sign: str, right: int) -> Answer:
    at_lowest, at_highest = _EXACT[sign](left.lowest, right), _EXACT[sign](left.highest, right)
    return at_lowest if at_lowest == at_highest else unsure(left)


def _depends(value: Value) -> Answer:
    return unsure(value) if isinstance(value, Partial | Drawn) else False


def matches_key(values: tuple[Value, ...], key: Key) -> Answer:
    """Whether every field of a lookup key matches the element's; fields beyond the shorter one do not match."""
    fields = key if isinstance(key, tuple) else (key,)
    if len(fields) != len(values):
        return False
    doubt: Unsure | None = None
    for value, scalar in zip(values, fields, strict=True):
        answer = holds(value, scalar)
        if answer is False:
            return False
        if isinstance(answer, Unsure):
            doubt = answer
    return doubt or True


def candidates(content: SetContent, values: tuple[Value, ...]) -> tuple[list[Element], Unsure | None]:
    """Elements that a key can meet, the certain one alone if there is one, and the doubt if there is any.

    With a doubt, the key may also meet the catch-all element or none: the catch-all is then among the candidates.
    They are in the order of their keys: that of listings is not the same over netlink and in nft's JSON.
    """
    possible: list[tuple[Element, Unsure]] = []
    for element in (*content.exact.values(), *content.ranged):
        answer = matches_key(values, element.key)
        if answer is True:
            return [element], None
        if isinstance(answer, Unsure):
            possible.append((element, answer))
    possible.sort(key=lambda entry: _place(entry[0].key))
    found = [element for element, _ in possible]
    if content.default is not None:
        found.append(content.default)
    return found, possible[-1][1] if possible else None


def _place(key: Key) -> tuple[tuple[int, int, str], ...]:
    """What keys are sorted by, field by field."""
    return tuple(
        (field.low, field.high, "")
        if isinstance(field, Interval)
        else (field, field, "")
        if isinstance(field, int)
        else (0, 0, field.prefix if isinstance(field, NamePrefix) else field)
        for field in (key if isinstance(key, tuple) else (key,))
    )
