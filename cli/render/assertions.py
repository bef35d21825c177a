"""Outcomes of assertions as text, JSON and JUnit's XML (the schema of Jenkins' xUnit plugin, which CI systems read)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from xml.etree import ElementTree as ET

from calico_debug.cli.render import words
from calico_debug.cli.render.terminal import safe
from calico_debug.explain.assertions import worst
from calico_debug.explain.document import to_document
from calico_debug.model.assertion import RESULTS, Expectation, Outcome
from calico_debug.model.explanation import API_VERSION

KIND = "AssertionReport"

_HEADS = {"met": "met", "not-met": "NOT MET", "undetermined": "UNDETERMINED", "error": "ERROR"}
_WIDTH = max(map(len, _HEADS.values()))


def render_text(outcomes: Sequence[Outcome]) -> str:
    """A line for each, below those that are not met the reason, and the sum."""
    lines = []
    for outcome in outcomes:
        wanted = outcome.expectation
        head = _HEADS[outcome.result].ljust(_WIDTH)
        lines.append(f"{head}  {safe(title(wanted))}: {' or '.join(wanted.verdicts)}")
        if why := reason(outcome):
            lines.append(f"{' ' * _WIDTH}  line {wanted.line}: {safe(why)}")
    return "\n".join([*lines, summary(outcomes)]) + "\n"


def render_json(outcomes: Sequence[Outcome]) -> str:
    """One document: the sum, and each outcome with its explanation."""
    document = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "result": worst(outcomes),
        "counts": counts(outcomes),
        "assertions": [_document(outcome) for outcome in outcomes],
    }
    return json.dumps(document, indent=2) + "\n"


def render_junit(outcomes: Sequence[Outcome]) -> str:
    """A test suite with a case for each flow: not met is a failure, undetermined and no question at all an error."""
    number = counts(outcomes)
    suite = ET.Element(
        "testsuite",
        name="calico-debug assert",
        tests=str(len(outcomes)),
        failures=str(number["not-met"]),
        errors=str(number["undetermined"] + number["error"]),
    )
    for outcome in outcomes:
        case = ET.SubElement(suite, "testcase", classname="flows", name=safe(title(outcome.expectation)))
        if outcome.result != "met":
            kind = "failure" if outcome.result == "not-met" else "error"
            ET.SubElement(case, kind, type=outcome.result, message=safe(reason(outcome)))
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


RENDERERS: dict[str, Callable[[Sequence[Outcome]], str]] = {
    "text": render_text,
    "json": render_json,
    "junit": render_junit,
}


def title(expectation: Expectation) -> str:
    """The flow in one line."""
    protocol = f"{expectation.protocol} " if expectation.protocol else ""
    via = f" via {expectation.via}" if expectation.via else ""
    return f"{protocol}{expectation.source} -> {expectation.destination}{via}"


def reason(outcome: Outcome) -> str:
    """Why it is not met, with what happened instead; "" when it is."""
    explanation = outcome.explanation
    if outcome.result == "met" or explanation is None:
        return outcome.why
    happened = words.outcome(explanation.verdict, explanation.decision)
    return f"{outcome.why}; {happened}" if outcome.why else happened


def counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many turned out how."""
    return {result: sum(outcome.result == result for outcome in outcomes) for result in RESULTS}


def summary(outcomes: Sequence[Outcome]) -> str:
    """The sum in words."""
    number = counts(outcomes)
    parts = [f"{count} {_HEADS[result].lower()}" for result, count in number.items() if count]
    return f"{len(outcomes)} flow{'' if len(outcomes) == 1 else 's'}: {', '.join(parts)}"


def _document(outcome: Outcome) -> dict[str, object]:
    wanted = outcome.expectation
    flow = {"from": wanted.source, "to": wanted.destination, "protocol": wanted.protocol, "via": wanted.via}
    expect = {"verdicts": list(wanted.verdicts), "tier": wanted.tier, "policy": wanted.policy}
    document: dict[str, object] = {
        "line": wanted.line,
        "flow": {key: value for key, value in flow.items() if value},
        "expect": {key: value for key, value in expect.items() if value},
        "result": outcome.result,
    }
    if why := reason(outcome):
        document["why"] = why
    if outcome.explanation is not None:
        document["explanation"] = to_document(outcome.explanation)
    return document
