"""Matches of iptables on the packet's headers and devices.

Semantics: Linux net/netfilter/xt_tcpudp.c, xt_multiport.c and the like, net/ipv4/netfilter/ip_tables.c,
net/ipv6/netfilter/ip6_tables.c. Options: iptables-extensions(8) and the save functions of iptables 1.8.9.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from calico_debug.decode import iptables_symbols as symbols
from calico_debug.decode.intervals import content, merged, scalar
from calico_debug.decode.iptables_extensions import (
    DSCP,
    HOP_LIMIT,
    TRAFFIC_CLASS,
    Extension,
    Option,
    Setting,
    equal,
    span,
)
from calico_debug.decode.iptables_sets import ADDRESSES
from calico_debug.decode.iptables_symbols import NotUnderstoodError, number
from calico_debug.model.nft import (
    Bitwise,
    Concat,
    Interval,
    Lookup,
    Match,
    Meta,
    NamePrefix,
    Payload,
    Statement,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SOURCE_PORT, DESTINATION_PORT = Payload("transport", 0, 16), Payload("transport", 16, 16)
TCP_FLAG_BITS = Payload("transport", 104, 8)
PORT_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "dccp": 33, "udplite": 136}


def address(side: str, text: str, negated: bool, family: str) -> Match:
    """``-s`` and ``-d``: an address, with a prefix's length or any other mask."""
    field = ADDRESSES[family, side]
    base, slash, suffix = text.partition("/")
    value = ip_address(base)
    if value.version != (6 if family == "ip6" else 4):
        raise NotUnderstoodError(f"address {text}")
    full = (1 << field.width) - 1
    mask = full
    if slash:
        mask = full ^ (full >> number(suffix, field.width)) if suffix.isdecimal() else int(ip_address(suffix))
    return equal(field if mask == full else Bitwise(field, mask, 0), int(value) & mask, negated)


def interface(key: str, text: str, negated: bool) -> list[Statement]:
    """``-i`` and ``-o``; a ``+`` at the end stands for anything."""
    if text == "+" and not negated:
        return []
    return [equal(Meta(key), NamePrefix(text[:-1]) if text.endswith("+") else text, negated)]


def protocol(text: str, negated: bool) -> list[Statement]:
    """``-p``."""
    value = 0 if text == "all" else symbols.protocol_number(text)
    if not value:
        return []
    return [equal(Meta("l4proto"), value, negated)]


def fragment(negated: bool) -> Match:
    """``-f``: second and further fragments."""
    return Match(Bitwise(Payload("network", 48, 16), 0x1FFF, 0), "==" if negated else "!=", 0)


def _ports(field: Payload, text: str, negated: bool) -> list[Statement]:
    low, high = span(text)
    if (low, high) == (0, symbols.LARGEST_PORT) and not negated:
        return []
    return [equal(field, scalar(low, high), negated)]


