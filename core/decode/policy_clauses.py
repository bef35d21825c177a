"""What must hold for a rule of a policy program, from the comments that Felix writes before each comparison.

Source: felix/bpf/polprog/pol_prog_builder.go (writeProtoMatch, writeCIDRSMatch, writeIPSetMatch, writeIPSetOrMatch,
writePortsMatch, writeICMPTypeMatch, writeICMPTypeCodeMatch), the same in v3.28 to v3.32.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from calico_debug.model.bytecode import Clause, Instruction
from calico_debug.model.flow import protocol_name

_SIDES: Final = {"source": "source", "dest": "destination", "destPreNAT": "destination"}
_SIDE: Final = "(?P<side>source|dest|destPreNAT)"
_PROTOCOL: Final = re.compile(r"If protocol (?P<test>!=|==) (?P<wanted>.*), skip to next rule")
_NETWORKS: Final = re.compile(rf"If {_SIDE} (?P<test>not in|in) \{{(?P<wanted>.*)\}}, skip to next rule")
_IP_SET: Final = re.compile(
    rf"If {_SIDE} (?P<test>doesn't match|matches) ipset (?P<wanted>\S+) \(0x[0-9a-f]+\), skip to next rule"
)
_PORTS: Final = re.compile(
    rf"If {_SIDE} port (?P<test>is not within|is within) any of \{{(?P<wanted>.*)\}}, skip to next rule"
)
_NAMED_PORTS: Final = re.compile(
    rf"If {_SIDE} port (?:is not within|is within) any of the named ports \{{(?P<wanted>.*)\}}, skip to next rule"
)
_ICMP: Final = re.compile(
    r"If ICMP type (?P<test>!=|==) (?P<type>\d+)(?: (?:or|and) code (?:!=|==) (?P<code>\d+))?, skip to next rule"
)
_NEGATED: Final = frozenset({"==", "in", "matches", "is within"})
"""Words after which the rule is left when the comparison holds."""
_WITH_PORTS: Final = ("svc:", "n:")
"""Prefixes of IP sets whose members have a port: services, named ports (libcalico-go/lib/hash, MakeUniqueID)."""

UNREAD: Final = Clause("")
"""A comparison that is not understood."""


def starts_clause(comment: str) -> bool:
    """Whether a comment stands before a comparison of its own, and not before the second half of one."""
    return comment.startswith("If ") and _NAMED_PORTS.fullmatch(comment) is None


def read_clause(comment: str) -> Clause:
    """The clause that a comment tells of; `UNREAD` if it is none of Felix's."""
    if found := _PROTOCOL.fullmatch(comment):
        return Clause("protocol", found["wanted"], found["test"] in _NEGATED)
    if found := _NETWORKS.fullmatch(comment):
        return Clause(_SIDES[found["side"]], found["wanted"].replace(",", ", "), found["test"] in _NEGATED)
    if found := _IP_SET.fullmatch(comment):
        name = found["wanted"]
        return Clause(
            _SIDES[found["side"]], f"set {name}", found["test"] in _NEGATED, True, name.startswith(_WITH_PORTS)
        )
    if found := _PORTS.fullmatch(comment):
        return Clause(f"{_SIDES[found['side']]} ports", found["wanted"].replace(",", ", "), found["test"] in _NEGATED)
    if found := _ICMP.fullmatch(comment):
        code = f" code {found['code']}" if found["code"] is not None else ""
        return Clause("icmp", f"type {found['type']}{code}", found["test"] in _NEGATED)
    return UNREAD


def with_named_ports(clause: Clause, comment: str) -> Clause:
    """The ports' clause with the named ones, which Felix tells of behind the numbers.

    A set of a named port holds addresses with their ports: those of the endpoints that the rule's side selects.
    """
    found = _NAMED_PORTS.fullmatch(comment)
    if found is None or not found["wanted"] or not clause.kind.endswith(" ports"):
        return clause
    wanted = ", ".join(
        part for part in (clause.wanted, *(f"set {name}" for name in found["wanted"].split(","))) if part
    )
    return replace(clause, wanted=wanted, by_set=True, with_ports=True)


def with_number(clause: Clause, code: Sequence[Instruction]) -> Clause:
    """The protocol's clause with what its ``code`` compares: Felix prints "" for most numbers, and "udp" for 11.

    A name that Felix does not know is compared as 0, and kept.
    """
    if clause.kind != "protocol" or len(code) < 2 or code[1].immediate <= 0:
        return clause
    return replace(clause, wanted=protocol_name(code[1].immediate))
