"""Rules as ``nft -j`` writes them. Source: libnftables-json(5), "STATEMENTS".

A statement that is not understood becomes an `UnknownStatement` that shows it; nothing is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from calico_debug.decode import nft_fields as fields
from calico_debug.decode import nft_symbols
from calico_debug.decode.nft_fields import DATA_TYPES, DataType
from calico_debug.decode.nft_json_expressions import ExpressionDecoder, shown
from calico_debug.decode.nft_json_values import MALFORMED, NotUnderstoodError, decode_scalar
from calico_debug.model.nft import (
    ConnectionLimit,
    Counter,
    Harmless,
    Limit,
    Log,
    Lookup,
    Masquerade,
    Match,
    Nat,
    Notrack,
    Payload,
    Quota,
    Redirect,
    Reject,
    Rule,
    SetCt,
    SetMeta,
    SetPayload,
    UnknownExpression,
    UnknownStatement,
    UpdateSet,
    Verdict,
    VerdictMap,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from calico_debug.model.nft import Expression, Statement

PORT = DATA_TYPES["inet_service"]
LARGEST_MERGED = 32
"""Bits of neighbouring fields that nft loads into one register to compare them at once (payload_can_merge)."""


def decode_rule(content: Mapping[str, Any], family: str, table: str, chain: str) -> Rule:
    """One ``rule`` object. Never raises: what is malformed or unknown in it becomes an `UnknownStatement`."""
    decoder = RuleDecoder(family)
    expressions = content.get("expr")
    if isinstance(expressions, list):
        for position, item in enumerate(expressions):
            decoder.statement(item, last=position == len(expressions) - 1)
    else:
        decoder.statements.append(UnknownStatement(f"a rule without a list of expressions: {shown(expressions)}"))
    handle, comment = content.get("handle"), content.get("comment")
    return Rule(
        family,
        table,
        chain,
        handle if isinstance(handle, int) else 0,
        tuple(decoder.statements),
        comment if isinstance(comment, str) else "",
    )


def decode_stateful(name: str, content: Any) -> Statement:
    """A statement that keeps state: of a rule, of a set's element, or run for one that a rule adds."""
    return _STATEFUL[name](content)


def decode_xt(kind: str, name: str) -> Statement:
    """An extension of iptables ("match" or "target"). Only ``comment`` is known: it always matches (xt_comment.c)."""
    text = f"xt {kind} {name}"
    return Harmless(text) if text == "xt match comment" else UnknownStatement(text)


