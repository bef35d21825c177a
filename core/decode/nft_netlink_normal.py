"""What nft does to a rule on its way into the kernel, undone: one form for rules, wherever they were read.

* Neighbouring header fields that are compared with constants are loaded at once (src/rule.c, payload merging).
* A prefix of whole bytes is loaded as those bytes only (src/netlink_linearize.c, netlink_gen_relational).
* A range is two comparisons.
* A field narrower than its bytes is loaded with its neighbours and masked (src/payload.c, payload_expr_expand).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from calico_debug.decode import nft_fields
from calico_debug.model.nft import (
    Bitwise,
    Constant,
    Interval,
    Match,
    Meta,
    Payload,
    SetContent,
    SetPayload,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.model.nft import Expression, Key, Scalar, Statement

_WITH_PREFIX = ("ipv4_addr", "ipv6_addr", "ether_addr")
_BY_NUMBER = {number: name for name, number in nft_fields.TRANSPORT_PROTOCOLS.items()}


class MatchContext:
    """Which protocols a rule has asked for so far, and with that which header a load of bytes is from."""

    def __init__(self, family: str) -> None:
        """At the beginning of a rule of this family."""
        self.network = family if family in nft_fields.NETWORK_PROTOCOLS else ""
        self._transport = ""

    def compare(self, statements: list[Statement], left: Expression, operator: str, value: int) -> None:
        """Add ``left operator value`` to ``statements``."""
        if operator == "<=" and statements:
            # nft writes a range as >= and <= over the same register.
            before = statements[-1]
            if isinstance(before, Match) and before.operator == ">=" and isinstance(before.right, int):
                expression, right = narrow(left, Interval(before.right, value))
                if before.left == left or before == Match(narrow(left, before.right)[0], ">=", before.right):
                    statements[-1] = Match(expression, "==", right)
                    return
        if isinstance(left, Payload):
            matches = self._split(left, operator, value)
            statements.extend(matches)
            for match in matches:
                self._learn(match)
            return
        expression, right = narrow(left, value)
        match = Match(expression, operator, right)
        statements.append(match)
        self._learn(match)

    def set_payload(self, target: Payload, value: Expression) -> SetPayload:
        """Write ``value``; bits that it takes from the packet itself are no part of the write."""
        if isinstance(value, Bitwise) and value.operand == target:
            written = ~value.mask & ((1 << target.width) - 1)
            tail = (written & -written).bit_length() - 1 if written else 0
            size = (written >> tail).bit_length()
            if written and written == ((1 << size) - 1) << tail and not value.xor & ~written:
                offset = target.offset + target.width - tail - size
                return SetPayload(Payload(target.base, offset, size), Constant(value.xor >> tail))
        return SetPayload(target, value)

    def _learn(self, match: Match) -> None:
        if match.operator != "==" or not isinstance(match.right, int):
            return
        if match.left in _PROTOCOL_FIELDS:
            self._transport = _BY_NUMBER.get(match.right, "")
        elif match.left in _NETWORK_FIELDS:
            position = 0 if match.left == Meta("nfproto") else 1
            for name, numbers in nft_fields.NETWORK_PROTOCOLS.items():
                if numbers[position] == match.right:
                    self.network = name

    def _fields(self, base: str) -> Sequence[tuple[int, int, bool]]:
        """(offset, width, whether prefixes make sense) of the header's fields of whole bytes."""
        name = {"network": self.network, "transport": self._transport or "th", "link": "ether"}.get(base, "")
        header = nft_fields.HEADERS.get(name)
        if header is None:
            return ()
        whole = [f for f in header.fields.values() if f.offset % 8 == 0 and f.width % 8 == 0]
        return [(header.start + f.offset, f.width, f.type in _WITH_PREFIX) for f in whole]

    def _split(self, load: Payload, operator: str, value: int) -> list[Match]:
        whole = [Match(load, operator, value)]
        fields = self._fields(load.base)
        if operator not in ("==", "!=") or any(field[:2] == (load.offset, load.width) for field in fields):
            return whole
        matches, offset, left = [], load.offset, load.width
        while left:
            width, prefixes = next(((width, p) for start, width, p in fields if start == offset), (0, False))
            if not width or (left < width and not prefixes):
                return whole
            field = Payload(load.base, offset, width)
            taken = min(width, left)
            part = value >> (left - taken) & ((1 << taken) - 1)
            if taken == width:
                matches.append(Match(field, operator, part))
            else:
                missing = width - taken
                mask = ((1 << taken) - 1) << missing
                matches.append(Match(Bitwise(field, mask, 0), operator, part << missing))
            offset, left = offset + taken, left - taken
        return matches if operator == "==" or len(matches) == 1 else whole