def _transport(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    found: list[Statement] = []
    for option in options:
        match option.name:
            case "--sport" | "--source-port" | "--sports":
                found += _ports(SOURCE_PORT, option.value, option.negated)
            case "--dport" | "--destination-port" | "--dports":
                found += _ports(DESTINATION_PORT, option.value, option.negated)
            case "--tcp-flags":
                mask, wanted = (_tcp_flags(value) for value in option.values)
                found.append(equal(Bitwise(TCP_FLAG_BITS, mask, 0), wanted, option.negated))
            case "--syn":
                found.append(equal(Bitwise(TCP_FLAG_BITS, 0x17, 0), 0x02, option.negated))
            case _:
                raise NotUnderstoodError(option.name)
    return found


def _tcp_flags(text: str) -> int:
    if text[:1].isdigit():
        return number(text, 0xFF)
    bits = 0
    for name in text.split(","):
        bits |= symbols.TCP_FLAGS[name]
    return bits


def _multiport(options: Sequence[Option], setting: Setting) -> list[Statement]:
    if setting.protocol not in PORT_PROTOCOLS.values():
        raise NotUnderstoodError("without a protocol that has ports")
    found: list[Statement] = []
    for option in options:
        ranges = merged(span(part) for part in option.value.split(","))
        keys = [scalar(low, high) for low, high in ranges]
        if option.name in ("--ports", "--port"):
            anything = Interval(0, symbols.LARGEST_PORT)
            pairs = [pair for key in keys for pair in ((key, anything), (anything, key))]
            source = content((16, 16), pairs)
            found.append(Lookup(Concat((SOURCE_PORT, DESTINATION_PORT)), source, option.negated))
            continue
        field = DESTINATION_PORT if option.name in ("--dports", "--destination-ports", "--dport") else SOURCE_PORT
        if len(keys) == 1:
            found.append(equal(field, keys[0], option.negated))
        else:
            found.append(Lookup(field, content((16,), keys), option.negated))
    return found


def _icmp(options: Sequence[Option], setting: Setting) -> list[Statement]:
    names = symbols.ICMPV6_TYPES if setting.family == "ip6" else symbols.ICMP_TYPES
    found: list[Statement] = []
    for option in options:
        if option.value == "any" and not option.negated:
            continue
        type_, code = symbols.icmp_type(option.value, names)
        if (type_, code) == (255, None) and setting.family == "ip":
            raise NotUnderstoodError(option.value)  # iptables-legacy writes "any" this way
        if code is None:
            found.append(equal(Payload("transport", 0, 8), type_, option.negated))
        else:
            found.append(equal(Payload("transport", 0, 16), type_ << 8 | code, option.negated))
    return found


def _length(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    return [equal(Meta("length"), scalar(*span(o.value)), o.negated) for o in options]


def _hops(options: Sequence[Option], setting: Setting) -> list[Statement]:
    field = HOP_LIMIT[setting.family]
    signs = {"eq": "!=" if options[0].negated else "==", "lt": "<", "gt": ">"}
    return [Match(field, signs[o.name.rpartition("-")[2]], number(o.value, 255)) for o in options]


def _dscp(options: Sequence[Option], setting: Setting) -> list[Statement]:
    field = DSCP[setting.family]
    return [equal(field, number(option.value, 0x3F), option.negated) for option in options]


def _tos(options: Sequence[Option], setting: Setting) -> list[Statement]:
    field = TRAFFIC_CLASS[setting.family]
    found: list[Statement] = []
    for option in options:
        value, slash, mask = option.value.partition("/")
        bits = number(mask, 0xFF) if slash else 0xFF
        found.append(equal(field if bits == 0xFF else Bitwise(field, bits, 0), number(value, 0xFF), option.negated))
    return found


def _hardware_address(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    return [equal(Payload("link", 48, 48), int(o.value.replace(":", ""), 16), o.negated) for o in options]


def _packet_type(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    return [equal(Meta("pkttype"), symbols.PACKET_TYPES[o.value], o.negated) for o in options]


def _address_range(options: Sequence[Option], setting: Setting) -> list[Statement]:
    found: list[Statement] = []
    for option in options:
        low, _, high = option.value.partition("-")
        field = ADDRESSES[setting.family, "src" if option.name == "--src-range" else "dst"]
        found.append(equal(field, scalar(int(ip_address(low)), int(ip_address(high or low))), option.negated))
    return found


_PORT_OPTIONS = {
    "--sport": 1, "--dport": 1, "--source-port": 1, "--destination-port": 1,
}  # fmt: skip
HEADER_MATCHES: Mapping[str, Extension] = {
    "tcp": Extension({**_PORT_OPTIONS, "--tcp-flags": 2, "--syn": 0, "--tcp-option": 1}, _transport),
    "udp": Extension(_PORT_OPTIONS, _transport),
    "udplite": Extension(_PORT_OPTIONS, _transport),
    "sctp": Extension({**_PORT_OPTIONS, "--chunk-types": 2}, _transport),
    "dccp": Extension({**_PORT_OPTIONS, "--dccp-types": 1, "--dccp-option": 1}, _transport),
    "multiport": Extension(
        dict.fromkeys(
            (*_PORT_OPTIONS, "--ports", "--port", "--sports", "--dports", "--source-ports", "--destination-ports"), 1
        ),
        _multiport,
    ),
    "icmp": Extension({"--icmp-type": 1}, _icmp),
    "icmp6": Extension({"--icmpv6-type": 1}, _icmp),
    "icmpv6": Extension({"--icmpv6-type": 1}, _icmp),
    "length": Extension({"--length": 1}, _length),
    "ttl": Extension({"--ttl-eq": 1, "--ttl-lt": 1, "--ttl-gt": 1}, _hops),
    "hl": Extension({"--hl-eq": 1, "--hl-lt": 1, "--hl-gt": 1}, _hops),
    "dscp": Extension({"--dscp": 1}, _dscp),
    "tos": Extension({"--tos": 1}, _tos),
    "mac": Extension({"--mac-source": 1}, _hardware_address),
    "pkttype": Extension({"--pkt-type": 1}, _packet_type),
    "iprange": Extension({"--src-range": 1, "--dst-range": 1}, _address_range),
}  # fmt: skip
"""What is understood, by the name behind ``-m``."""
