"""Expressions as ``nft -j`` writes them, with the dependencies on protocols that its listing leaves out.

``tcp dport 80`` is ``meta l4proto == 6`` and then the port for the kernel; nft writes only the second. Which protocol a
rule has asked for already is kept per rule, as nft does when it loads one (src/payload.c, payload_gen_dependency).

A field narrower than its bytes (DSCP) is the field itself here, without the mask that the kernel needs for it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from calico_debug.decode import nft_fields as fields
from calico_debug.decode.nft_fields import DATA_TYPES, DataType
from calico_debug.decode.nft_json_values import NotUnderstoodError, decode_elements, decode_scalar
from calico_debug.model.nft import (
    Bitwise,
    Concat,
    Constant,
    Ct,
    Fib,
    Interval,
    Lookup,
    MapValue,
    Match,
    Meta,
    NamePrefix,
    Numgen,
    Payload,
    SetContent,
    Shift,
    UnknownExpression,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from calico_debug.model.nft import Expression, SetSource, Statement

META_ALIASES = {"secpath": "ipsec", "ibridgename": "ibrname", "obridgename": "obrname", "ibriport": "ibrname"}
NAMED_INDEX = {"iif": "iifname", "oif": "oifname", "sdif": "sdifname"}
"""nft lists an interface index by its name, so the name is what can be compared."""

ZONED_KEYS = ("time", "hour")
"""Meta keys that nft lists in the time zone of the machine it runs on, which the listing does not tell."""

FIB_INPUTS = ("saddr", "daddr", "mark", "iif", "oif")
OPERATIONS = ("&", "|", "^", "<<", ">>")
OPERATORS = ("==", "!=", "<", ">", "<=", ">=")


def shown(value: Any) -> str:
    """A piece of JSON for the user, cut to a bearable length."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = "a value nested too deeply"
    return text if len(text) <= 200 else text[:200] + "…"


class Typed:
    """An expression with the types of its values, one for each field of a concatenation."""

    __slots__ = ("expression", "types")

    def __init__(self, expression: Expression, *types: DataType) -> None:
        """An expression and one type a field."""
        self.expression = expression
        self.types = types


