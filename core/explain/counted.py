"""The second witness: counters of the rules on the predicted path, before and after."""

from __future__ import annotations

from collections import Counter as Tally
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.model.explanation import Finding, Witness
from calico_debug.model.nft import Log, Reject, SetMeta, Verdict
from calico_debug.model.observation import RulePlace

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from calico_debug.model.explanation import Evidence, FlowExplanation, Step
    from calico_debug.model.nft import Rule
    from calico_debug.model.observation import Observation, ProbeReport, Watched

MOVED, STILL, RESET, REWRITTEN, NOT_COUNTED = "moved", "still", "reset", "rewritten", "not counted"
"""What became of a counter. A rule is rewritten when another, or none, stands where it stood."""

STOPS = ("denied", "rejected")
_NOT_MET = ("closest", "no match")
"""Actions of steps whose rule the packet does not match."""


@dataclass(frozen=True, slots=True)
class Movement:
    """One rule of the predicted path. ``packets`` is by how much its counter rose; ``step`` is None for a decision's.

    ``expected`` tells that the flow's packets should count there.
    """

    place: RulePlace
    change: str
    packets: int
    step: Step | None
    expected: bool


def place_of(evidence: Evidence | None) -> RulePlace | None:
    """The rule that evidence names; None when it names none."""
    if evidence is None:
        return None
    if evidence.rule_id:
        return RulePlace(rule_id=evidence.rule_id)
    if not evidence.table or not evidence.chain or evidence.handle is None:
        return None
    return RulePlace(evidence.table, evidence.chain, evidence.handle)


def places(explanation: FlowExplanation, node: str) -> tuple[RulePlace, ...]:
    """The rules of the predicted path on one node, those of hypothetical steps included, each once."""
    evidence: list[Evidence | None] = [step.evidence for step in explanation.steps if step.node == node]
    if explanation.decision is not None and explanation.decision.node == node:
        evidence.append(explanation.decision.evidence)
    return tuple(dict.fromkeys(place for item in evidence if (place := place_of(item)) is not None))


def movements(explanation: FlowExplanation, node: str, watched: Watched) -> list[Movement]:
    """What each rule's counter did, in the order of the path."""
    met = _steps_by_place(explanation, node)
    found = []
    for place in places(explanation, node):
        before, after = watched.before.get(place), watched.after.get(place)
        if before is not None and before.rule is not None and _is_twin(before.rule):
            continue
        step = met.get(place)
        expected = step is None or (not step.hypothetical and step.action not in _NOT_MET)
        change, packets = STILL, 0
        if before is None:
            change = NOT_COUNTED if after is None else REWRITTEN
        elif after is None or not _same(before.rule, after.rule):
            change = REWRITTEN
        elif after.packets < before.packets:
            change = RESET
        elif after.packets > before.packets:
            change, packets = MOVED, after.packets - before.packets
        found.append(Movement(place, change, packets, step, expected))
    return found


def traced_packets(observation: Observation | None, place: RulePlace) -> int | None:
    """How many packets of this flow met a rule, as traced; None when none were, or not all of them."""
    if observation is not None and not observation.lost and not observation.full and not place.rule_id:
        seen = Tally(
            RulePlace(f"{event.family} {event.table}", event.chain, event.handle)
            for packet in observation.packets
            for event in packet.events
            if event.handle is not None
        )
        if observation.packets:
            return seen[place]
    return None


def counted(
    explanation: FlowExplanation,
    node: str,
    watched: Watched,
    observation: Observation | None,
    probe: ProbeReport | None,
    before: str = "",
) -> tuple[Witness, list[Finding]]:
    """What the counters say of the prediction. Only a rule that counted this flow's packets alone settles anything.

    ``before`` says what may have taken packets that did not come to the rules.
    """
    moves = movements(explanation, node, watched)
    findings = [_disturbed(move, node) for move in moves if move.change in (RESET, REWRITTEN)]
    key = _deciding(explanation, node, moves)
    if key is None:
        detail = _without_decision(explanation, node, moves, watched) + _drops(watched)
        return Witness("undetermined", node, detail, watched.ended), findings
    stops = explanation.verdict in STOPS
    name = "drop counter of that rule" if stops else "counter of that rule"
    scope = ", which counts for the whole node," if key.place.rule_id else ""
    span = f"in {watched.seconds:g} s"
    traced = traced_packets(observation, key.place)
    sent = probe.sent if probe is not None and not probe.error else None
    verdict = "undetermined"
    if key.change in (RESET, REWRITTEN, NOT_COUNTED):
        why = {
            RESET: "was reset meanwhile",
            REWRITTEN: "is gone: the rule was rewritten meanwhile",
        }
        detail = f"the {name} {why[key.change]}" if key.change in why else "the rule that decides has no counter"
    elif key.change == STILL:
        detail = f"{name}{scope} did not move {span}"
        if sent and traced is None and _has_other_deciders(explanation):
            detail += ", as another rule may decide for another backend or port"
        elif sent and traced is None and before:
            detail += before
        elif sent and traced is None:
            detail += f", though {_number(sent, 'probe packet')} went out"
            findings.append(_dissent(explanation, detail))
    else:
        text = f"{name}{scope} +{key.packets} {span}"
        ways = ["--probe"] if explanation.source.node else []
        ways += ["--observe"] if observation is None and not key.place.rule_id else []
        detail, verdict = _weighed(explanation, key, traced, sent, text, " or ".join(ways))
    detail += _hypothetical(moves) + _drops(watched)
    return Witness(verdict, node, detail, watched.ended), findings


