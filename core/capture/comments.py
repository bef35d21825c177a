"""What a captured packet's comment says: where it was, what became of it, and what is predicted for its flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.capture.aim import allowed_before
from calico_debug.explain.packet_drops import drop_words, on_the_way
from calico_debug.explain.packet_story import VERBS, direction
from calico_debug.model.explanation import REASONS
from calico_debug.model.packet_event import DROPPED
from calico_debug.model.printable import safe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.capture.flows import FlowOf
    from calico_debug.capture.predictions import Prediction
    from calico_debug.explain.packet_story import Places
    from calico_debug.model.explanation import BackendOutcome, FlowEnd, FlowExplanation, PolicyRef, RuleRef
    from calico_debug.model.packet_event import PacketEvent


def comment(
    event: PacketEvent,
    places: Places,
    marks: Sequence[str],
    prediction: Prediction | None,
    flow: FlowOf | None = None,
    decided: str = "",
) -> str:
    """One line, harmless to print. ``flow`` is the packet's, ``decided`` how the captured policy decides it."""
    way = direction(event) or ("answer" if flow is not None and flow.reply else "")
    parts = [f"{way} {VERBS[event.kind]}".strip() + f" {places.of(event)}"]
    if event.kind == DROPPED:
        parts[0] += f": {drop_words(event, places)}"
    if marks:
        parts.append(f"mark {', '.join(marks)}")
    if prediction is not None and prediction.explanation is not None:
        sure = flow is None or flow.sure
        backend = _backend(prediction.explanation, event, way)
        opening = "" if sure else "if this packet opened its connection, "
        parts.append(opening + predicted(prediction.explanation, backend))
        verdict = (backend or prediction.explanation).verdict
        if event.kind == DROPPED and on_the_way(event) and verdict == "allowed":
            parts.append("policy would not drop it")
    elif prediction is not None and prediction.problem:
        parts.append(f"no prediction: {prediction.problem}")
    if decided:
        parts.append(decided)
    return safe("; ".join(parts))


def _backend(explanation: FlowExplanation, event: PacketEvent, way: str) -> BackendOutcome | None:
    """The one of several backends that a packet shows to be the connection's, behind the translation."""
    ends = event.ends
    ip, port = (ends.source, ends.source_port) if way == "answer" else (ends.destination, ends.destination_port)
    backends = explanation.backends if len(explanation.backends) > 1 else ()
    return next((one for one in backends if one.ip == str(ip) and one.port in (port or None, None)), None)


def predicted(explanation: FlowExplanation, backend: BackendOutcome | None = None) -> str:
    """Verdict, tier, policy, rule and reason, each with its word, so that a display filter finds them; those of the
    ``backend``, if one is known.
    """
    verdict, decision = (backend or explanation).verdict, (backend or explanation).decision
    whose = f" for backend {backend.ip}" if backend is not None else ""
    if decision is None:
        return f"predicted {verdict.upper()}{whose}"
    parts = [f"predicted {verdict.upper()}{whose}{f' on {decision.node}' if decision.node else ''}"]
    parts += _who(decision.tier, decision.policy, decision.rule)
    why = decision.detail or REASONS.get(decision.reason, "")
    parts.append(f"reason {decision.reason}{f': {why}' if why else ''}")
    if backend is None and (step := allowed_before(explanation)) is not None:
        parts.append(f"before that {step.direction} allowed on {step.node}")
        parts += _who(step.tier, step.policy, step.rule)
    return "; ".join(parts)


def _who(tier: str, policy: PolicyRef | None, rule: RuleRef | None) -> list[str]:
    parts = [f"tier {tier}"] if tier else []
    if policy is not None:
        parts.append(f"policy {policy.kind} {f'{policy.namespace}/' if policy.namespace else ''}{policy.name}")
    if rule is not None:
        parts.append("a rule" if rule.index is None else f"rule {rule.index}")
    return parts


def names(explanation: FlowExplanation) -> dict[str, list[str]]:
    """Names of the flow's addresses, as DNS would write them."""
    found: dict[str, list[str]] = {}
    ends: tuple[FlowEnd | BackendOutcome, ...] = (explanation.source, explanation.destination, *explanation.backends)
    for end in ends:
        if end.pod:
            found.setdefault(end.ip, []).append(f"{end.pod.get('name', '')}.{end.pod.get('namespace', '')}.pod")
    if service := explanation.destination.service:
        name = f"{service.get('name', '')}.{service.get('namespace', '')}.svc"
        found.setdefault(explanation.destination.ip, []).append(name)
    return found