class ExpressionDecoder:
    """Decodes the expressions of one rule and collects in ``statements`` what the rule does."""

    def __init__(self, family: str, decode_statement: Callable[[str, Any], Statement]) -> None:
        """For a rule of this family; ``decode_statement`` reads the statements of elements in inline sets."""
        self.family = family
        self.statements: list[Statement] = []
        self._decode_element_statement = decode_statement
        self._network = family if family in fields.NETWORK_PROTOCOLS else ""
        self._transport = -1
        self._icmp_type: tuple[int, ...] = ()
        self._link = family in ("bridge", "netdev")
        self._vlan = False

    # ------------------------------------------------------------------------------------------- dependencies

    def _require(self, protocol: str, field: str) -> None:
        """Add the matches that nft puts before a field of this protocol, unless the rule has them already."""
        if protocol in fields.TRANSPORT_PROTOCOLS:
            if protocol in fields.NETWORK_OF_TRANSPORT:
                self.require_network(fields.NETWORK_OF_TRANSPORT[protocol])
            self.require_transport(fields.TRANSPORT_PROTOCOLS[protocol])
            self._require_icmp_type(protocol, field)
        elif protocol in fields.NETWORK_PROTOCOLS:
            self.require_network(protocol)
        elif protocol in ("ether", "vlan"):
            self._require_link(vlan=protocol == "vlan")

    def require_transport(self, number: int) -> None:
        """Ask for this ``meta l4proto`` unless the rule did."""
        if self._transport != number:
            self.statements.append(Match(Meta("l4proto"), "==", number))
            self._transport = number
            self._icmp_type = ()

    def require_network(self, protocol: str) -> None:
        """Ask for ip, ip6 or arp, where the family leaves it open and the rule did not ask before."""
        if self._network == protocol:
            return
        number, ethertype = fields.NETWORK_PROTOCOLS[protocol]
        if self._vlan:
            self.statements.append(Match(fields.field_payload("vlan", "type")[0], "==", ethertype))
        elif self.family in ("bridge", "netdev"):
            self.statements.append(Match(Meta("protocol"), "==", ethertype))
        else:
            self.statements.append(Match(Meta("nfproto"), "==", number))
        self._network = protocol

    def _require_for_unknown(self, name: str, content: Any) -> None:
        if name in _NETWORK_OF_OPTION:
            self.require_network(_NETWORK_OF_OPTION[name])
        elif name == "jhash":
            self.decode(content["expr"])

    def _require_link(self, *, vlan: bool) -> None:
        if not self._link:
            self.statements.append(Match(Meta("iiftype"), "==", fields.ARPHRD_ETHER))
            self._link = True
        if vlan and not self._vlan:
            self.statements.append(Match(fields.field_payload("ether", "type")[0], "==", fields.ETHERTYPE_VLAN))
            self._vlan = True

    def _require_icmp_type(self, protocol: str, field: str) -> None:
        types = fields.ICMP_TYPE_OF_FIELD.get((protocol, field))
        if types is None or (self._icmp_type and set(self._icmp_type) <= set(types)):
            return
        kind, _ = fields.field_payload(protocol, "type")
        # Where several types have the field, nft lists the set that it made for them; only a single type is hidden.
        if len(types) == 1:
            self.statements.append(Match(kind, "==", types[0]))
            self._icmp_type = types

    def learn(self, left: Expression, operator: str, right: object) -> None:
        """Take note of what a match says about protocols."""
        if operator != "==" or not isinstance(right, int):
            return
        if left in (Meta("l4proto"), _IP_PROTOCOL, _IP6_NEXTHDR):
            if right != self._transport:
                self._transport, self._icmp_type = right, ()
        elif left in (Meta("nfproto"), Meta("protocol"), _ETHER_TYPE, _VLAN_TYPE):
            position = 0 if left == Meta("nfproto") else 1
            for protocol, numbers in fields.NETWORK_PROTOCOLS.items():
                if numbers[position] == right:
                    self._network = protocol
            self._vlan = self._vlan or (left == _ETHER_TYPE and right == fields.ETHERTYPE_VLAN)
        elif left == _ICMP_TYPE:
            self._icmp_type = (right,)
        elif left == Meta("iiftype") and right == fields.ARPHRD_ETHER:
            self._link = True

    # -------------------------------------------------------------------------------------------- expressions

    def decode(self, value: Any, wanted: DataType = DATA_TYPES["integer"]) -> Typed:
        """An expression; a bare value is a constant of the ``wanted`` type. Raises one of `MALFORMED`."""
        if isinstance(value, dict) and len(value) == 1:
            ((name, content),) = value.items()
            if name in OPERATIONS:
                return self._operation(name, content)
            handler = self._HANDLERS.get(name)
            if handler is not None:
                return handler(self, content)
            if name not in ("prefix", "range"):
                self._require_for_unknown(name, content)
                return Typed(UnknownExpression(f"{name} {shown(content)}"), DATA_TYPES["integer"])
        constant = decode_scalar(wanted, value)
        if isinstance(constant, NamePrefix | Interval):
            raise NotUnderstoodError(f"one value expected, not {shown(value)}")
        return Typed(Constant(constant), wanted)

    def _payload(self, content: Mapping[str, Any]) -> Typed:
        if "protocol" in content:
            protocol, field = content["protocol"], content["field"]
            payload, kind = fields.field_payload(protocol, field)
            self._require(protocol, field)
            return Typed(payload, kind)
        width = int(content["len"])
        if not 0 < width <= 128:
            raise NotUnderstoodError(f"payload of {width} bits")
        return Typed(Payload(fields.BASES[content["base"]], int(content["offset"]), width), DataType("integer", width))

    def _meta(self, content: Mapping[str, Any]) -> Typed:
        key = META_ALIASES.get(content["key"], content["key"])
        if key in ZONED_KEYS:
            text = f"meta {key} (the listing does not tell its time zone)"
            return Typed(UnknownExpression(text), DATA_TYPES["string"])
        kind = DATA_TYPES[fields.META_TYPES[key]]
        return Typed(Meta(NAMED_INDEX.get(key, key)), kind)

    def _ct(self, content: Mapping[str, Any]) -> Typed:
        key = content["key"]
        family = content.get("family")
        if family:
            key = f"{family} {key}"
        kind = DATA_TYPES[fields.CT_TYPES[key]]
        if key in ("saddr", "daddr"):
            key = f"{'ip6' if self.family == 'ip6' else 'ip'} {key}"
            kind = DATA_TYPES[fields.CT_TYPES[key]]
        return Typed(Ct(key, content.get("dir")), kind)

    def _fib(self, content: Mapping[str, Any]) -> Typed:
        result, flags = content["result"], content.get("flags") or ()
        selectors = frozenset([flags] if isinstance(flags, str) else flags)
        if not selectors <= set(FIB_INPUTS):
            raise NotUnderstoodError(f"fib {shown(content)}")
        return Typed(Fib(result, selectors), DATA_TYPES[fields.FIB_TYPES[result]])

    def _numgen(self, content: Mapping[str, Any]) -> Typed:
        numgen = Numgen(str(content["mode"]), int(content["mod"]), int(content.get("offset", 0)))
        return Typed(numgen, DATA_TYPES["host_integer32"])

    def _concat(self, content: Sequence[Any]) -> Typed:
        parts = [self.decode(part) for part in content]
        return Typed(Concat(tuple(part.expression for part in parts)), *(kind for part in parts for kind in part.types))

    def _map(self, content: Mapping[str, Any]) -> Typed:
        key = self.decode(content["key"])
        return Typed(MapValue(key.expression, self.source(key, content["data"], None)), DATA_TYPES["integer"])

    def map_value(self, value: Any, *wanted: DataType) -> Expression:
        """Like `decode`, where a map's data is of the ``wanted`` types."""
        if isinstance(value, dict) and "map" in value:
            key = self.decode(value["map"]["key"])
            return MapValue(key.expression, self.source(key, value["map"]["data"], wanted))
        return self.decode(value, *wanted[:1]).expression

    def _operation(self, name: str, content: Sequence[Any]) -> Typed:
        result = self.decode(content[0])
        kind = result.types[0]
        for operand in content[1:]:
            right = self.decode(operand, kind)
            if isinstance(right.expression, Constant) and isinstance(right.expression.value, int):
                result = Typed(self._apply(name, result.expression, kind, right.expression.value), kind)
            elif isinstance(result.expression, Constant) and isinstance(result.expression.value, int):
                kind = right.types[0]
                result = Typed(self._apply(name, right.expression, kind, result.expression.value), kind)
            else:
                return Typed(UnknownExpression(f"{shown(content[0])} {name} {shown(operand)}"), kind)
        return result

    @staticmethod
    def _apply(name: str, operand: Expression, kind: DataType, constant: int) -> Expression:
        if name in ("<<", ">>"):
            if isinstance(operand, Payload) and name == ">>" and constant == -(operand.offset + operand.width) % 8:
                # nft 1.0.6 shows here the shift that the kernel needs to move a narrow field to its bytes' end.
                return operand
            return Shift(operand, constant if name == "<<" else -constant)
        return fold(operand, kind.width, name, constant)

    # ---------------------------------------------------------------------------------------------------- sets

    def source(self, key: Typed, value: Any, data: Sequence[DataType] | None) -> SetSource:
        """The set behind ``@name``, or an inline one with elements of the key's types.

        ``data`` None means a set; for a map the types of its data, with none for verdicts.
        """
        if isinstance(value, str) and value.startswith("@"):
            return value[1:]
        content = value["set"]
        elements = content if isinstance(content, list) else [content]
        is_map = bool(elements) and isinstance(elements[0], list) and len(elements[0]) == 2
        kinds = data if data is not None else (() if is_map else None)
        return decode_elements(key.types, kinds, elements, self._decode_element_statement)

    # ------------------------------------------------------------------------------------------------- matches

    def match(self, content: Mapping[str, Any]) -> Statement:
        """A ``match`` statement as the kernel evaluates it."""
        operator, right = content.get("op", "=="), content["right"]
        left = self.decode(content["left"])
        if isinstance(left.expression, UnknownExpression):
            return Match(UnknownExpression(f"{left.expression.text} {operator} {shown(right)}"), "==", 1)
        if (isinstance(right, str) and right.startswith("@")) or (isinstance(right, dict) and "set" in right):
            if operator not in ("==", "!=", "in"):
                raise NotUnderstoodError(f"operator {operator!r} with a set")
            return Lookup(left.expression, self._set_source(left, right), operator == "!=")
        if isinstance(left.expression, Concat):
            raise NotUnderstoodError(f"comparison of a concatenation with {shown(right)}")
        return self._compare(left, operator, right)

    def _set_source(self, key: Typed, right: Any) -> SetSource:
        source = self.source(key, right, None)
        if isinstance(source, SetContent) and source.is_map:
            raise NotUnderstoodError("a map where a set was expected")
        return source

    def _compare(self, left: Typed, operator: str, right: Any) -> Statement:
        kind, expression = left.types[0], left.expression
        if isinstance(expression, Fib) and isinstance(right, bool):
            return Match(Fib(expression.result, expression.selectors, present=True), operator, int(right))
        if isinstance(expression, Fib) and kind.name == "iface_index":
            expression, kind = self._fib_index(expression, right)
        if operator == "in":
            flags = decode_scalar(kind, right)
            if not isinstance(flags, int) or (kind.name == "ct_label" and flags >= kind.width):
                raise NotUnderstoodError(f"flags {shown(right)}")
            mask = 1 << flags if kind.name == "ct_label" else flags
            return Match(fold(expression, kind.width, "&", mask), "!=", 0)
        value = decode_scalar(kind, right)
        if operator == "!":
            # None of the flags is set.
            if not isinstance(value, int):
                raise NotUnderstoodError(f"flags {shown(right)}")
            return Match(fold(expression, kind.width, "&", value), "==", 0)
        if operator not in OPERATORS:
            raise NotUnderstoodError(f"operator {operator!r}")
        if kind.name == "milliseconds":
            value = in_milliseconds(value)
        if isinstance(right, dict) and "prefix" in right:
            return prefix_match(expression, kind.width, operator, value)
        self.learn(expression, operator, value)
        return Match(expression, operator, value)

    @staticmethod
    def _fib_index(expression: Fib, right: Any) -> tuple[Expression, DataType]:
        # nft lists an interface index by its name; 0 means that there is no route.
        if isinstance(right, int) or (isinstance(right, str) and right.isdigit()):
            return expression, DATA_TYPES["iface_index"]
        return Fib("oifname", expression.selectors), DATA_TYPES["ifname"]

    _HANDLERS: ClassVar[Mapping[str, Callable[[ExpressionDecoder, Any], Typed]]] = {
        "payload": _payload,
        "meta": _meta,
        "ct": _ct,
        "fib": _fib,
        "numgen": _numgen,
        "concat": _concat,
        "map": _map,
    }


