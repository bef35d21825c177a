"""Matches of iptables rules as the statements that test the same. Tables of options, and a function per extension.

Semantics: Linux net/netfilter/xt_*.c, net/ipv4/netfilter/ip_tables.c and ipt_*.c, net/ipv6/netfilter/ip6t_*.c.
Options: iptables-extensions(8) and the save functions of iptables 1.8.9. What is not understood raises
`NotUnderstoodError`; the caller turns it into an `UnknownStatement` that names the extension.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from calico_debug.decode import iptables_symbols as symbols
from calico_debug.decode.intervals import content, merged, scalar
from calico_debug.decode.iptables_sets import ADDRESSES, decode_set
from calico_debug.decode.iptables_symbols import NotUnderstoodError, number
from calico_debug.model.nft import (
    Bitwise,
    Concat,
    ConnectionLimit,
    Ct,
    Fib,
    Harmless,
    Interval,
    Limit,
    Lookup,
    Match,
    Meta,
    NamePrefix,
    Numgen,
    Payload,
    Quota,
    Statement,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from calico_debug.decode.iptables_sets import SetDirectory
    from calico_debug.model.nft import Expression


class Option(NamedTuple):
    """``! --name value …``"""

    name: str
    values: tuple[str, ...]
    negated: bool

    @property
    def value(self) -> str:
        """The only value."""
        return self.values[0]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a match needs to know of its rule: nft's family, the protocol of a plain ``-p``, and the node's sets."""

    family: str
    protocol: int | None
    sets: SetDirectory


class Extension(NamedTuple):
    """How to read a match: the number of values of each option, and what the options amount to."""

    arity: Mapping[str, int]
    decode: Callable[[Sequence[Option], Setting], list[Statement]]


SOURCE_PORT, DESTINATION_PORT = Payload("transport", 0, 16), Payload("transport", 16, 16)
TCP_FLAG_BITS = Payload("transport", 104, 8)
TRAFFIC_CLASS = {"ip": 8, "ip6": 4}
"""Offset in bits of the byte that is DSCP and ECN."""
HOP_LIMIT = {"ip": 64, "ip6": 56}

PORT_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "dccp": 33, "udplite": 136}
STATISTIC_RANGE = 1 << 31
"""xt_statistic compares 31 random bits with the probability scaled to them."""

UNTRACKED_OR_INVALID = symbols.STATES["INVALID"] | symbols.STATES["UNTRACKED"]


def equal(left: Expression, right: int | str | NamePrefix | Interval, negated: bool) -> Match:
    """``left == right``, or its opposite."""
    return Match(left, "!=" if negated else "==", right)


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


def span(text: str, largest: int = symbols.LARGEST_PORT, separator: str = ":") -> tuple[int, int]:
    """"80", "80:90", "80:" or ":90"."""
    low, colon, high = text.partition(separator)
    if not colon:
        return number(low, largest), number(low, largest)
    return number(low or "0", largest), number(high, largest) if high else largest


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


def _conntrack(options: Sequence[Option], setting: Setting) -> list[Statement]:
    found: list[Statement] = []
    states = 0
    inverted = False
    for option in options:
        if option.name in ("--ctstate", "--state"):
            states, inverted = _states(option.value), option.negated
            found.append(_state_match(states, inverted))
        elif option.name == "--ctstatus":
            bits = 0
            for name in option.value.split(","):
                bits |= symbols.STATUSES[name]
            found.append(Match(Bitwise(Ct("status"), bits, 0), "==" if option.negated else "!=", 0))
        elif option.name == "--ctdir":
            direction = {"ORIGINAL": 0, "REPLY": 1}[option.value]
            found.append(equal(Ct("direction"), direction, option.negated))
        elif option.name == "--ctproto":
            found.append(equal(Ct("protocol"), symbols.protocol_number(option.value), option.negated))
        elif option.name in _CT_ADDRESSES:
            found.append(_ct_address(option, setting))
        elif option.name in _CT_PORTS:
            key, direction_name = _CT_PORTS[option.name]
            found.append(equal(Ct(key, direction_name), scalar(*span(option.value)), option.negated))
        else:
            raise NotUnderstoodError(option.name)
    alone = len(options) == 1
    if states and not alone and (inverted or states & UNTRACKED_OR_INVALID):
        # A packet without a connection then matches by its state alone, whatever the other options ask.
        raise NotUnderstoodError("a state that packets without a connection have, beside other options")
    return found


