"""Matches of iptables on more than the packet's headers: connections, marks, sets, routes, chance and rates.

Semantics: Linux net/netfilter/xt_*.c, net/ipv4/netfilter/ipt_rpfilter.c. Options: iptables-extensions(8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.decode import iptables_symbols as symbols
from calico_debug.decode.intervals import content, scalar
from calico_debug.decode.iptables_extensions import Extension, Option, Setting, equal, mark_and_mask, span
from calico_debug.decode.iptables_header_matches import address
from calico_debug.decode.iptables_sets import decode_set
from calico_debug.decode.iptables_symbols import NotUnderstoodError, number
from calico_debug.model.nft import (
    Bitwise,
    ConnectionLimit,
    Ct,
    Fib,
    Harmless,
    Limit,
    Lookup,
    Match,
    Meta,
    Numgen,
    Quota,
    Statement,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calico_debug.model.nft import Expression

STATISTIC_RANGE = 1 << 31
"""xt_statistic compares 31 random bits with the probability scaled to them."""

UNTRACKED_OR_INVALID = symbols.STATES["INVALID"] | symbols.STATES["UNTRACKED"]


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
    """ "10/sec", "3/hour", "512kb/s": number, period and unit."""
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


_LIMITS = {f"--hashlimit-{name}": 1 for name in (
    "upto", "above", "burst", "mode", "name", "srcmask", "dstmask", "htable-size", "htable-max", "htable-expire",
    "htable-gcinterval", "rate-interval",
)} | {"--hashlimit": 1, "--hashlimit-rate-match": 0}  # fmt: skip

STATE_MATCHES: Mapping[str, Extension] = {
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
}  # fmt: skip
"""What is understood, by the name behind ``-m``. xt_nfacct counts and lets go on (one with a quota does not, which a
saved rule does not tell; kube-proxy's have none).
"""