def _narrow_field(expression: Expression) -> tuple[Payload, int] | None:
    """The field of less than whole bytes that a masked load stands for, and the bits behind it in the load."""
    if not isinstance(expression, Bitwise) or expression.xor or not isinstance(expression.operand, Payload):
        return None
    load = expression.operand
    field = nft_fields.SUB_BYTE_FIELDS.get((load.base, load.offset, load.width, expression.mask))
    if field is None:
        return None
    offset, width = field
    return Payload(load.base, offset, width), load.offset + load.width - offset - width


def narrow(expression: Expression, value: int | Interval) -> tuple[Expression, int | Interval]:
    """The field itself and the value moved to it, where ``expression`` is a mask for a field within bytes."""
    found = _narrow_field(expression)
    if found is None:
        return expression, value
    field, tail = found
    if isinstance(value, int):
        return (field, value >> tail) if value == value >> tail << tail else (expression, value)
    return field, Interval(-(-value.low >> tail), value.high >> tail)


def narrow_key(expression: Expression) -> Expression:
    """The field itself where the mask for it leaves its value as it is, so that any set fits both."""
    found = _narrow_field(expression)
    return found[0] if found and not found[1] else expression


def narrow_set(expressions: Sequence[Expression], content: SetContent) -> tuple[list[Expression], SetContent]:
    """The same for a key and the elements of a rule's own set."""
    found = [_narrow_field(expression) for expression in expressions]
    if not any(found):
        return list(expressions), content
    tails = [entry[1] if entry else 0 for entry in found]
    fields = [entry[0] if entry else expression for entry, expression in zip(found, expressions, strict=True)]
    exact, ranged = {}, []
    for element in (*content.exact.values(), *content.ranged):
        key = _moved_key(element.key, tails)
        if key is None:
            return list(expressions), content
        moved = replace(element, key=key)
        if isinstance(key, Interval) or (isinstance(key, tuple) and any(isinstance(p, Interval) for p in key)):
            ranged.append(moved)
        else:
            exact[key] = moved
    widths = tuple(f.width if e else w for e, f, w in zip(found, fields, content.widths, strict=True))  # type: ignore[union-attr]
    return fields, replace(content, widths=widths, exact=exact, ranged=tuple(ranged))  # type: ignore[arg-type]


def _moved_key(key: Key, tails: Sequence[int]) -> Key | None:
    parts = key if isinstance(key, tuple) else (key,)
    moved = [_moved(part, tail) for part, tail in zip(parts, tails, strict=True)]
    if any(part is None for part in moved):
        return None
    return tuple(moved) if isinstance(key, tuple) else moved[0]  # type: ignore[arg-type]


def _moved(value: Scalar, tail: int) -> Scalar | None:
    """The value without ``tail`` bits behind it; None when those are not zero."""
    if not tail:
        return value
    if isinstance(value, Interval):
        low, high = -(-value.low >> tail), value.high >> tail
        return low if low == high else Interval(low, high)
    if isinstance(value, int) and value == value >> tail << tail:
        return value >> tail
    return None


_PROTOCOL_FIELDS = (
    Meta("l4proto"),
    nft_fields.field_payload("ip", "protocol")[0],
    nft_fields.field_payload("ip6", "nexthdr")[0],
)
_NETWORK_FIELDS = (
    Meta("nfproto"),
    Meta("protocol"),
    nft_fields.field_payload("ether", "type")[0],
    nft_fields.field_payload("vlan", "type")[0],
)