class RuleDecoder(ExpressionDecoder):
    """Decodes the statements of one rule in order."""

    def __init__(self, family: str) -> None:
        """For a rule of this family."""
        super().__init__(family, decode_stateful)
        self._negated: tuple[str, int, int, str, int] | None = None
        self._ethernet = False

    def statement(self, item: Any, *, last: bool) -> None:
        """Add what one item of ``expr`` does to ``statements``."""
        self._doubt_ethernet(item)
        before = len(self.statements)
        if not isinstance(item, dict) or "match" not in item:
            self._negated = None
        try:
            if not isinstance(item, dict) or len(item) != 1:
                raise NotUnderstoodError("not a statement")
            ((name, content),) = item.items()
            if name in _VERDICT_NAMES:
                self.statements.append(Verdict(name))
            elif name == "counter" and isinstance(content, dict) and "map" in content:
                self._counter_by_map(content["map"])
            elif name in _STATEFUL:
                self.statements.append(_STATEFUL[name](content))
            elif name in _HARMLESS:
                self.statements.append(Harmless(f"{name} {_argument(content)}".rstrip()))
            elif name == "mangle":
                self._mangle(content, last=last)
            elif name == "match":
                self.statements.append(self.match(content))
                self._doubt_neighbours(content)
            elif name == "xt":
                self.statements.append(decode_xt(content["type"], content["name"]))
            else:
                self.statements.append(self._STATEMENTS[name](self, content))
        except MALFORMED:
            del self.statements[before:]
            self.statements.append(UnknownStatement(shown(item)))

    def _doubt_ethernet(self, item: Any) -> None:
        """A field behind ``iiftype ether``: nft has the kernel test the Ethernet type first, and does not list that.

        A packet of the node itself has no Ethernet header yet, so that the rule ends where the listing goes on.
        """
        text = shown(item)
        if self._ethernet and "payload" in text:
            why = f"iiftype ether before {text}: nft's listing leaves out the Ethernet type that the kernel compares"
            self.statements.append(Match(UnknownExpression(why), "==", 1))
            self._ethernet = False
        if self.family == "inet" and "iiftype" in text:
            self._ethernet = True

    def _doubt_neighbours(self, content: Mapping[str, Any]) -> None:
        """Fields side by side that both must differ from a value: the listing does not tell what the kernel tests.

        nft 1.0.6 loads ``icmp type != 8 icmp code != 0`` as one comparison of both fields, true when either differs,
        and lists two tests, which other versions do load as two.
        """
        match = self.statements[-1]
        if not isinstance(match, Match) or match.operator != "!=" or not isinstance(match.left, Payload):
            self._negated = None
            return
        field = match.left
        text = f"{shown(content['left'])} != {shown(content['right'])}"
        before = self._negated
        position = len(self.statements) - 1
        self._negated = (field.base, field.offset, field.offset + field.width, text, position)
        if before is None or before[0] != field.base or before[2] != field.offset or before[4] != position - 1:
            return
        start, end = before[1], field.offset + field.width
        if end - start > LARGEST_MERGED or field.offset % 8 or field.width % 8 or not isinstance(match.right, int):
            return
        text = f"{before[3]} and {text}: nft's listing does not tell whether both must differ or either"
        self.statements[-2:] = [Match(UnknownExpression(text), "==", 1)]
        self._negated = (field.base, start, end, text, position - 1)

    def _jump(self, content: Mapping[str, Any]) -> Statement:
        return Verdict("jump", str(content["target"]))

    def _goto(self, content: Mapping[str, Any]) -> Statement:
        return Verdict("goto", str(content["target"]))

    def _verdict_map(self, content: Mapping[str, Any]) -> Statement:
        key = self.decode(content["key"])
        return VerdictMap(key.expression, self.source(key, content["data"], ()))

    def _counter_by_map(self, content: Mapping[str, Any]) -> None:
        # A key without an element ends the rule (net/netfilter/nft_objref.c); which object counts changes nothing.
        key = self.decode(content["key"])
        self.statements.append(Lookup(key.expression, self.source(key, content["data"], ())))
        self.statements.append(Harmless("counter chosen by a map"))

    def _mangle(self, content: Mapping[str, Any], *, last: bool) -> None:
        target, value = content["key"], content["value"]
        if "meta" in target:
            key = target["meta"]["key"]
            if key == "nftrace":
                self.statements.append(Harmless(f"meta nftrace set {_argument(value)}"))
                return
            kind = DATA_TYPES[fields.META_TYPES[key]]
            self.statements.append(SetMeta(key, self.map_value(value, kind)))
        elif "ct" in target:
            key = target["ct"]["key"]
            self.statements.append(SetCt(key, self.map_value(value, DATA_TYPES[fields.CT_TYPES[key]])))
        elif "payload" in target:
            field = self.decode(target)
            if not isinstance(field.expression, Payload):
                raise NotUnderstoodError("not a field")
            self.statements.append(SetPayload(field.expression, self.map_value(value, *field.types)))
        elif "tcp option" in target and last:
            # A packet without the option ends the rule, which matters only when something follows.
            self.statements.append(Harmless(f"tcp option {target['tcp option'].get('name', '')} set"))
        else:
            raise NotUnderstoodError("not a field")

    def _nat(self, kind: str, content: Mapping[str, Any] | None) -> Statement:
        content = content or {}
        if "netmap" in _flags(content) or {"prefix", "interval"} & set(_flags(content, "type_flags")):
            return UnknownStatement(f"{kind} {shown(content)}")
        family = content.get("family", self.family)
        address_type = DATA_TYPES["ipv6_addr" if family == "ip6" else "ipv4_addr"]
        address = address_max = None
        if "addr" in content:
            address, address_max = self._ends(content["addr"], address_type)
        port, port_max = self._ports(content)
        return Nat(kind, address, address_max, port, port_max, {"ip": 4, "ip6": 6}.get(family, 0))

    def _ports(self, content: Mapping[str, Any]) -> tuple[Expression | None, Expression | None]:
        return self._ends(content["port"], PORT) if "port" in content else (None, None)

    def _ends(self, value: Any, kind: DataType) -> tuple[Expression, Expression | None]:
        if isinstance(value, dict) and "range" in value:
            low, high = value["range"]
            return self.decode(low, kind).expression, self.decode(high, kind).expression
        if isinstance(value, dict) and "map" in value:
            return self.map_value(value, *self._map_data(value["map"]["data"], kind)), None
        return self.decode(value, kind).expression, None

    @staticmethod
    def _map_data(data: Any, kind: DataType) -> tuple[DataType, ...]:
        first = data["set"][0][1] if isinstance(data, dict) and data["set"] else None
        with_port = isinstance(first, dict) and "concat" in first
        return (kind, PORT) if with_port else (kind,)

    def _dnat(self, content: Any) -> Statement:
        return self._nat("dnat", content)

    def _snat(self, content: Any) -> Statement:
        return self._nat("snat", content)

    def _masquerade(self, content: Any) -> Statement:
        return Masquerade(*self._ports(content or {}))

    def _redirect(self, content: Any) -> Statement:
        return Redirect(*self._ports(content or {}))

    def _reject(self, content: Any) -> Statement:
        default_kind, default_code = nft_symbols.DEFAULT_REJECT.get(self.family, ("icmpx", "port-unreachable"))
        content = content or {}
        kind = content.get("type", default_kind)
        if kind == "tcp reset":
            self.require_transport(fields.TRANSPORT_PROTOCOLS["tcp"])
            return Reject("tcp reset")
        if kind in fields.NETWORK_OF_TRANSPORT:
            self.require_network(fields.NETWORK_OF_TRANSPORT[kind])
        elif kind != "icmpx":
            raise NotUnderstoodError(f"reject with {kind}")
        code = content.get("expr", default_code)
        number = decode_scalar(DATA_TYPES[f"{kind}_code"], code)
        if not isinstance(number, int):
            raise NotUnderstoodError(f"code {code!r}")
        return Reject(kind, nft_symbols.REJECT_CODES[kind].get(number, str(number)))

    def _notrack(self, content: Any) -> Statement:
        if content is not None:
            raise NotUnderstoodError("notrack takes nothing")
        return Notrack()

    def _update_set(self, content: Mapping[str, Any]) -> Statement:
        element, statements = content["elem"], content.get("stmt") or ()
        if isinstance(element, dict) and "elem" in element:
            element = element["elem"]["val"]
        decoded = tuple(decode_stateful(name, body) for item in statements for name, body in item.items())
        name = str(content.get("set") or content["map"])
        return UpdateSet(str(content["op"]), self.decode(element).expression, name.removeprefix("@"), decoded)

    _STATEMENTS: ClassVar[Mapping[str, Callable[[RuleDecoder, Any], Statement]]] = {
        "jump": _jump,
        "goto": _goto,
        "vmap": _verdict_map,
        "dnat": _dnat,
        "snat": _snat,
        "masquerade": _masquerade,
        "redirect": _redirect,
        "reject": _reject,
        "notrack": _notrack,
        "set": _update_set,
        "map": _update_set,
    }


