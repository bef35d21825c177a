"""``-o text``: the story of one flow. A header, then labelled lines in the order the packet meets things."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from calico_debug.cli.render import words
from calico_debug.cli.render.terminal import Style, safe, wrap
from calico_debug.model.explanation import VERDICTS, Decision, FlowExplanation, Step, Witness

ALWAYS_SHOWN = ("service", "egress", "ingress", "host", "reply")
"""Stages that make the story; the steps of the others are shown only where they decide."""

NOT_SHOWN = ("no match",)
"""Actions that are left to ``-o wide``."""

_ADVICE_LABELS = {"denied": "to allow", "rejected": "to allow", "allowed": "to deny"}
"""What advice of a flow with this verdict is for."""

_STOPS = ("denied", "rejected", "undetermined", "dropped")
_HEADER_COLUMNS = 66
_LABEL_COLUMNS = 8
_ACTION_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled line. ``tier`` and ``action`` are columns of their own, aligned among the rows of one label."""

    label: str
    text: str
    tier: str = ""
    action: str = ""


def render(explanation: FlowExplanation, style: Style) -> str:
    """The explanation as text for people."""
    return "\n".join([header(explanation, style), *lay_out(rows(explanation), style)]) + "\n"


def header(explanation: FlowExplanation, style: Style) -> str:
    """Verdict, protocol, the addresses on the way, and the node that decided with its dataplane."""
    ends = [
        words.address(explanation.source.ip, explanation.source.port),
        words.address(explanation.destination.ip, explanation.destination.port),
    ]
    if len(explanation.backends) == 1:
        backend = words.address(explanation.backends[0].ip, explanation.backends[0].port)
        ends += [backend] if backend != ends[-1] else []
    elif explanation.backends:
        ends.append(f"{len(explanation.backends)} backends")
    verdict = explanation.verdict.upper()
    line = safe(f"{verdict.ljust(_LABEL_COLUMNS)} {explanation.protocol} {' -> '.join(ends)}")
    node = safe(words.home(explanation))
    dataplane = safe(explanation.decision.dataplane) if explanation.decision and node else ""
    place = " ".join(part for part in (node, f"({dataplane})" if dataplane else "") if part)
    full = f"{line.ljust(_HEADER_COLUMNS)}  {place}" if place else line
    return style.paint(verdict) + full[len(verdict) :]


def rows(explanation: FlowExplanation) -> list[Row]:
    """Every line below the header."""
    home = words.home(explanation)
    decision, verdict = explanation.decision, explanation.verdict
    found: list[Row] = []
    shown = [step for step in explanation.steps if _is_shown(step, decision, verdict)]
    for (hypothetical, _stage, _node), steps in groupby(
        shown, key=lambda step: (step.hypothetical, step.stage, step.node)
    ):
        if hypothetical:
            found.extend(_hypothetical(list(steps)))
        else:
            found.extend(_happened(step, home) for step in steps)
    if not any(_decides(step, decision, verdict) for step in explanation.steps):
        found.extend(_decision(explanation))
    found.extend(_backends(explanation))
    if explanation.new_connection is not None:
        new = words.outcome(explanation.new_connection.verdict, explanation.new_connection.decision)
        found.append(Row("if new", f"a new connection would be {new}"))
    found.extend(_evidence(explanation))
    found.extend(
        Row("findings", f"{finding.severity}: {finding.message} ({finding.code})") for finding in explanation.findings
    )
    label = _ADVICE_LABELS.get(verdict, "advice")
    found.extend(Row(label, advice.message) for advice in explanation.advice)
    return found


def _is_shown(step: Step, decision: Decision | None, verdict: str) -> bool:
    if step.stage in ALWAYS_SHOWN:
        return step.action not in NOT_SHOWN
    return not step.hypothetical and (step.action in _STOPS or _decides(step, decision, verdict))


def _decides(step: Step, decision: Decision | None, verdict: str) -> bool:
    """Whether this step is the one that the decision is about."""
    if decision is None or step.hypothetical or step.node != decision.node:
        return False
    if step.evidence is not None and step.evidence == decision.evidence:
        return True
    if not (decision.tier or decision.policy or decision.rule):
        # Many steps let a packet go on and need no policy for it: only a stop shows by itself why it decided.
        return step.action in _STOPS and (step.action == verdict or step.detail == decision.detail)
    return (
        step.action == verdict
        and step.tier == decision.tier
        and step.policy in (None, decision.policy)
        and step.rule in (None, decision.rule)
    )


