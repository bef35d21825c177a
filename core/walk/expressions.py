"""Expressions compiled to functions of the walk's context.

A compiled expression returns a value, or None where the kernel ends the rule (NFT_BREAK): no interface to ask, no
conntrack entry, no element in a map. Compiling once and calling often is what makes thousands of flows a second
possible. Source: Linux net/netfilter/nft_meta.c, nft_ct.c, nft_payload.c, nft_bitwise.c, nft_numgen.c, nft_fib.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from calico_debug.model.conntrack import STATE_BITS, STATUS_BITS
from calico_debug.model.nft import (
    Bitwise,
    Concat,
    Constant,
    Ct,
    Expression,
    Fib,
    MapValue,
    Meta,
    Numgen,
    Payload,
    Shift,
    UnknownExpression,
)
from calico_debug.model.values import Drawn, Partial, Value, settle, unknown

if TYPE_CHECKING:
    from calico_debug.model.routing import Interface
    from calico_debug.walk.context import Context
    from calico_debug.walk.packet import Packet

Evaluator = Callable[["Context"], "Value | tuple[Value, ...] | None"]

_META_WIDTH = 32

OPEN_META = {
    "length": "the packet's length was not given",
    "skuid": "the sending process is not known",
    "skgid": "the sending process is not known",
    "cgroup": "the sending process is not known",
    "cgroupv2": "the sending process is not known",
    "rtclassid": "routing realms are not followed",
    "priority": "the packet's priority was not given",
    "cpu": "the processor is not known",
    "time": "the time of day is open",
    "day": "the time of day is open",
    "hour": "the time of day is open",
    "secmark": "security marks are not followed",
    "random": "the kernel draws it",
    "iifgroup": "interface groups are not in evidence",
    "oifgroup": "interface groups are not in evidence",
}
"""Meta keys whose value a question does not settle, with the reason shown to the user."""

_SOCKET_META = frozenset({"skuid", "skgid", "cgroup", "rtclassid"})
"""Keys that need a local socket: without one the kernel ends the rule (nft_meta.c, nft_meta_get_eval)."""

_NFPROTO = {4: 2, 6: 10}
_ETHERTYPE = {4: 0x0800, 6: 0x86DD}
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
_ARPHRD = {"ipip": 768, "ip6tnl": 769, "sit": 776, "gre": 778, "wireguard": 65534}
"""include/uapi/linux/if_arp.h, by kind of link; every other kind that Calico uses looks like Ethernet."""
_SENDING = frozenset({"postrouting", "egress"})


def compile_expression(expression: Expression, map_value: Callable[[MapValue], Evaluator]) -> Evaluator:
    """A function that evaluates ``expression``; ``map_value`` compiles the lookups, which need the table's sets."""

    def inner(part: Expression) -> Evaluator:
        return compile_expression(part, map_value)

    match expression:
        case Constant(value):
            return lambda _context: value
        case Payload(base, offset, width):
            return lambda context: context.packet.field(base, offset, width)
        case Meta(key):
            return _meta(key)
        case Ct(key, direction):
            return _ct(key, direction)
        case Bitwise(operand, mask, xor):
            return _bitwise(inner(operand), mask, xor)
        case Shift(operand, by):
            return _shift(inner(operand), by)
        case Concat(parts):
            return _concat(tuple(inner(part) for part in parts))
        case Numgen(mode, modulus, offset):
            return _numgen(mode, modulus, offset)
        case Fib(result, selectors, present):
            return lambda context: context.fib(result, selectors, present)
        case MapValue():
            return map_value(expression)
        case UnknownExpression(text):
            return lambda _context: unknown(_META_WIDTH, f"{text} is not understood")


def _meta(key: str) -> Evaluator:
    simple: dict[str, Callable[[Packet], Any]] = {
        "mark": lambda packet: packet.mark,
        "l4proto": lambda packet: packet.protocol,
        "nfproto": lambda packet: _NFPROTO[packet.family],
        "protocol": lambda packet: _ETHERTYPE[packet.family],
        # Without a device these read as index 0 and an empty name, they do not end the rule.
        "iifname": lambda packet: packet.incoming.name if packet.incoming else "",
        "oifname": lambda packet: packet.outgoing.name if packet.outgoing else "",
        "iif": lambda packet: packet.incoming.index if packet.incoming else 0,
        "oif": lambda packet: packet.outgoing.index if packet.outgoing else 0,
        "oiftype": lambda packet: _hardware_type(packet.outgoing),
        # A device without a kind (a physical one, or lo) ends the rule as none at all does.
        "iifkind": lambda packet: packet.incoming.kind or None if packet.incoming else None,
        "oifkind": lambda packet: packet.outgoing.kind or None if packet.outgoing else None,
        "pkttype": lambda packet: packet.written.get("pkttype", 0),
        "nftrace": lambda packet: packet.written.get("nftrace", 0),
        "secpath": lambda _packet: 0,
        "ipsec": lambda _packet: 0,
    }
    if key == "iiftype":
        # The type of the device that holds the buffer (skb->dev): behind routing that is the outgoing one.
        return lambda context: _hardware_type(
            context.packet.outgoing if context.hook in _SENDING else context.packet.incoming
        )
    if read := simple.get(key):
        return lambda context: read(context.packet)
    why = OPEN_META.get(key, f"meta {key} is not understood")
    if key in _SOCKET_META:
        return lambda context: unknown(_META_WIDTH, why) if context.packet.local else None
    return lambda _context: unknown(_META_WIDTH, why)


