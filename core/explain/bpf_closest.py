"""After a denial at the end of a tier in the eBPF dataplane: the allowing rule that came closest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.explain.bpf_policy import identity_of, policy_and_rule, stage_of
from calico_debug.explain.closest_words import Asked, Unmet, by_clause, rule_in_words
from calico_debug.model.explanation import Evidence, RuleRef, Step
from calico_debug.policy.programmed import programmed_rules
from calico_debug.walk.bpf_clauses import missed_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from calico_debug.model.bytecode import Clause, Section
    from calico_debug.model.cluster import PolicyObject
    from calico_debug.policy.identity import PolicyIndex
    from calico_debug.walk.bpf_clauses import MissedRule
    from calico_debug.walk.bpf_datapath import BpfDatapath
    from calico_debug.walk.bpf_outcomes import PolicyResult
    from calico_debug.walk.bpf_state import PolicyPacket
    from calico_debug.walk.packet import Packet


def closest_step(
    result: PolicyResult,
    node: str,
    packet: Packet,
    index: PolicyIndex,
    datapath: BpfDatapath,
    name: Callable[[int, int], str],
    hypothetical: bool,
) -> Step | None:
    """The step "closest" for a run that the end of a tier denied; None where no rule is certain to be closest.

    ``name`` gives (family, address) a name for people.
    """
    if result.program is None or result.asked is None or not result.denied:
        return None
    missed = missed_rules(result.program, result.run, result.asked, datapath.sets, host=result.host)
    near = _nearest(missed)
    if near is None:
        return None
    section, failed = near
    ref, rule = policy_and_rule(section, result.direction, index)
    found = _object(section, rule, result.direction, packet.family, index)
    number = rule.index if found is not None else None
    text = rule_in_words(
        found, result.direction, number, section.index, rule.action, failed, _asked(packet, result.asked), name
    )
    evidence = None
    if section.match_id:
        counter = datapath.lookups.rule_counter(section.match_id)
        evidence = Evidence(rule_id=f"{section.match_id:016x}", counter=counter)
    tier, direction = section.tier, result.direction
    told = RuleRef(rule.action, number)
    return Step(node, stage_of(result), "closest", text, direction, tier, ref, told, evidence, hypothetical)


def _nearest(missed: Sequence[MissedRule]) -> tuple[Section, Mapping[str, Unmet]] | None:
    best: tuple[Section, Mapping[str, Unmet]] | None = None
    for rule in missed:
        failed: dict[str, Unmet] = {}
        for clause in rule.failed:
            failed.setdefault(clause.kind, _unmet(clause))
        counted = by_clause(failed)
        if best is None or len(counted) < len(best[1]):
            best = rule.section, counted
    return best


def _unmet(clause: Clause) -> Unmet:
    return Unmet(clause.wanted, clause.negated, clause.with_ports)


def _object(section: Section, rule: RuleRef, direction: str, family: int, index: PolicyIndex) -> PolicyObject | None:
    """The policy's object if its rule of that number is what is programmed; else the program's own words are true."""
    identity = identity_of(section)
    found = index.find(identity) if identity is not None else None
    programmed = programmed_rules(found, direction, family) if found is not None else None
    known = any(one.index == rule.index and one.action == rule.action for one in programmed or ())
    return found if known else None


def _asked(packet: Packet, asked: PolicyPacket) -> Asked:
    translated = asked.original_port is not None and asked.original_port != packet.dport
    return Asked(
        packet.family,
        packet.protocol,
        packet.source,
        packet.destination,
        packet.sport,
        packet.dport,
        (packet.icmp_type, packet.icmp_code),
        translated,
    )
