"""What rules of the kernel want of packets, as boxes understand it. Semantics: see `calico_debug.model.nft`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from calico_debug.errors import EvidenceError
from calico_debug.hits.boxes import NOTHING, Conditions, Field, Values, common, field_of, ranges, without
from calico_debug.model.nft import (
    Bitwise,
    ConnectionLimit,
    Interval,
    Limit,
    Lookup,
    Match,
    Meta,
    Payload,
    Quota,
    Recent,
)

if TYPE_CHECKING:
    from calico_debug.model.nft import Expression, Key, Rule, Ruleset

BYTE: Final = 8
IN_SET: Final = ((1, 1),)
NOT_IN_SET: Final = ((0, 0),)
LIMITS: Final = (Limit, Quota, ConnectionLimit, Recent)
"""Statements that end a rule for some packets, whatever those are."""


def mark_bit(position: int) -> Field:
    """The field for one bit of the packet's mark."""
    return field_of(("mark", position), 1, True)


class Reader:
    """Reads the conditions of rules. With ``members`` sets are what they hold now, without they may hold anything."""

    def __init__(self, ruleset: Ruleset, *, members: bool) -> None:
        """Sets are read from ``ruleset`` when they are met."""
        self._ruleset = ruleset
        self._members = members
        self._known: dict[int, tuple[Rule, Conditions]] = {}
        self._sets: dict[tuple[str, str, str], Values | None] = {}

    def conditions(self, rule: Rule) -> Conditions:
        """What a packet must have to match. Raises `EvidenceError` when a set cannot be read."""
        known = self._known.get(id(rule))
        if known is None:
            known = self._known[id(rule)] = (rule, self._read(rule))
        return known[1]

    def _read(self, rule: Rule) -> Conditions:
        wanted: list[tuple[Field, Values]] = []
        exact = True
        for statement in rule.statements:
            found: list[tuple[Field, Values]] | None = []
            if isinstance(statement, Match):
                found = _mark(statement) if _is_mark(statement.left) else _compared(statement)
            elif isinstance(statement, Lookup):
                found = self._looked_up(statement, rule)
            elif isinstance(statement, LIMITS):
                found = None
            if found is None:
                exact = False
            else:
                wanted += found
        return Conditions(tuple(wanted), exact)

    def _looked_up(self, lookup: Lookup, rule: Rule) -> list[tuple[Field, Values]] | None:
        source = lookup.source
        field = plain_field(lookup.key)
        values: Values | None = None
        if not isinstance(source, str):
            values = _values([element.key for element in (*source.exact.values(), *source.ranged)])
            if source.default is not None or field is None or values is None:
                return None
        elif self._members:
            values = self._elements(rule.family, rule.table, source)
        if values == NOTHING and not lookup.negated:
            # Nothing is in an empty set, whatever the key
            return [(field or _opaque(lookup, source), NOTHING)]
        if values is not None and field is not None:
            return [(field, without(field.known, values) if lookup.negated else common(field.known, values))]
        return [(_opaque(lookup, source), NOT_IN_SET if lookup.negated else IN_SET)]

    def _elements(self, family: str, table: str, name: str) -> Values | None:
        """Values of a set with one field, none of an empty set; None of others, and where the set is not known."""
        key = (family, table, name)
        if key not in self._sets:
            content = self._ruleset.elements(*key)
            found = None
            if content is not None and content.default is None:
                found = _values([element.key for element in (*content.exact.values(), *content.ranged)])
            self._sets[key] = found
        return self._sets[key]


def try_conditions(reader: Reader, rule: Rule) -> Conditions:
    """The conditions of a rule; of one whose sets cannot be read, none that is understood."""
    try:
        return reader.conditions(rule)
    except EvidenceError:
        return Conditions(exact=False)


def _opaque(lookup: Lookup, source: object) -> Field:
    """Whether a key is in a set, as a field of its own: it is the same for every rule that asks."""
    return Field(("in", lookup.key, source), 1)


def plain_field(expression: Expression) -> Field | None:
    """The field that an expression reads whole, None for others. The values that ipset takes for ports are not."""
    if isinstance(expression, Payload) and expression.base != "ipset":
        # Rules for one family meet packets of that family, whole header and all
        return field_of(expression, expression.width, expression.base == "network")
    if expression == Meta("l4proto"):
        return field_of(expression, BYTE)
    return None


def _values(keys: list[Key]) -> Values | None:
    found = []
    for key in keys:
        if isinstance(key, Interval):
            found.append((key.low, key.high))
        elif isinstance(key, int):
            found.append((key, key))
        else:
            return None
    return ranges(found)


def _compared(match: Match) -> list[tuple[Field, Values]] | None:
    field, right = plain_field(match.left), match.right
    if field is None and isinstance(match.left, Bitwise) and isinstance(right, int):
        field = plain_field(match.left.operand)
        low, high = _prefix(match.left, right, field.width) if field is not None else (0, -1)
        right = Interval(low, high)
        if low > high:
            return None
    if field is None or not isinstance(right, int | Interval):
        return None
    low, high = (right.low, right.high) if isinstance(right, Interval) else (right, right)
    values: Values = ((low, high),)
    known = field.known
    found = {
        "==": values,
        "!=": without(known, values),
        "<": ((0, low - 1),),
        "<=": ((0, high),),
        ">": ((high + 1, known[0][1]),),
        ">=": ((low, known[0][1]),),
    }.get(match.operator)
    return None if found is None else [(field, common(known, ranges(found)))]


def _prefix(masked: Bitwise, value: int, width: int) -> tuple[int, int]:
    """The range whose leading bits are compared; an empty one where the mask is not that of a prefix."""
    whole = (1 << width) - 1
    hosts = whole & ~masked.mask
    if masked.xor or masked.mask & ~whole or hosts & (hosts + 1) or value & hosts:
        return 0, -1
    return value, value | hosts


def _is_mark(expression: Expression) -> bool:
    while isinstance(expression, Bitwise):
        expression = expression.operand
    return expression == Meta("mark")


def _mark(match: Match) -> list[tuple[Field, Values]] | None:
    """A comparison of bits of the mark, one field for each bit."""
    left, right = match.left, match.right
    if not isinstance(right, int):
        return None
    mask, flipped = 0xFFFFFFFF, 0
    if isinstance(left, Bitwise):
        if left.operand != Meta("mark"):
            return None
        mask, flipped = left.mask, left.xor
    wanted = right ^ flipped
    if wanted & ~mask:
        return None
    bits = [position for position in range(32) if mask >> position & 1]
    if match.operator == "==":
        return [(mark_bit(bit), _bit(wanted >> bit & 1)) for bit in bits]
    if match.operator == "!=" and len(bits) == 1:
        return [(mark_bit(bits[0]), _bit(1 - (wanted >> bits[0] & 1)))]
    return None


def _bit(value: int) -> Values:
    return ((value, value),)
