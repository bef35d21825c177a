"""The one normalisation before rules from the two nft decoders are compared.

nft's listing drops and moves what means the same, so within a run of matches and lookups (which have no effect of their
own, so their order does not matter) order and repetition are ignored, and what asks for the same protocol counts as the
same question: ``ip protocol tcp`` and ``meta l4proto tcp``; ``ether type ip``, ``meta protocol ip``, ``meta nfproto
ipv4``. Interface indexes become names, and texts that are for people only are left out.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from calico_debug.decode.nft_fields import NETWORK_PROTOCOLS, field_payload
from calico_debug.model.nft import (
    Harmless,
    Lookup,
    Match,
    Meta,
    SetContent,
    UnknownExpression,
    UnknownStatement,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from calico_debug.model.nft import Statement

TRANSPORT_QUESTIONS = (field_payload("ip", "protocol")[0], field_payload("ip6", "nexthdr")[0])
LINK_QUESTIONS = (field_payload("ether", "type")[0], Meta("protocol"))
NFPROTO = {ethertype: number for number, ethertype in NETWORK_PROTOCOLS.values()}


def normalised(statements: Iterable[Statement], names: Mapping[int, str]) -> list[Any]:
    """Statements as plain tuples that compare equal when they mean the same; ``names`` are interfaces by index."""
    result: list[Any] = []
    conditions: set[str] = set()
    for statement in statements:
        if isinstance(statement, Match | Lookup):
            conditions.add(repr(plain(_question(statement, names))))
            continue
        result += [sorted(conditions), plain(statement)]
        conditions = set()
    return [*result, sorted(conditions)]


def _question(statement: Match | Lookup, names: Mapping[int, str]) -> Match | Lookup:
    if isinstance(statement, Lookup):
        return statement
    left, right = statement.left, statement.right
    if left in (Meta("iif"), Meta("oif")) and isinstance(right, int):
        return Match(Meta(f"{left.key}name"), statement.operator, names.get(right, str(right)))  # type: ignore[union-attr]
    if statement.operator == "==" and isinstance(right, int):
        if left in TRANSPORT_QUESTIONS:
            return Match(Meta("l4proto"), "==", right)
        if left in LINK_QUESTIONS and right in NFPROTO:
            return Match(Meta("nfproto"), "==", NFPROTO[right])
    return statement


def plain(value: Any) -> Any:
    """Dataclasses as nested tuples with their type's name; element order and people's texts do not count."""
    if isinstance(value, UnknownExpression | UnknownStatement | Harmless):
        return type(value).__name__
    if isinstance(value, SetContent):
        elements = sorted(repr(plain(element)) for element in (*value.exact.values(), *value.ranged))
        return ("SetContent", value.widths, elements, plain(value.default), value.is_map)
    if is_dataclass(value):
        return (type(value).__name__, *(plain(getattr(value, f.name)) for f in fields(value) if f.compare))
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, frozenset):
        return tuple(sorted(value))
    return value