def _has_other_deciders(explanation: FlowExplanation) -> bool:
    """Whether the rule of the decision is one of several that may decide."""
    return len(explanation.backends) > 1 or any(finding.code == "depends-on" for finding in explanation.findings)


def _weighed(
    explanation: FlowExplanation, key: Movement, traced: int | None, sent: int | None, text: str, ways: str
) -> tuple[str, str]:
    """Whether a rise fits this flow alone, and what it then shows. ``ways`` are options that would tell.

    Packets that were traced to the rule are in its counter for certain; probes that were only sent may have met another
    rule, so their number has to fit exactly.
    """
    own = sent if traced is None else traced
    if own is None:
        told = f", {ways} tell{'' if ' ' in ways else 's'}" if ways else ""
        return f"{text}: by this flow or by others that meet the rule{told}", "undetermined"
    if not own:
        return f"{text}, none of it by packets of this flow", "undetermined"
    if key.place.rule_id and explanation.verdict not in STOPS and key.packets < own:
        # The programs ask policy about what opens a connection, and not again where both ends have approved it.
        return f"{text}: repeated packets of a connection that the programs know are not counted", explanation.verdict
    if key.packets < own:
        return f"{text}, fewer than the {_number(own, 'packet')} of this flow", "undetermined"
    if key.packets == own:
        return text, explanation.verdict
    if traced is None:
        return f"{text}: others meet the rule, too, as {_number(own, 'probe packet')} went out", "undetermined"
    return f"{text}: {_number(own, 'packet')} of this flow, {key.packets - own} of others", explanation.verdict


def _deciding(explanation: FlowExplanation, node: str, moves: Sequence[Movement]) -> Movement | None:
    """The rule of the decision, when it stands on this node and has a counter."""
    decision = explanation.decision
    if decision is None or decision.node != node or (wanted := place_of(decision.evidence)) is None:
        return None
    return next((move for move in moves if move.place == wanted), None)


def _without_decision(explanation: FlowExplanation, node: str, moves: Iterable[Movement], watched: Watched) -> str:
    """What to say when the deciding rule cannot be read here."""
    decision = explanation.decision
    elsewhere = decision is not None and decision.node not in ("", node)
    why = f"the deciding rule is on {decision.node}" if decision and elsewhere else "no rule with a counter decided"
    moved = [move for move in moves if move.change == MOVED and move.expected]
    if not moved:
        return f"{why}; no counter of the predicted path moved on {node} in {watched.seconds:g} s"
    told = ", ".join(f"{_called(move)} +{move.packets}" for move in moved)
    return f"{why}; on the way there, in {watched.seconds:g} s: {told}"


def _hypothetical(moves: Iterable[Movement]) -> str:
    """Rules behind a denial that counted all the same: others' packets, or a denial that is none."""
    moved = [move for move in moves if move.change == MOVED and not move.expected]
    if not moved:
        return ""
    return "; beside the path " + ", ".join(f"{_called(move)} +{move.packets}" for move in moved)


def _drops(watched: Watched) -> str:
    """What the eBPF programs of the flow's interfaces dropped meanwhile, of whatever flow."""
    rises = {place: after - watched.drops_before.get(place, 0) for place, after in watched.drops_after.items()}
    told = [f"{interface} dropped {reason} +{rise}" for (interface, reason), rise in rises.items() if rise > 0]
    return f"; of all flows {', '.join(told)}" if told else ""


def _called(move: Movement) -> str:
    step = move.step
    if step is not None and step.policy is not None:
        scope = f"{step.policy.namespace}/" if step.policy.namespace else ""
        index = f", rule {step.rule.index}" if step.rule is not None and step.rule.index is not None else ""
        return f"{scope}{step.policy.name}{index}"
    return f"rule id {move.place.rule_id}" if move.place.rule_id else f"{move.place.chain} handle {move.place.handle}"


def _disturbed(move: Movement, node: str) -> Finding:
    where = f"{move.place.table}, chain {move.place.chain}, handle {move.place.handle} on {node}"
    what = "has counted from 0 again" if move.change == RESET else "is not what it was when the watch began"
    return Finding(
        "counters-disturbed",
        "warning",
        f"the rule of table {where} {what}: its counter says nothing of this flow; watch again",
    )


def _dissent(explanation: FlowExplanation, detail: str) -> Finding:
    return Finding(
        "witness-dissents",
        "warning",
        f"predicted {explanation.verdict}, but the {detail}: the packets met another rule or never came there; "
        "--observe shows where they went",
    )


def _number(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"


def _steps_by_place(explanation: FlowExplanation, node: str) -> dict[RulePlace, Step]:
    """The first step of each rule, real ones before hypothetical ones."""
    found: dict[RulePlace, Step] = {}
    for step in sorted(explanation.steps, key=lambda item: item.hypothetical or item.action in _NOT_MET):
        place = place_of(step.evidence)
        if step.node == node and place is not None:
            found.setdefault(place, step)
    return found


def _is_twin(rule: Rule) -> bool:
    """A rule that only copies packets to flow logs counts the same packets as the rule that it stands beside."""
    copies = any(isinstance(s, Log) and s.group is not None for s in rule.statements)
    return copies and not any(isinstance(s, Verdict | Reject | SetMeta) for s in rule.statements)


def _same(one: Rule | None, other: Rule | None) -> bool:
    """Whether two readings are of one rule: counters do not take part in comparing statements."""
    if one is None or other is None:
        return one is other
    return one.statements == other.statements and one.comment == other.comment