def fold(operand: Expression, width: int, name: str, constant: int) -> Expression:
    """``operand`` &, | or ^ ``constant`` as one `Bitwise`, merged with one that is there already."""
    full = (1 << width) - 1
    mask, xor = full, 0
    if isinstance(operand, Bitwise):
        mask, xor, operand = operand.mask, operand.xor, operand.operand
    if name == "&":
        mask, xor = mask & constant, xor & constant
    elif name == "|":
        mask, xor = mask & ~constant, (xor & ~constant) | constant
    else:
        xor ^= constant
    return operand if mask == full and not xor and full else Bitwise(operand, mask, xor)


def prefix_match(expression: Expression, width: int, operator: str, value: object) -> Match:
    """Equality with the common leading bits of an interval of addresses."""
    if isinstance(value, Interval):
        mask = ((1 << width) - 1) ^ (value.low ^ value.high)
        return Match(Bitwise(expression, mask, 0), operator, value.low)
    if isinstance(value, int):
        return Match(expression, operator, value)
    raise NotUnderstoodError(f"prefix {value!r}")


def in_milliseconds(value: Any) -> int | Interval:
    """Seconds, as nft lists times, to the kernel's milliseconds."""
    if isinstance(value, Interval):
        return Interval(value.low * 1000, value.high * 1000)
    return int(value) * 1000


_NETWORK_OF_OPTION = {"exthdr": "ip6", "ip option": "ip"}
"""Options that are not understood, with the network protocol that nft asks for before them."""

_IP_PROTOCOL = fields.field_payload("ip", "protocol")[0]
_IP6_NEXTHDR = fields.field_payload("ip6", "nexthdr")[0]
_ETHER_TYPE = fields.field_payload("ether", "type")[0]
_VLAN_TYPE = fields.field_payload("vlan", "type")[0]
_ICMP_TYPE = fields.field_payload("icmp", "type")[0]