def _argument(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str | int):
        return str(content)
    if isinstance(content, dict) and set(content) == {"op", "flowtable"}:
        return str(content["flowtable"])
    return shown(content)


def _flags(content: Mapping[str, Any], name: str = "flags") -> list[Any]:
    flags = content.get(name) or []
    return flags if isinstance(flags, list) else [flags]


def _counter(content: Any) -> Statement:
    if isinstance(content, str):
        return Counter(name=content)
    content = content or {}
    return Counter(int(content.get("packets", 0)), int(content.get("bytes", 0)))


def _limit(content: Any) -> Statement:
    if isinstance(content, str):
        return Limit(0, "", name=content)
    unit = content.get("rate_unit", "packets")
    rate, burst = int(content["rate"]), int(content.get("burst", 0))
    if unit == "packets":
        return Limit(rate, str(content["per"]), "packets", bool(content.get("inv")), burst)
    burst *= nft_symbols.BYTE_UNITS[content.get("burst_unit", "bytes")]
    rate *= nft_symbols.BYTE_UNITS[unit]
    return Limit(rate, str(content["per"]), "bytes", bool(content.get("inv")), burst)


def _quota(content: Any) -> Statement:
    if isinstance(content, str):
        return Quota(0, name=content)
    return Quota(
        int(content["val"]) * nft_symbols.BYTE_UNITS[content.get("val_unit", "bytes")], bool(content.get("inv"))
    )


def _connection_limit(content: Mapping[str, Any]) -> Statement:
    return ConnectionLimit(int(content["val"]), bool(content.get("inv")))


def _log(content: Any) -> Statement:
    content = content or {}
    group = content.get("group")
    return Log(str(content.get("prefix", "")), None if group is None else int(group))


_VERDICT_NAMES = ("accept", "drop", "continue", "return")

_STATEFUL: Mapping[str, Callable[[Any], Statement]] = {
    "counter": _counter,
    "limit": _limit,
    "quota": _quota,
    "ct count": _connection_limit,
    "log": _log,
}

_HARMLESS = ("dup", "flow", "ct helper", "ct timeout", "ct expectation", "last")
"""Statements that leave the packet and its verdict alone: copies, offload of later packets, conntrack's details."""