def _states(text: str) -> int:
    bits = 0
    for name in text.split(","):
        bits |= symbols.STATES[name] if name in symbols.STATES else symbols.VIRTUAL_STATES[name]
    return bits


def _state_match(bits: int, inverted: bool) -> Match:
    virtual = any(bits & bit for bit in symbols.VIRTUAL_STATES.values())
    key = Ct("state and translation") if virtual else Ct("state")
    return Match(Bitwise(key, bits, 0), "==" if inverted else "!=", 0)


_CT_ADDRESSES = {
    "--ctorigsrc": ("saddr", "original"),
    "--ctorigdst": ("daddr", "original"),
    "--ctreplsrc": ("saddr", "reply"),
    "--ctrepldst": ("daddr", "reply"),
}
_CT_PORTS = {
    "--ctorigsrcport": ("proto-src", "original"),
    "--ctorigdstport": ("proto-dst", "original"),
    "--ctreplsrcport": ("proto-src", "reply"),
    "--ctrepldstport": ("proto-dst", "reply"),
}


def _ct_address(option: Option, setting: Setting) -> Match:
    key, direction = _CT_ADDRESSES[option.name]
    test = address("src", option.value, option.negated, setting.family)
    field = Ct(key, direction)
    operand: Expression = Bitwise(field, test.left.mask, 0) if isinstance(test.left, Bitwise) else field
    return Match(operand, test.operator, test.right)


def mark_and_mask(text: str) -> tuple[int, int]:
    """"0x1/0xff" or "0x1", which has every bit in its mask."""
    value, slash, mask = text.partition("/")
    return number(value), number(mask) if slash else symbols.WHOLE_MARK


