"""A record as JSON, and back: the file that ``switch record`` writes and ``switch compare`` reads (docs/switch.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from calico_debug.decode.json_text import parse_json
from calico_debug.errors import EvidenceError
from calico_debug.explain.document import decision_document
from calico_debug.model.explanation import API_VERSION, VERDICTS, Decision, PolicyRef, RuleRef
from calico_debug.switch.model import (
    ENDS,
    KIND,
    VERSION,
    Answer,
    Question,
    Record,
    RecordedConnection,
    RecordedEnd,
    RecordedFlow,
    RecordedNode,
    Rewrite,
    Way,
)

Object = Mapping[str, Any]

LARGEST = 256 << 20
"""Bytes of the largest file that is taken for a record."""


# ------------------------------------------------------------------------------------------------------------- write


def to_document(record: Record) -> dict[str, object]:
    """The record for a file. What is empty is left out."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "version": VERSION,
        "origin": record.origin,
        "nodes": [{"name": node.name, **node_document(node)} for node in record.nodes],
        "flows": [_flow(flow) for flow in record.flows],
        "connections": [
            _filled(
                protocol=one.protocol,
                client=list(one.client),
                asked=list(one.asked),
                server=list(one.server),
                nodes=list(one.nodes),
                state=one.state,
            )
            for one in record.connections
        ],
        "leftOut": list(record.left_out),
    }


def node_document(node: RecordedNode) -> dict[str, object]:
    """What a node runs."""
    return _filled(
        dataplane=node.dataplane,
        takenAt=node.taken_at,
        directReturn=node.dsr,
        problem=node.problem,
        kubeProxyPackets=node.kube_proxy,
    )


def end_document(end: RecordedEnd) -> dict[str, object]:
    """An end of a flow."""
    return _filled(
        kind=end.kind,
        ip=end.ip,
        port=end.port,
        namespace=end.namespace,
        name=end.name,
        labels=dict(end.labels),
        node=end.node,
    )


def question_document(question: Question) -> dict[str, object]:
    """The flow without its answer."""
    return _filled(
        source=end_document(question.source),
        destination=end_document(question.destination),
        protocol=question.protocol,
        via=question.via,
        origin=question.origin,
        connections=question.connections or None,
    )


def answer_document(answer: Answer) -> dict[str, object]:
    """What becomes of a flow."""
    return _filled(
        verdict=answer.verdict,
        decision=decision_document(answer.decision) if answer.decision is not None else None,
        ways=[
            _filled(
                verdict=way.verdict,
                backend=end_document(way.backend) if way.backend is not None else None,
                seenAs=way.seen_as,
                seenName=way.seen_name,
            )
            for way in answer.ways
        ],
        rewrites=[_filled(node=one.node, before=one.before, after=one.after, by=one.by) for one in answer.rewrites],
        problem=answer.problem,
    )


def _flow(flow: RecordedFlow) -> dict[str, object]:
    return {**question_document(flow.question), "answer": answer_document(flow.answer)}


def _filled(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value not in (None, "", [], {})}


# -------------------------------------------------------------------------------------------------------------- read


def from_json(data: bytes, what: str) -> Record:
    """The record of a file; ``what`` names it for messages. Raises `EvidenceError`."""
    if len(data) > LARGEST:
        raise EvidenceError(f"{what} has more than {LARGEST >> 20} MiB: this is no record of flows")
    document = parse_json(data, what)
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise EvidenceError(f"{what} is not a record of flows: write one with calico-debug switch record")
    version = document.get("version")
    if version != VERSION:
        raise EvidenceError(
            f"{what} has version {version!r} and {VERSION} is known: use the calico-debug that wrote it"
        )
    try:
        return Record(
            _text(document, "origin"),
            tuple(_node(one) for one in document["nodes"]),
            tuple(_read_flow(one) for one in document["flows"]),
            tuple(_connection(one) for one in document.get("connections") or ()),
            tuple(str(one) for one in document.get("leftOut") or ()),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise EvidenceError(f"{what} is damaged ({reason}): record again, before the switch") from error


def _text(value: Object, key: str, default: str = "") -> str:
    found = value.get(key, default)
    if not isinstance(found, str):
        raise ValueError(f"{key} is {found!r} where a text is expected")
    return found


def _number(value: object) -> int | None:
    if value is not None and type(value) is not int:
        raise ValueError(f"{value!r} where a number is expected")
    return value


def _node(one: Object) -> RecordedNode:
    dsr = one.get("directReturn")
    return RecordedNode(
        _text(one, "name"),
        _text(one, "dataplane"),
        _text(one, "takenAt"),
        dsr if isinstance(dsr, bool) else None,
        _text(one, "problem"),
        _number(one.get("kubeProxyPackets")),
    )


def _read_flow(one: Object) -> RecordedFlow:
    protocol = _number(one["protocol"])
    question = Question(
        _end(one["source"]),
        _end(one["destination"]),
        protocol if protocol is not None else 0,
        _text(one, "via") or None,
        _text(one, "origin"),
        _number(one.get("connections")) or 0,
    )
    return RecordedFlow(question, _answer(one["answer"]))


def _end(one: Object) -> RecordedEnd:
    if one["kind"] not in ENDS:
        raise ValueError(f"an end of kind {one['kind']!r}")
    return RecordedEnd(
        one["kind"],
        str(ip_address(_text(one, "ip"))),
        _number(one.get("port")),
        _text(one, "namespace"),
        _text(one, "name"),
        {str(key): str(value) for key, value in (one.get("labels") or {}).items()},
        _text(one, "node"),
    )


def _answer(one: Object) -> Answer:
    ways = [
        Way(
            _verdict(way),
            _end(way["backend"]) if "backend" in way else None,
            _text(way, "seenAs"),
            _text(way, "seenName"),
        )
        for way in one.get("ways") or ()
    ]
    rewrites = [
        Rewrite(_text(each, "node"), _text(each, "before"), _text(each, "after"), _text(each, "by"))
        for each in one.get("rewrites") or ()
    ]
    decision = _decision(one["decision"]) if "decision" in one else None
    return Answer(_verdict(one), decision, tuple(ways), tuple(rewrites), _text(one, "problem"))


def _verdict(one: Object) -> str:
    if one["verdict"] not in VERDICTS:
        raise ValueError(f"a verdict {one['verdict']!r}")
    return str(one["verdict"])


def _decision(one: Object) -> Decision:
    """Without the evidence, which belongs to rules that are gone by now."""
    policy, rule = one.get("policy"), one.get("rule")
    return Decision(
        _text(one, "node"),
        _text(one, "dataplane"),
        _text(one, "reason"),
        _text(one, "direction"),
        _text(one, "tier"),
        PolicyRef(_text(policy, "kind"), _text(policy, "name"), _text(policy, "namespace")) if policy else None,
        RuleRef(_text(rule, "action"), _number(rule.get("index"))) if rule else None,
        _text(one, "detail"),
    )


def _connection(one: Object) -> RecordedConnection:
    protocol = _number(one["protocol"])
    nodes = tuple(str(name) for name in one.get("nodes") or ())
    return RecordedConnection(
        protocol if protocol is not None else 0,
        _place(one["client"]),
        _place(one["asked"]),
        _place(one["server"]),
        nodes,
        _text(one, "state"),
    )


def _place(pair: Sequence[Any]) -> tuple[str, int | None]:
    address, port = pair
    return str(ip_address(address)), _number(port)