def _hardware_type(device: Interface | None) -> int | None:
    if device is None:
        return None
    return _ARPHRD_LOOPBACK if device.name == "lo" else _ARPHRD.get(device.kind, _ARPHRD_ETHER)


def _ct(key: str, direction: str | None) -> Evaluator:
    if key == "state":

        def state(context: Context) -> Value:
            tracking = context.packet.tracking
            return tracking.state if tracking else STATE_BITS["invalid"]

        return state
    if key == "state and translation":

        def state_and_translation(context: Context) -> Value:
            tracking = context.packet.tracking
            if tracking is None:
                return STATE_BITS["invalid"]
            entry = _entry(context)
            return tracking.state | (entry.status & _TRANSLATED) << 8 if entry else tracking.state

        return state_and_translation
    if key == "mark":
        return lambda context: tracking.mark if (tracking := _entry(context)) else None
    if key == "status":
        return lambda context: tracking.status if (tracking := _entry(context)) else None
    if key == "direction":
        return lambda context: int(tracking.in_reply) if (tracking := _entry(context)) else None
    if key in _CT_ENDS:
        field = _CT_ENDS[key]

        def ends(context: Context) -> Value | None:
            tracking = _entry(context)
            if tracking is None:
                return None
            value: Value | None = getattr(tracking.reply if direction == "reply" else tracking.original, field)
            return _NO_PORT if value is None else value

        return ends
    if key in ("l3proto", "protocol"):
        return lambda context: (
            (_NFPROTO[context.packet.family] if key == "l3proto" else context.packet.protocol)
            if _entry(context)
            else None
        )
    return lambda context: unknown(_META_WIDTH, f"ct {key} is not in evidence") if _entry(context) else None


_TRANSLATED = STATUS_BITS["snat"] | STATUS_BITS["dnat"]

_CT_ENDS = {
    "saddr": "source",
    "daddr": "destination",
    "ip saddr": "source",
    "ip daddr": "destination",
    "ip6 saddr": "source",
    "ip6 daddr": "destination",
    "proto-src": "source_port",
    "proto-dst": "destination_port",
}


_NO_PORT = unknown(16, "the identifier that conntrack keeps in place of a port was not given")
"""ICMP's tuples hold the identifier, the type and the code where others have ports."""


def _entry(context: Context) -> Any:
    """The conntrack entry, None for packets that have none: every ct key but state then ends the rule."""
    tracking = context.packet.tracking
    if tracking is None or tracking.untracked or tracking.state == STATE_BITS["invalid"]:
        return None
    return tracking


def _bitwise(operand: Evaluator, mask: int, xor: int) -> Evaluator:
    def evaluate(context: Context) -> Value | tuple[Value, ...] | None:
        value = operand(context)
        if isinstance(value, int):
            return (value & mask) ^ xor
        if isinstance(value, Partial):
            return settle((value.value & mask) ^ xor, value.known | ~mask, value.width, value.why)
        if isinstance(value, Drawn):
            return unknown(_META_WIDTH, value.why)
        return value

    return evaluate


def _shift(operand: Evaluator, by: int) -> Evaluator:
    def move(number: int) -> int:
        return (number << by if by >= 0 else number >> -by) & 0xFFFFFFFF

    def evaluate(context: Context) -> Value | tuple[Value, ...] | None:
        value = operand(context)
        if isinstance(value, int):
            return move(value)
        if isinstance(value, Partial):
            # Bits that move in are zero and known: shift the unknown ones and invert.
            open_bits = move(~value.known & ((1 << value.width) - 1))
            return settle(move(value.value), ~open_bits, _META_WIDTH, value.why)
        return unknown(_META_WIDTH, value.why) if isinstance(value, Drawn) else value

    return evaluate


def _concat(parts: tuple[Evaluator, ...]) -> Evaluator:
    def evaluate(context: Context) -> tuple[Value, ...] | None:
        values: list[Value] = []
        for part in parts:
            value = part(context)
            if value is None or isinstance(value, tuple):
                return None
            values.append(value)
        return tuple(values)

    return evaluate


def _numgen(mode: str, modulus: int, offset: int) -> Evaluator:
    if modulus == 1:
        return lambda _context: offset
    drawn = Drawn(offset, offset + modulus - 1, f"numgen {mode} mod {modulus}")
    return lambda _context: drawn