def _mark(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    return [_mark_match(Meta("mark"), option) for option in options]


def _connmark(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    return [_mark_match(Ct("mark"), option) for option in options]


def _mark_match(mark: Expression, option: Option) -> Match:
    value, mask = mark_and_mask(option.value)
    return equal(mark if mask == symbols.WHOLE_MARK else Bitwise(mark, mask, 0), value, option.negated)


def _set(options: Sequence[Option], setting: Setting) -> list[Statement]:
    found: list[Statement] = []
    for option in options:
        if option.name == "--match-set":
            name, directions = option.values
            found.append(decode_set(name, directions, option.negated, setting.family, setting.sets))
        elif option.name not in ("--update-counters", "--update-subcounters"):
            raise NotUnderstoodError(option.name)
    return found


def _address_type(options: Sequence[Option], setting: Setting) -> list[Statement]:
    device = ""
    for option in options:
        if option.name in ("--limit-iface-in", "--limit-iface-out"):
            device = "iif" if option.name == "--limit-iface-in" else "oif"
    found: list[Statement] = []
    for option in options:
        if option.name not in ("--src-type", "--dst-type"):
            continue
        types = [symbols.ADDRESS_TYPES[name] for name in option.value.split(",")]
        if setting.family == "ip6" and option.value != "LOCAL":
            # IPv6 combines types by other rules (xt_addrtype.c, match_type6).
            raise NotUnderstoodError(f"{option.name} {option.value} of IPv6")
        selectors = {"saddr" if option.name == "--src-type" else "daddr", *([device] if device else [])}
        kind = Fib("type", frozenset(selectors))
        if len(types) == 1:
            found.append(equal(kind, types[0], option.negated))
        else:
            found.append(Lookup(kind, content((32,), dict.fromkeys(types)), option.negated))
    return found


def _reverse_path(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    """The lookup of ipt_rpfilter.c is that of ``fib saddr . iif``; --loose asks for any route back."""
    names = {option.name for option in options}
    if "--accept-local" in names:
        raise NotUnderstoodError("--accept-local")
    selectors = {"saddr"}
    if "--loose" not in names:
        selectors.add("iif")
    if "--validmark" in names:
        selectors.add("mark")
    return [Match(Fib("oif", frozenset(selectors), present=True), "==", int("--invert" not in names))]


def _statistic(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    given = {option.name: option for option in options}
    if given["--mode"].value == "random":
        option = given["--probability"]
        threshold = round(float(option.value) * STATISTIC_RANGE)
        return [Match(Numgen("random", STATISTIC_RANGE), ">=" if option.negated else "<", threshold)]
    option = given["--every"]
    packet = int(given["--packet"].value) if "--packet" in given else 0
    return [equal(Numgen("inc", number(option.value)), packet, option.negated)]


def _always(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    return [Harmless(f"counter object {option.value}") for option in options]


def _no_statement(_options: Sequence[Option], _setting: Setting) -> list[Statement]:
    return []


_PERIODS = {"s": "second", "m": "minute", "h": "hour", "d": "day"}


def _rate(text: str) -> tuple[int, str, str]:
    """"10/sec", "3/hour", "512kb/s": number, period and unit."""
    amount, _, period = text.partition("/")
    digits = amount.rstrip("kmbKMB")
    unit = "packets" if digits == amount else "bytes"
    factor = {"k": 1 << 10, "m": 1 << 20}.get(amount[len(digits) :].lower().removesuffix("b"), 1)
    return int(digits) * factor, _PERIODS[period[:1] or "s"], unit


def _limit(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    given = {option.name: option.value for option in options}
    rate, period, unit = _rate(given.get("--limit", "3/hour"))
    return [Limit(rate, period, unit, burst=int(given.get("--limit-burst", "5")))]


def _hash_limit(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    for option in options:
        if option.name in ("--hashlimit-upto", "--hashlimit-above", "--hashlimit"):
            rate, period, unit = _rate(option.value)
            return [Limit(rate, period, unit, over=(option.name == "--hashlimit-above") is not option.negated)]
    raise NotUnderstoodError("without a rate")


def _quota(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    return [Quota(number(option.value, (1 << 64) - 1), option.negated) for option in options]


def _connection_limit(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    for option in options:
        if option.name in ("--connlimit-upto", "--connlimit-above"):
            over = (option.name == "--connlimit-above") is not option.negated
            return [ConnectionLimit(number(option.value), over)]
    raise NotUnderstoodError("without a number")


def _owner(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    found: list[Statement] = []
    for option in options:
        key = {"--uid-owner": "skuid", "--gid-owner": "skgid"}.get(option.name)
        if key is None or option.negated:
            # Negated, a packet without a socket matches.
            raise NotUnderstoodError(f"{'! ' if option.negated else ''}{option.name}")
        found.append(equal(Meta(key), scalar(*span(option.value, symbols.WHOLE_MARK, "-")), False))
    return found


def _length(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    return [equal(Meta("length"), scalar(*span(o.value)), o.negated) for o in options]


def _hops(options: Sequence[Option], setting: Setting) -> list[Statement]:
    field = Payload("network", HOP_LIMIT[setting.family], 8)
    signs = {"eq": "!=" if options[0].negated else "==", "lt": "<", "gt": ">"}
    return [Match(field, signs[o.name.rpartition("-")[2]], number(o.value, 255)) for o in options]


def _dscp(options: Sequence[Option], setting: Setting) -> list[Statement]:
    field = Payload("network", TRAFFIC_CLASS[setting.family], 6)
    return [equal(field, number(option.value, 0x3F), option.negated) for option in options]


def _tos(options: Sequence[Option], setting: Setting) -> list[Statement]:
    field = Payload("network", TRAFFIC_CLASS[setting.family], 8)
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
_LIMITS = {f"--hashlimit-{name}": 1 for name in (
    "upto", "above", "burst", "mode", "name", "srcmask", "dstmask", "htable-size", "htable-max", "htable-expire",
    "htable-gcinterval", "rate-interval",
)} | {"--hashlimit": 1, "--hashlimit-rate-match": 0}  # fmt: skip

MATCHES: Mapping[str, Extension] = {
    "tcp": Extension({**_PORT_OPTIONS, "--tcp-flags": 2, "--syn": 0, "--tcp-option": 1}, _transport),
    "udp": Extension(_PORT_OPTIONS, _transport),
    "udplite": Extension(_PORT_OPTIONS, _transport),
    "sctp": Extension({**_PORT_OPTIONS, "--chunk-types": 2}, _transport),
    "dccp": Extension({**_PORT_OPTIONS, "--dccp-types": 1, "--dccp-option": 1}, _transport),
    "multiport": Extension(
        dict.fromkeys(
            ("--ports", "--port", "--sports", "--dports", "--source-ports", "--destination-ports", "--sport", "--dport"),
            1,
        ),
        _multiport,
    ),
    "icmp": Extension({"--icmp-type": 1}, _icmp),
    "icmp6": Extension({"--icmpv6-type": 1}, _icmp),
    "icmpv6": Extension({"--icmpv6-type": 1}, _icmp),
    "conntrack": Extension(
        {
            "--ctstate": 1, "--ctstatus": 1, "--ctdir": 1, "--ctproto": 1, "--ctexpire": 1,
            **dict.fromkeys((*_CT_ADDRESSES, *_CT_PORTS), 1),
        },
        _conntrack,
    ),
    "state": Extension({"--state": 1}, _conntrack),
    "mark": Extension({"--mark": 1}, _mark),
    "connmark": Extension({"--mark": 1}, _connmark),
    "set": Extension(
        {
            "--match-set": 2, "--update-counters": 0, "--update-subcounters": 0, "--return-nomatch": 0,
            **dict.fromkeys((f"--{w}-{sign}" for w in ("packets", "bytes") for sign in ("eq", "lt", "gt")), 1),
        },
        _set,
    ),
    "addrtype": Extension(
        {"--src-type": 1, "--dst-type": 1, "--limit-iface-in": 0, "--limit-iface-out": 0}, _address_type
    ),
    "rpfilter": Extension(
        dict.fromkeys(("--loose", "--validmark", "--accept-local", "--invert"), 0), _reverse_path
    ),
    "statistic": Extension({"--mode": 1, "--probability": 1, "--every": 1, "--packet": 1}, _statistic),
    "comment": Extension({"--comment": 1}, _no_statement),
    "nfacct": Extension({"--nfacct-name": 1}, _always),
    "limit": Extension({"--limit": 1, "--limit-burst": 1}, _limit),
    "hashlimit": Extension(_LIMITS, _hash_limit),
    "quota": Extension({"--quota": 1}, _quota),
    "connlimit": Extension(
        {
            "--connlimit-upto": 1, "--connlimit-above": 1, "--connlimit-mask": 1, "--connlimit-saddr": 0,
            "--connlimit-daddr": 0,
        },
        _connection_limit,
    ),
    "owner": Extension({"--uid-owner": 1, "--gid-owner": 1, "--socket-exists": 0, "--suppl-groups": 0}, _owner),
    "length": Extension({"--length": 1}, _length),
    "ttl": Extension({"--ttl-eq": 1, "--ttl-lt": 1, "--ttl-gt": 1}, _hops),
    "hl": Extension({"--hl-eq": 1, "--hl-lt": 1, "--hl-gt": 1}, _hops),
    "dscp": Extension({"--dscp": 1}, _dscp),
    "tos": Extension({"--tos": 1}, _tos),
    "mac": Extension({"--mac-source": 1}, _hardware_address),
    "pkttype": Extension({"--pkt-type": 1}, _packet_type),
    "iprange": Extension({"--src-range": 1, "--dst-range": 1}, _address_range),
}  # fmt: skip
"""Every match that is understood; any other one becomes an `UnknownStatement`. xt_nfacct counts and lets go on (one
with a quota does not, which a saved rule does not tell; kube-proxy's have none).
"""
