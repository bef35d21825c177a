"""What a rule of the kernel matches, in words close to nft's: for rules whose policy object is not known.

Only conditions are told; marks, counters and verdicts are how Felix puts them together.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, collapse_addresses, summarize_address_range
from typing import TYPE_CHECKING, Final

from calico_debug.decode.nft_fields import HEADERS
from calico_debug.errors import EvidenceError
from calico_debug.explain.evaluation import mark_test
from calico_debug.explain.listing.names import protocol_word
from calico_debug.explain.listing.policy_view import SetUse
from calico_debug.model.nft import (
    Bitwise,
    Concat,
    ConnectionLimit,
    Ct,
    Fib,
    Interval,
    Limit,
    Lookup,
    Match,
    Meta,
    NamePrefix,
    Payload,
    Quota,
    Recent,
    SetContent,
    UnknownStatement,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from calico_debug.model.nft import Expression, Key, Rule, Ruleset, Scalar, SetSource

EVERYTHING: Final = "everything"

_IPSET_PORTS: Final = {0: "sport", 16: "dport"}
_SIDES: Final = {"saddr": "source", "daddr": "destination", "sport": "source port", "dport": "destination port"}
_SHOWN: Final = 8
"""Elements of a set written in a rule that are shown."""


def _fields(header: str) -> dict[tuple[str, int, int], str]:
    found = HEADERS[header]
    return {(found.base, found.start + field.offset, field.width): name for name, field in found.fields.items()}


_PAYLOADS: Final = {
    "ip": {**_fields("th"), **_fields("ip")},
    "ip6": {**_fields("th"), **_fields("ip6")},
}
_ICMP: Final = {("transport", 0, 8): "icmp type", ("transport", 8, 8): "icmp code"}
_ADDRESS_BITS: Final = {"ip": 32, "ip6": 128}


def rule_text(rule: Rule) -> str:
    """The conditions of a rule, `EVERYTHING` without any."""
    return ", ".join(_conditions(rule)) or EVERYTHING


def set_uses(ruleset: Ruleset, rules: Iterable[Rule]) -> tuple[SetUse, ...]:
    """The named sets that rules look into, with their members; without members where those cannot be read."""
    found: dict[tuple[str, str], SetUse] = {}
    for rule in rules:
        for statement in rule.statements:
            if isinstance(statement, Lookup) and isinstance(statement.source, str):
                side = _side(statement, rule.family)
                name = statement.source
                members = _members(ruleset, rule, statement.key, name)
                found.setdefault((side, name), SetUse(side, name, members))
    return tuple(found.values())


def members(content: SetContent, key: Expression, family: str) -> Iterator[tuple[Interval | None, str]]:
    """The elements of a set: the addresses that each is about, None where it is about none, and the whole in words.

    ``key`` is what rules look up in the set.
    """
    for element in sorted((*content.exact.values(), *content.ranged), key=lambda one: _order(one.key)):
        yield _address_part(element.key, key, family), _key_text(element.key, key, family)


def _address_part(key: Key, expression: Expression, family: str) -> Interval | None:
    keys = key if isinstance(key, tuple) else (key,)
    parts = expression.parts if isinstance(expression, Concat) else (expression,)
    for one, part in zip(keys, parts, strict=False):
        if _is_address(part, family):
            if isinstance(one, Interval):
                return one
            return Interval(one, one) if isinstance(one, int) else None
    return None


def _order(key: Key) -> tuple[tuple[int, str], ...]:
    """Numbers by their size, an interval by its lower end, names by their letters."""
    parts = key if isinstance(key, tuple) else (key,)
    return tuple(
        (part, "") if isinstance(part, int) else (part.low, "") if isinstance(part, Interval) else (0, str(part))
        for part in parts
    )


def _members(ruleset: Ruleset, rule: Rule, key: Expression, name: str) -> tuple[str, ...] | None:
    try:
        content = ruleset.elements(rule.family, rule.table, name)
    except EvidenceError:
        return None
    return tuple(text for _, text in members(content, key, rule.family)) if content is not None else None


def _side(lookup: Lookup, family: str) -> str:
    key = lookup.key.parts[0] if isinstance(lookup.key, Concat) else lookup.key
    side = _SIDES.get(_name(key, family), _name(key, family))
    if isinstance(lookup.key, Concat):
        side += " with port"
    return f"not {side}" if lookup.negated else side


def _conditions(rule: Rule) -> Iterator[str]:
    for statement in rule.statements:
        if isinstance(statement, Match):
            if mark_test(statement) is None:
                yield _match(statement, rule.family)
        elif isinstance(statement, Lookup):
            word = "not in" if statement.negated else "in"
            yield f"{_name(statement.key, rule.family)} {word} {_source(statement.source, statement.key, rule.family)}"
        elif isinstance(statement, Limit):
            yield f"{'over' if statement.over else 'up to'} {statement.rate} {statement.unit} a {statement.per}"
        elif isinstance(statement, ConnectionLimit):
            yield f"{'over' if statement.over else 'up to'} {statement.count} connections"
        elif isinstance(statement, Quota):
            yield f"{'over' if statement.over else 'up to'} {statement.bytes} bytes"
        elif isinstance(statement, Recent) and statement.operation != "set":
            yield f"{'not ' if statement.negated else ''}in the list {statement.name} of recent addresses"
        elif isinstance(statement, UnknownStatement):
            yield f"unknown: {statement.text}"


def _match(match: Match, family: str) -> str:
    value = match.right if isinstance(match.right, NamePrefix) else _value(match.right, match.left, family)
    value = f"{value.prefix}*" if isinstance(value, NamePrefix) else value
    operator = {"==": "", "!=": "not "}.get(match.operator, f"{match.operator} ")
    return f"{_name(match.left, family)} {operator}{value}"


def _name(expression: Expression, family: str) -> str:
    if isinstance(expression, Payload):
        return _payload(expression, family)
    if isinstance(expression, Meta):
        return "protocol" if expression.key == "l4proto" else expression.key
    if isinstance(expression, Ct):
        return f"ct {expression.key}"
    if isinstance(expression, Fib):
        return f"fib {' '.join(sorted(expression.selectors))} {expression.result}"
    if isinstance(expression, Concat):
        return " and ".join(_name(part, family) for part in expression.parts)
    if isinstance(expression, Bitwise):
        changed = f"/{expression.mask:#x}" + (f"^{expression.xor:#x}" if expression.xor else "")
        return f"{_name(expression.operand, family)}{changed}"
    return type(expression).__name__.lower()


def _payload(payload: Payload, family: str) -> str:
    if payload.base == "ipset":
        return _IPSET_PORTS.get(payload.offset, "port")
    key = (payload.base, payload.offset, payload.width)
    known = _PAYLOADS.get(family, {}).get(key) or _ICMP.get(key)
    return known or f"{payload.width} bits at {payload.offset} of the {payload.base} header"


def _source(source: SetSource, key: Expression, family: str) -> str:
    if isinstance(source, str):
        return f"set {source}"
    found = [text for _, text in members(source, key, family)]
    more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{{{', '.join(found[:_SHOWN])}{more}}}"


def _key_text(key: Key, expression: Expression, family: str) -> str:
    if isinstance(key, tuple):
        parts = expression.parts if isinstance(expression, Concat) else (expression,) * len(key)
        return " ".join(_value(one, part, family) for one, part in zip(key, parts, strict=False))
    return _value(key, expression, family)


def _value(value: Scalar, expression: Expression, family: str) -> str:
    if isinstance(value, NamePrefix):
        return f"{value.prefix}*"
    if isinstance(value, str):
        return value
    while isinstance(expression, Bitwise):
        if not isinstance(value, Interval) and not _is_address(expression.operand, family):
            return f"{value:#x}"
        expression = expression.operand
    if _is_address(expression, family):
        return _addresses(value, family)
    if isinstance(value, Interval):
        return f"{value.low}-{value.high}"
    if isinstance(expression, Meta) and expression.key == "l4proto":
        return protocol_word(value)
    if isinstance(expression, Ct) and expression.key in ("state", "status"):
        return f"{value:#x}"
    return str(value)


def _is_address(expression: Expression, family: str) -> bool:
    return (
        isinstance(expression, Payload)
        and expression.base == "network"
        and expression.width == _ADDRESS_BITS.get(family)
    )


def _addresses(value: int | Interval, family: str) -> str:
    kind = IPv4Address if family == "ip" else IPv6Address
    if not isinstance(value, Interval):
        return str(kind(value))
    low, high = kind(value.low), kind(value.high)
    networks = list(collapse_addresses(summarize_address_range(low, high)))  # type: ignore[type-var]
    return str(networks[0]) if len(networks) == 1 else f"{low}-{high}"
