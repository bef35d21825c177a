"""Rules over all nodes, with what Prometheus remembers of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from calico_debug.explain.attribution import PROFILE
from calico_debug.hits.model import (
    EMPTY,
    EVALUATIONS,
    NOT_MET,
    PACKETS,
    UNREACHABLE,
    HitReport,
    NodeCount,
    NodeHits,
    RuleHits,
    RuleKey,
    everywhere,
)
from calico_debug.model.explanation import API_VERSION
from calico_debug.state.dataplane import EBPF

if TYPE_CHECKING:
    from calico_debug.hits.history import History

KIND: Final = "RuleHits"
UNUSED: Final = (NOT_MET, UNREACHABLE, EMPTY)


def hit_report(nodes: Sequence[NodeHits], history: History | None = None) -> HitReport:
    """Every rule once, tiers and policies in the order of the nodes. ``history`` has the whole cluster's counts."""
    by_rule: dict[RuleKey, list[NodeCount]] = {}
    for node in nodes:
        for one in node.counts:
            by_rule.setdefault(one.key, []).append(one)
    known = history.rules if history is not None else {}
    rules = [_rule(key, found, known, history is not None) for key, found in by_rule.items()]
    rules += [_remembered(key, known) for key in sorted(known) if key not in by_rule]
    notes = [f"{node.node}: {note}" for node in nodes for note in node.notes]
    since = dict.fromkeys(node.since for node in nodes)
    if history is not None:
        notes += history.notes
        return HitReport(history.since, tuple(rules), tuple(notes))
    return HitReport("; ".join(since), tuple(rules), tuple(notes))


def _rule(key: RuleKey, found: Sequence[NodeCount], known: Mapping[RuleKey, Any], asked: bool) -> RuleHits:
    counts = [one.count for one in found]
    sizes = [one.bytes for one in found]
    past = known.get(key)
    return RuleHits(
        key,
        EVALUATIONS if key.dataplane == EBPF else PACKETS,
        _total(counts),
        _total(sizes),
        next((one.text for one in found if one.text), ""),
        tuple((one.node, one.count) for one in found),
        everywhere([one.proof for one in found]),
        past.growth if past is not None else 0.0 if asked else None,
        past.resets if past is not None else 0,
    )


def _remembered(key: RuleKey, known: Mapping[RuleKey, Any]) -> RuleHits:
    """A rule that only Prometheus knows: of another node, or one that is gone."""
    past = known[key]
    unit = EVALUATIONS if key.dataplane == EBPF else PACKETS
    return RuleHits(key, unit, past.last, past=past.growth, resets=past.resets)


def _total(counts: Sequence[int | None]) -> int | None:
    """The sum of those that were counted; None if none was."""
    known = [one for one in counts if one is not None]
    return sum(known) if known else None


def unused(rules: Iterable[RuleHits]) -> Iterable[RuleHits]:
    """Rules of policies that were not met, or cannot be; profiles are Calico's own, and ends of tiers no rules."""
    return (one for one in rules if one.standing in UNUSED and one.key.policy and one.key.kind not in ("", PROFILE))


def document(report: HitReport) -> Mapping[str, Any]:
    """The report for machines (docs/cli.md)."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "since": report.since,
        "rules": [_document(one) for one in report.rules],
        "notes": list(report.notes),
    }


def _document(one: RuleHits) -> Mapping[str, Any]:
    key = one.key
    named = {"kind": key.kind, "namespace": key.namespace, "name": key.policy}
    proof = one.proof
    return {
        "dataplane": key.dataplane,
        "direction": key.direction,
        **({"tier": key.tier} if key.tier else {}),
        **({"policy": {name: value for name, value in named.items() if value}} if key.policy else {}),
        "rule": key.rule,
        "action": key.action,
        **({"text": one.text} if one.text else {}),
        "unit": one.unit,
        "count": one.count,
        **({"bytes": one.bytes} if one.bytes is not None else {}),
        "standing": one.standing,
        **({"proof": {"holds": proof.holds, "by": list(proof.by)}} if proof is not None else {}),
        **({"nodes": [{"node": node, "count": count} for node, count in one.nodes]} if one.nodes else {}),
        **({"window": {"growth": one.past, "resets": one.resets}} if one.past is not None else {}),
    }
