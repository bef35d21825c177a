"""Of the rules that did not match, the one that came closest, and what kept it from matching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.model.flow import protocol_name
from calico_debug.model.nft import Bitwise, Concat, Expression, Lookup, Match, Meta, Payload, Shift, Statement
from calico_debug.model.routing import address_from_int
from calico_debug.policy.wording import clauses, describe_rule
from calico_debug.walk.choices import Chooser
from calico_debug.walk.context import Context, Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from calico_debug.explain.attribution import NamedPolicy
    from calico_debug.explain.rulegroups import RuleGroup
    from calico_debug.walk.node import NodeWalker
    from calico_debug.walk.packet import Ends, Packet

_NETWORK_FIELDS = {
    4: {96: "source", 128: "destination", 72: "protocol"},
    6: {64: "source", 192: "destination", 48: "protocol"},
}
"""Offsets in bits behind the start of the IP header."""
_CLAUSE_ORDER = ("protocol", "source", "destination", "source ports", "destination ports", "icmp", "other")


@dataclass(frozen=True, slots=True)
class Near:
    """A rule that did not match: its policy, its place in it, and the clauses that failed."""

    policy: NamedPolicy
    position: int
    failed: tuple[str, ...]


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


def _failed_clauses(walker: NodeWalker, group: RuleGroup, packet: Packet) -> tuple[str, ...]:
    context = Context(packet, Chooser(), Trace(), walker.surroundings)
    failed: set[str] = set()
    compiled = walker.program.compiled(group.main)
    for statement, operation in zip(group.main.statements, compiled.operations, strict=True):
        if isinstance(statement, Match | Lookup) and operation(context) is False:
            failed.add(clause_of(statement, packet))
    if "protocol" in failed:
        failed -= {"source ports", "destination ports", "icmp"}
    return tuple(clause for clause in _CLAUSE_ORDER if clause in failed)


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
    index = near.policy.indices[near.position]
    found = near.policy.object
    action = near.policy.groups[near.position].action
    if index is None or found is None:
        rule = f"rule {near.position} as programmed ({action})"
        texts: dict[str, str] = {}
    else:
        rule = f"rule {index} ({describe_rule(found, near.policy.direction, index)})"
        texts = dict(clauses(found, near.policy.direction, index))
    whys = "; ".join(_why(clause, texts, packet, ends, name) for clause in near.failed)
    return f"{rule}: {whys}"


def _why(clause: str, texts: dict[str, str], packet: Packet, ends: Ends, name: Callable[[int, int], str]) -> str:
    wanted = texts.get(clause) or texts.get(f"not {clause}")
    match clause:
        case "source" | "destination":
            address = ends.source if clause == "source" else ends.destination
            shown = f"{clause} {address_from_int(packet.family, address)}"
            known = name(packet.family, address)
            shown = f"{shown} ({known})" if known else shown
        case "source ports" | "destination ports":
            port = ends.source_port if clause == "source ports" else ends.destination_port
            shown = f"{clause.removesuffix('s')} {port if isinstance(port, int) else '(not given)'}"
            if clause == "destination ports" and packet.tracking and packet.tracking.original.destination_port != port:
                shown += ", the port after service translation,"
        case "protocol":
            shown = f"protocol {protocol_name(packet.protocol)}"
        case "icmp":
            shown = f"ICMP type {packet.icmp_type} code {packet.icmp_code}"
        case _:
            return "a condition beyond addresses and ports does not hold"
    return f"{shown} is not in {wanted}" if wanted else f"{shown} does not match"
