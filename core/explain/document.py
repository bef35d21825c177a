"""The explanation as a plain document: the JSON of contract 3, ready for ``json.dumps`` or a YAML dumper.

Field names are a public interface: `FIELDS` is their one table in code, schema.json and docs/json.md say the same, and
a test compares the three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from calico_debug.model.explanation import (
    API_VERSION,
    KIND,
    Advice,
    BackendOutcome,
    Decision,
    Evidence,
    Finding,
    FlowEnd,
    FlowExplanation,
    NewConnection,
    PolicyRef,
    RuleRef,
    Step,
    Witness,
)

ERROR_KIND = "Error"
"""The ``kind`` of the line that stands for a flow of ``--flows`` that could not be answered."""


class DocumentField(NamedTuple):
    """One field: the dataclass's attribute, its name in the document, and whether an empty value is written too."""

    attribute: str
    name: str
    always: bool = False
    convert: Callable[[Any], object] | None = None


def _plain(value: object) -> object:
    """Mappings as dict, sequences as list, what JSON has no type for as text: for parts that the API's objects give."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _object(fields: tuple[DocumentField, ...], value: object) -> dict[str, object]:
    document: dict[str, object] = {}
    for attribute, name, always, convert in fields:
        item = getattr(value, attribute)
        # A number 0 is a value; None, "", (), {} and False are the absence of one.
        if not item and not always and type(item) is not int:
            continue
        document[name] = item if convert is None else convert(item)
    return document


def _list(fields: tuple[DocumentField, ...], values: tuple[object, ...]) -> list[dict[str, object]]:
    return [_object(fields, value) for value in values]


_EVIDENCE = (
    DocumentField("table", "table"),
    DocumentField("chain", "chain"),
    DocumentField("handle", "handle"),
    DocumentField("comment", "comment"),
    DocumentField("rule_id", "ruleId"),
    DocumentField("counter", "counter"),
)


def _evidence(value: Evidence | None) -> dict[str, object]:
    return {} if value is None else _object(_EVIDENCE, value)


_POLICY = (
    DocumentField("kind", "kind", always=True),
    DocumentField("namespace", "namespace"),
    DocumentField("name", "name", always=True),
)
_RULE = (DocumentField("index", "index"), DocumentField("action", "action", always=True))
_ATTRIBUTION = (
    DocumentField("direction", "direction"),
    DocumentField("tier", "tier"),
    DocumentField("policy", "policy", convert=partial(_object, _POLICY)),
    DocumentField("rule", "rule", convert=partial(_object, _RULE)),
)
_DECISION = (
    DocumentField("node", "node", always=True),
    DocumentField("dataplane", "dataplane", always=True),
    *_ATTRIBUTION,
    DocumentField("reason", "reason", always=True),
    DocumentField("detail", "detail"),
    DocumentField("evidence", "evidence", always=True, convert=_evidence),
)
_STEP = (
    DocumentField("node", "node", always=True),
    DocumentField("stage", "stage", always=True),
    *_ATTRIBUTION,
    DocumentField("action", "action", always=True),
    DocumentField("detail", "detail", always=True),
    DocumentField("hypothetical", "hypothetical"),
    DocumentField("evidence", "evidence", always=True, convert=_evidence),
)
_END = (
    DocumentField("ip", "ip", always=True),
    DocumentField("port", "port"),
    DocumentField("pod", "pod", convert=_plain),
    DocumentField("service", "service", convert=_plain),
    DocumentField("node", "node"),
    DocumentField("interface", "interface"),
)
_BACKEND = (
    DocumentField("ip", "ip", always=True),
    DocumentField("port", "port"),
    DocumentField("pod", "pod", convert=_plain),
    DocumentField("node", "node"),
    DocumentField("verdict", "verdict", always=True),
    DocumentField("decision", "decision", convert=partial(_object, _DECISION)),
)
_NEW_CONNECTION = (
    DocumentField("verdict", "verdict", always=True),
    DocumentField("decision", "decision", convert=partial(_object, _DECISION)),
)
_ONE_WITNESS = (
    DocumentField("verdict", "verdict", always=True),
    DocumentField("at", "at", always=True),
    DocumentField("node", "node", always=True),
    DocumentField("detail", "detail", always=True),
)
_WITNESS = (*_ONE_WITNESS, DocumentField("nodes", "nodes", convert=partial(_list, _ONE_WITNESS)))
_FINDING = (
    DocumentField("code", "code", always=True),
    DocumentField("severity", "severity", always=True),
    DocumentField("message", "message", always=True),
)
_ADVICE = (DocumentField("message", "message", always=True), DocumentField("manifest", "manifest", convert=_plain))

_FLOW = (
    DocumentField("protocol", "protocol", always=True),
    DocumentField("source", "source", always=True, convert=partial(_object, _END)),
    DocumentField("destination", "destination", always=True, convert=partial(_object, _END)),
    DocumentField("backends", "backends", convert=partial(_list, _BACKEND)),
)


def _witnesses(value: Mapping[str, Witness]) -> dict[str, object]:
    return {name: _object(_WITNESS, witness) for name, witness in value.items()}


_ANSWER = (
    DocumentField("verdict", "verdict", always=True),
    DocumentField("decision", "decision", convert=partial(_object, _DECISION)),
    DocumentField("new_connection", "newConnection", convert=partial(_object, _NEW_CONNECTION)),
    DocumentField("steps", "steps", always=True, convert=partial(_list, _STEP)),
    DocumentField("witnesses", "witnesses", always=True, convert=_witnesses),
    DocumentField("findings", "findings", always=True, convert=partial(_list, _FINDING)),
    DocumentField("advice", "advice", always=True, convert=partial(_list, _ADVICE)),
)

FIELDS: Mapping[type, tuple[DocumentField, ...]] = {
    FlowExplanation: (*_FLOW, *_ANSWER),
    FlowEnd: _END,
    BackendOutcome: _BACKEND,
    Decision: _DECISION,
    PolicyRef: _POLICY,
    RuleRef: _RULE,
    Evidence: _EVIDENCE,
    NewConnection: _NEW_CONNECTION,
    Step: _STEP,
    Witness: _WITNESS,
    Finding: _FINDING,
    Advice: _ADVICE,
}
"""Each part of the explanation with its fields. The first four of `FlowExplanation` are under ``flow``."""


def to_document(explanation: FlowExplanation) -> dict[str, object]:
    """The document of one explanation. Optional fields that are empty are left out (docs/json.md says which)."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "flow": _object(_FLOW, explanation),
        **_object(_ANSWER, explanation),
    }


def decision_document(decision: Decision) -> dict[str, object]:
    """A decision as it stands in the document of an explanation."""
    return _object(_DECISION, decision)


def error_document(line: int, message: str) -> dict[str, object]:
    """What stands in the output for line ``line`` (from 1) of ``--flows`` that could not be answered."""
    return {"apiVersion": API_VERSION, "kind": ERROR_KIND, "line": line, "message": message}