def _happened(step: Step, home: str) -> Row:
    text = words.closest_text(step) if step.action == "closest" else words.step_text(step)
    elsewhere = f" (on {step.node})" if step.node and step.node != home and step.action != "closest" else ""
    # What a service step did is told by its own words; elsewhere the action heads the line.
    action = "" if step.stage == "service" and step.action not in _STOPS and text else words.action_word(step.action)
    tier = f"tier {step.tier}" if step.tier and step.action != "closest" else ""
    return Row(step.stage, text + elsewhere, tier, action)


def _hypothetical(steps: list[Step]) -> Iterator[Row]:
    """What the rest of the path would have done: its outcome in one line, and the rule that came closest."""
    settled = [step for step in steps if step.action in VERDICTS]
    for step in settled[-1:] or steps[-1:]:
        who = words.attribution(step.policy, step.rule)
        where = f" on {step.node}" if step.node else ""
        why = f" by {who}" if step.policy and step.rule else f": {step.detail or who}" if step.detail or who else ""
        yield Row(step.stage, f"would be {words.action_word(step.action)}{where}{why}")
    yield from (Row(step.stage, f"closest: {words.closest_text(step)}") for step in steps if step.action == "closest")


def _decision(explanation: FlowExplanation) -> Iterator[Row]:
    if explanation.decision is not None:
        yield Row("decision", words.because(explanation.decision), action=explanation.verdict.upper())


def _backends(explanation: FlowExplanation) -> Iterator[Row]:
    backends = explanation.backends
    if len({backend.verdict for backend in backends}) < 2:
        return
    for backend in backends:
        where = " on ".join(part for part in (words.pod_name(backend), backend.node) if part)
        why = words.because(backend.decision) if backend.decision else ""
        text = ", ".join(part for part in (where, why) if part)
        yield Row("backends", text, words.address(backend.ip, backend.port), backend.verdict.upper())


def _evidence(explanation: FlowExplanation) -> Iterator[Row]:
    """The witnesses, each of another opinion marked as such, then the place in the kernel that shows the decision; a
    witness on several nodes has lines of its own, node by node.
    """
    several = {name: witness for name, witness in explanation.witnesses.items() if len(witness.nodes) > 1}
    said = [
        f"{_opinion(name, witness, explanation)}{witness.detail or name}"
        for name, witness in explanation.witnesses.items()
        if name not in several
    ]
    if said:
        yield Row("evidence", "; ".join(said))
    if explanation.decision and (place := words.evidence_text(explanation.decision.evidence)):
        yield Row("evidence", place)
    for name, witness in several.items():
        opinion = _opinion("", witness, explanation)
        for one in witness.nodes:
            yield Row(name, f"{opinion}on {one.node} {one.detail}")
            opinion = ""


def _opinion(name: str, witness: Witness, explanation: FlowExplanation) -> str:
    if witness.verdict == explanation.verdict:
        return ""
    said = "leaves it open" if witness.verdict == "undetermined" else f"says {witness.verdict.upper()}"
    return f"{name} {said}: ".lstrip()


def lay_out(found: list[Row], style: Style) -> list[str]:
    """The rows as lines: a label once for the rows that follow each other under it, columns aligned below it."""
    shown = [Row(safe(row.label), safe(row.text), safe(row.tier), safe(row.action)) for row in found]
    margin = 2 + max([_LABEL_COLUMNS, *(len(row.label) for row in shown)]) + 2
    lines: list[str] = []
    for label, group in groupby(shown, key=lambda row: row.label):
        block = list(group)
        tier_columns = max(len(row.tier) for row in block)
        action_columns = max(_ACTION_COLUMNS, *(len(row.action) for row in block))
        has_action = any(row.action for row in block)
        head = f"  {label}".ljust(margin)
        for row in block:
            lines.extend(_line(head, row, tier_columns, action_columns if has_action else 0, style))
            head = " " * margin
    return lines


def _line(head: str, row: Row, tier_columns: int, action_columns: int, style: Style) -> Iterator[str]:
    start = head + (f"{row.tier.ljust(tier_columns)}  " if tier_columns else "")
    indent = len(start)
    if action_columns:
        start += style.paint(row.action) + " " * (action_columns - len(row.action) + 2)
        indent += action_columns + 2
    for part in wrap(row.text, indent, style):
        yield (start + part).rstrip()
        start = " " * indent
