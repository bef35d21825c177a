"""Of the rules that did not match, the one that came closest, and what kept it from matching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.explain.closest_words import Asked, Unmet, by_clause, rule_in_words
from calico_debug.model.flow import protocol_name
from calico_debug.model.nft import Bitwise, Concat, Expression, Interval, Lookup, Match, Meta, Payload, Shift, Statement
from calico_debug.model.routing import address_from_int
from calico_debug.walk.choices import Chooser
from calico_debug.walk.context import Context, Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from calico_debug.explain.attribution import NamedPolicy
    from calico_debug.explain.rulegroups import RuleGroup
    from calico_debug.walk.node import NodeWalker
    from calico_debug.walk.packet import Ends, Packet

_NETWORK_FIELDS = {
    4: {96: "source", 128: "destination", 72: "protocol"},
    6: {64: "source", 192: "destination", 48: "protocol"},
}
"""Offsets in bits behind the start of the IP header."""


@dataclass(frozen=True, slots=True)
class Near:
    """A rule that did not match: its policy, its place in it, and the matches that failed, by clause."""

    policy: NamedPolicy
    position: int
    failed: Mapping[str, Match | Lookup]


def closest_rule(walker: NodeWalker, policies: Iterable[NamedPolicy], packet: Packet, ends: Ends) -> Near | None:
    """The allowing rule with the fewest failed clauses, the earliest of equals; None when no policy has such a rule."""
    probe = packet.on_the_wire(keep_mark=True)
    probe.readdress(ends)
    probe.incoming, probe.outgoing, probe.tracking = packet.incoming, packet.outgoing, packet.tracking
    best: Near | None = None
    for policy in policies:
        for position, group in enumerate(policy.groups):
            if group.action != "Allow":
                continue
            failed = _failed_clauses(walker, group, probe)
            if failed and (best is None or len(failed) < len(best.failed)):
                best = Near(policy, position, failed)
    return best


def _failed_clauses(walker: NodeWalker, group: RuleGroup, packet: Packet) -> Mapping[str, Match | Lookup]:
    context = Context(packet, Chooser(), Trace(), walker.surroundings)
    failed: dict[str, Match | Lookup] = {}
    compiled = walker.program.compiled(group.main)
    for statement, operation in zip(group.main.statements, compiled.operations, strict=True):
        if isinstance(statement, Match | Lookup) and operation(context) is False:
            failed.setdefault(clause_of(statement, packet), statement)
    return by_clause(failed)


def clause_of(statement: Statement, packet: Packet) -> str:
    """Which part of a policy rule a match belongs to: "source", "destination ports", …"""
    assert isinstance(statement, Match | Lookup)
    key = statement.key if isinstance(statement, Lookup) else statement.left
    if isinstance(key, Concat):
        # A named port or a service: address, protocol and port as one key, and the address says of which side.
        parts = [_clause(part, packet) for part in key.parts]
        return next((part for part in parts if part in ("source", "destination")), "other")
    return _clause(key, packet)


def _clause(expression: Expression, packet: Packet) -> str:
    match expression:
        case Bitwise(operand, _, _) | Shift(operand, _):
            return _clause(operand, packet)
        case Meta("l4proto"):
            return "protocol"
        case Payload("network", offset, _):
            return _NETWORK_FIELDS[packet.family].get(offset, "other")
        case Payload("transport", offset, width):
            if packet.protocol in (1, 58):
                return "icmp"
            return {0: "source ports", 16: "destination ports"}.get(offset if width == 16 else -1, "other")
    return "other"


def tell(near: Near, packet: Packet, ends: Ends, name: Callable[[int, int], str]) -> str:
    """The closest rule in words. ``name`` gives (family, address) a name for people."""
    policy = near.policy
    tracking = packet.tracking
    asked = Asked(
        packet.family,
        packet.protocol,
        ends.source,
        ends.destination,
        ends.source_port,
        ends.destination_port,
        (packet.icmp_type, packet.icmp_code),
        tracking is not None and tracking.original.destination_port != ends.destination_port,
    )
    failed = {kind: _unmet(statement, packet) for kind, statement in near.failed.items()}
    index, action = policy.indices[near.position], policy.groups[near.position].action
    return rule_in_words(policy.object, policy.direction, index, near.position, action, failed, asked, name)


def _unmet(statement: Match | Lookup, packet: Packet) -> Unmet:
    if isinstance(statement, Lookup):
        return Unmet(programmed(statement, packet), statement.negated, isinstance(statement.key, Concat))
    return Unmet(programmed(statement, packet), statement.operator == "!=")


def programmed(statement: Match | Lookup, packet: Packet) -> str:
    """What a match wants, as the kernel has it, for a policy whose object nobody has; "" when it has no short form."""
    clause = clause_of(statement, packet)
    if isinstance(statement, Lookup):
        if isinstance(statement.source, str):
            return f"set {statement.source}"
        members = [
            *(element.key for element in statement.source.exact.values()),
            *(e.key for e in statement.source.ranged),
        ]
        return ", ".join(_scalar(member, clause, packet) for member in members[:_SHOWN]) + (
            ", …" if len(members) > _SHOWN else ""
        )
    if clause == "icmp" and isinstance(statement.left, Payload):
        return f"{'type' if statement.left.offset == 0 else 'code'} {statement.right}"
    if isinstance(statement.left, Bitwise) and isinstance(statement.right, int) and clause in ("source", "destination"):
        length = statement.left.mask.bit_count()
        return f"{address_from_int(packet.family, statement.right)}/{length}"
    return _scalar(statement.right, clause, packet)


_SHOWN = 8
"""Members of a set that are listed before the rest is cut short."""


def _scalar(value: object, clause: str, packet: Packet) -> str:
    if isinstance(value, Interval):
        return f"{_scalar(value.low, clause, packet)}-{_scalar(value.high, clause, packet)}"
    if isinstance(value, int) and clause in ("source", "destination"):
        return str(address_from_int(packet.family, value))
    if isinstance(value, int) and clause == "protocol":
        return protocol_name(value)
    return str(value)
