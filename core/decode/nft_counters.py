"""Counters of nf_tables rules from a dump, and nothing else of it: ten thousand rules in a few hundredths of a second.

What a rule does is not decoded here. A rule never changes (a replaced one has another handle), so whoever wants to know
decodes it once (`decode_rules`). Source: nf_tables_fill_rule_info in net/netfilter/nf_tables_api.c for the order of a
rule's attributes (table, chain, handle, then others), nft_counter.c for those of a counter.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, NoReturn

from calico_debug.decode.netlink_attributes import NFGENMSG_SIZE, TYPE_MASK, number, parse, parse_list, text
from calico_debug.decode.nft_netlink import decode_rule, family_of
from calico_debug.errors import EvidenceError
from calico_debug.model.nft import Rule

NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_HANDLE = 1, 2, 3

_HEADER = struct.Struct("=HH")
_NAME = _HEADER.pack(12, 1) + b"counter\0"
"""NFTA_EXPR_NAME of a counter."""
_BYTES = _HEADER.pack(28, 2) + _HEADER.pack(12, 1)
"""NFTA_EXPR_DATA with NFTA_COUNTER_BYTES, whose value follows. No other data in a rule can look like both: a register
has sixteen bytes, and names have no NUL within.
"""
_PACKETS = _HEADER.pack(12, 2)
_LENGTHS = struct.Struct("=H")


class CountedRule(NamedTuple):
    """A rule of a dump. ``handle`` is as the kernel wrote it; ``counters`` are (packets, bytes), None without any."""

    handle: bytes
    counters: tuple[int, int] | None
    message: bytes


class CountedChain(NamedTuple):
    """A chain of a dump with its rules in order."""

    family: str
    table: str
    name: str
    rules: list[CountedRule]

    @property
    def handles(self) -> tuple[bytes, ...]:
        """What stays the same as long as no rule of the chain is added, replaced or removed."""
        return tuple(rule.handle for rule in self.rules)


def counted_chains(messages: Iterable[bytes], wanted: Callable[[str], bool]) -> list[CountedChain]:
    """The chains whose names are ``wanted``, from NFT_MSG_NEWRULE payloads. Raises `EvidenceError` when malformed."""
    found: dict[bytes, CountedChain | None] = {}
    head, place, chain = b"\xff", 0, None
    unpack, find = _LENGTHS.unpack_from, bytes.find
    for message in messages:
        # Rules come chain by chain: most messages begin like the one before.
        if not message.startswith(head):
            try:
                second = NFGENMSG_SIZE + ((unpack(message, NFGENMSG_SIZE)[0] + 3) & ~3)
                place = second + ((unpack(message, second)[0] + 3) & ~3)
                head = message[:place]
                if head not in found:
                    found[head] = _chain(message, second, wanted)
            except struct.error:
                _malformed()
            chain = found[head]
        if chain is None:
            continue
        counters = None
        at = find(message, _NAME, place)
        if at >= 0:
            if message[at + 12 : at + 20] == _BYTES and message[at + 28 : at + 32] == _PACKETS:
                counters = (int.from_bytes(message[at + 32 : at + 40]), int.from_bytes(message[at + 20 : at + 28]))
            else:
                counters = _counters(message, place)
        chain.rules.append(CountedRule(message[place + 4 : place + 12], counters, message))
    return [chain for chain in found.values() if chain is not None]


def _chain(message: bytes, second: int, wanted: Callable[[str], bool]) -> CountedChain | None:
    kinds = [_HEADER.unpack_from(message, at)[1] & TYPE_MASK for at in (NFGENMSG_SIZE, second)]
    third = second + ((_LENGTHS.unpack_from(message, second)[0] + 3) & ~3)
    length, kind = _HEADER.unpack_from(message, third)
    if kinds != [NFTA_RULE_TABLE, NFTA_RULE_CHAIN] or (length, kind & TYPE_MASK) != (12, NFTA_RULE_HANDLE):
        _malformed()
    name = text(message[second + 4 : third])
    if not wanted(name):
        return None
    try:
        return CountedChain(family_of(message), text(message[NFGENMSG_SIZE + 4 : second]), name, [])
    except ValueError:
        _malformed()


def _counters(message: bytes, place: int) -> tuple[int, int] | None:
    """Of a rule in which something else looks like a counter's name, or whose numbers are padded."""
    try:
        for _, expression in parse_list(parse(message[place:]).get(4, b"")):  # EXPRESSIONS=4
            outer = parse(expression)  # NAME=1 DATA=2
            if text(outer.get(1, b"")) == "counter":
                values = parse(outer.get(2, b""))  # BYTES=1 PACKETS=2
                return number(values.get(2, b"")), number(values.get(1, b""))
    except ValueError:
        _malformed()
    return None


def _malformed() -> NoReturn:
    raise EvidenceError("the kernel's nf_tables answered in a form not understood (a rule's frame); report it")


class _NoSets:
    """Sets are of no interest to what a rule counts for: a lookup stays a statement that is not understood."""

    def describe(self, name: str) -> NoReturn:
        raise KeyError(name)

    def content(self, *_: object) -> NoReturn:
        raise KeyError


def decode_rules(chain: CountedChain) -> Sequence[Rule]:
    """The rules of a chain, without the sets that they look into. Raises `EvidenceError`."""
    try:
        return tuple(decode_rule(rule.message, _NoSets()) for rule in chain.rules)
    except (KeyError, ValueError):
        _malformed()
