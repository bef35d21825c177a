"""``-o wide``: the text, then tables of everything behind it: ends, every step with its evidence, witnesses."""

from __future__ import annotations

from calico_debug.cli.render import text, words
from calico_debug.cli.render.terminal import Style, table
from calico_debug.model.explanation import Evidence, FlowExplanation, Step

_STEPS = (
    "#",
    "NODE",
    "STAGE",
    "ACTION",
    "TIER",
    "POLICY",
    "RULE",
    "TABLE",
    "CHAIN",
    "HANDLE",
    "COUNTER",
    "DETAIL",
)


def render(explanation: FlowExplanation, style: Style) -> str:
    """The explanation as text and tables. Tables are not wrapped: they are made to be searched and cut."""
    parts = [text.render(explanation, style).rstrip("\n"), *_tables(explanation)]
    return "\n\n".join(parts) + "\n"


def _tables(explanation: FlowExplanation) -> list[str]:
    tables: list[list[tuple[str, ...]]] = [_ends(explanation)]
    if explanation.steps:
        tables.append([_STEPS, *(_step(number, step) for number, step in enumerate(explanation.steps, 1))])
    if explanation.witnesses:
        tables.append([("WITNESS", "VERDICT", "NODE", "AT", "DETAIL")])
        tables[-1] += [
            (name, witness.verdict.upper(), witness.node, witness.at, witness.detail)
            for name, witness in explanation.witnesses.items()
        ]
    return ["\n".join(table(rows)) for rows in tables]


def _ends(explanation: FlowExplanation) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("END", "ADDRESS", "POD", "SERVICE", "NODE", "INTERFACE", "VERDICT")]
    for name, end in (("source", explanation.source), ("destination", explanation.destination)):
        place = words.address(end.ip, end.port)
        rows.append((name, place, words.pod_name(end), words.service_name(end), end.node, end.interface, ""))
    for backend in explanation.backends:
        place = words.address(backend.ip, backend.port)
        rows.append(("backend", place, words.pod_name(backend), "", backend.node, "", backend.verdict.upper()))
    return rows


def _step(number: int, step: Step) -> tuple[str, ...]:
    evidence = step.evidence or Evidence()
    action = words.action_word(step.action)
    return (
        str(number),
        step.node,
        step.stage,
        f"would be {action}" if step.hypothetical else action,
        step.tier,
        words.policy_name(step.policy) if step.policy else "",
        _rule(step),
        evidence.table,
        evidence.chain,
        _number(evidence.handle),
        _number(evidence.counter),
        step.detail,
    )


def _rule(step: Step) -> str:
    if step.rule is None:
        return ""
    index = "?" if step.rule.index is None else str(step.rule.index)
    return f"{index} ({step.rule.action})"


def _number(value: int | None) -> str:
    return "" if value is None else str(value)
