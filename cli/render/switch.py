"""What a switch of the dataplane changed, as text, JSON and YAML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from calico_debug.cli.render import json, words, yaml
from calico_debug.cli.render.doctor import findings_document, findings_lines
from calico_debug.cli.render.terminal import safe
from calico_debug.model.explanation import API_VERSION
from calico_debug.model.flow import protocol_name
from calico_debug.switch.compare import RESULTS, SOURCES
from calico_debug.switch.connections import STATUSES
from calico_debug.switch.document import answer_document, end_document, node_document, question_document

if TYPE_CHECKING:
    from calico_debug.switch.compare import Comparison, NodeChange, SourceChange, SwitchReport
    from calico_debug.switch.model import Answer, Question, RecordedEnd, RecordedNode, Way

KIND = "SwitchReport"

_INDENT = " " * 9
_SHOWN = 10
"""Flows of one kind that text shows where nothing differs but the source address; JSON has all."""

_BLOCKS = 50
"""Flows that differ, and those that are not settled, that text shows; JSON has all."""

_SOURCES: Mapping[str, str] = {
    "preserved": "the far end sees the client's own address now, and did not before",
    "rewritten": "the far end no longer sees the client's own address",
    "otherwise": "the far end sees another address in place of the client's than before",
}


def document(report: SwitchReport) -> Mapping[str, Any]:
    """The report for machines (docs/switch.md)."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "result": report.result,
        "before": report.before,
        "after": report.after,
        "nodes": [_node_change(node) for node in report.nodes],
        "counts": _counts(report),
        "flows": [_flow(one) for one in report.flows],
        "connections": [
            {
                "protocol": protocol_name(one.connection.protocol),
                "client": words.address(*one.connection.client),
                "asked": words.address(*one.connection.asked),
                "server": words.address(*one.connection.server),
                "status": one.status,
            }
            for one in report.fates
        ],
        **findings_document(report.leftovers),
        "notes": list(report.notes),
    }


def _counts(report: SwitchReport) -> Mapping[str, int]:
    found = Counter(one.result for one in report.flows)
    return {result: found[result] for result in RESULTS}


def _node_change(node: NodeChange) -> Mapping[str, Any]:
    sides = {"before": node.before, "after": node.after}
    return {"name": node.name, **{side: node_document(one) for side, one in sides.items() if one is not None}}


def _flow(one: Comparison) -> Mapping[str, Any]:
    source = one.source
    return {
        "result": one.result,
        "flow": question_document(one.flow.question),
        "before": answer_document(one.flow.answer),
        **({"asked": question_document(one.now)} if one.now is not None else {}),
        **({"after": answer_document(one.answer)} if one.answer is not None else {}),
        **({"why": one.why} if one.why else {}),
        **({"source": _source(source)} if source is not None else {}),
        **({"newBackends": True} if one.new_backends else {}),
    }


def _source(change: SourceChange) -> Mapping[str, Any]:
    backend = change.after.backend
    return {
        "kind": change.kind,
        "before": change.before.seen_as,
        "after": change.after.seen_as,
        **({"backend": end_document(backend)} if backend is not None else {}),
    }


# -------------------------------------------------------------------------------------------------------------- text


def text(report: SwitchReport) -> str:
    """The report for people: what differs in full, what else changed in short."""
    return "".join(f"{safe(line)}\n" for line in _lines(report))


def _lines(report: SwitchReport) -> Iterator[str]:
    yield from (_node_line(node) for node in report.nodes)
    yield ""
    for result in RESULTS:
        found = [one for one in report.flows if one.result == result != "same"]
        for one in found[:_BLOCKS]:
            yield from _block(one)
        if len(found) > _BLOCKS:
            yield from (f"{result.upper().ljust(len(_INDENT) + 4)}{len(found) - _BLOCKS} more, which -o json lists", "")
    yield from _source_lines(report.flows)
    yield from _connection_lines(report)
    yield from findings_lines(report.leftovers)
    yield from report.notes
    counts = [f"{count} {result}" for result, count in _counts(report).items() if count]
    yield f"{len(report.flows)} flows: {', '.join(counts)}"


def _node_line(node: NodeChange) -> str:
    before, after = _node_words(node.before), _node_words(node.after)
    return f"{node.name}  {before} -> {after}" if before != after else f"{node.name}  {after}, as before"


def _node_words(node: RecordedNode | None) -> str:
    if node is None:
        return "no evidence"
    if not node.dataplane:
        return f"unknown ({node.problem})"
    how = {None: "", True: ", answers straight to clients (DSR)", False: ", answers through the tunnel"}
    return f"{node.dataplane}{how[node.dsr]}"


def _block(one: Comparison) -> Iterator[str]:
    yield f"{one.result.upper().ljust(len(_INDENT) + 4)}{_question_words(one.now or one.flow.question)}"
    yield f"{_INDENT}before   {_answer_words(one.flow.answer)}"
    if one.answer is not None:
        yield f"{_INDENT}now      {_answer_words(one.answer)}"
    if one.why:
        yield f"{_INDENT}because  {one.why}"
    yield ""


def _answer_words(answer: Answer) -> str:
    if answer.problem:
        return f"not known: {answer.problem}"
    said = words.outcome(answer.verdict, answer.decision)
    if answer.verdict != "undetermined" or len(answer.ways) < 2:
        return said
    each = [f"{_end_words(way.backend)}: {way.verdict}" for way in answer.ways if way.backend is not None]
    return f"{said} ({'; '.join(each)})" if each else said


def _question_words(question: Question) -> str:
    ends = f"{_end_words(question.source)} -> {_end_words(question.destination)}"
    via = f" via {question.via}" if question.via else ""
    return f"{protocol_name(question.protocol)} {ends}{via}"


def _end_words(end: RecordedEnd) -> str:
    address = words.address(end.ip, end.port)
    name = f"{end.namespace}/{end.name}" if end.namespace else f"{end.kind} {end.name}" if end.name else ""
    return f"{name} ({address})" if name else address


def _source_lines(flows: Sequence[Comparison]) -> Iterator[str]:
    for kind in SOURCES:
        found = [one for one in flows if one.source is not None and one.source.kind == kind]
        if not found:
            continue
        yield f"SOURCE   {_SOURCES[kind]}: {len(found)} flows"
        for one in found[:_SHOWN]:
            assert one.source is not None
            sees = f"{_way_words(one.source.before)} before, {_way_words(one.source.after)} now"
            yield f"{_INDENT}{_question_words(one.now or one.flow.question)}: {sees}{_rewriter(one)}"
        if len(found) > _SHOWN:
            yield f"{_INDENT}and {len(found) - _SHOWN} more, which -o json lists"
        yield ""


def _way_words(way: Way) -> str:
    return f"{way.seen_as} ({way.seen_name})" if way.seen_name else way.seen_as


def _rewriter(one: Comparison) -> str:
    """Who replaced it, on the side where it is not the client's."""
    assert one.source is not None
    preserved = one.source.kind == "preserved"
    answer, way = (one.flow.answer, one.source.before) if preserved else (one.answer, one.source.after)
    for rewrite in answer.rewrites if answer is not None else ():
        if rewrite.after == way.seen_as:
            by = f" by {rewrite.by}" if rewrite.by else ""
            return f" (rewritten on {rewrite.node}{by})"
    return ""


def _connection_lines(report: SwitchReport) -> Iterator[str]:
    found = Counter((one.status, one.connection.protocol) for one in report.fates)
    if not found:
        return
    yield f"OPEN     {len(report.fates)} connections of before"
    for status, meaning in STATUSES.items():
        counts = [f"{count} {protocol_name(number)}" for (each, number), count in found.items() if each == status]
        if counts:
            yield f"{_INDENT}{', '.join(counts)}: {meaning}"
    yield ""


RENDERERS: Mapping[str, Callable[[SwitchReport], str]] = {
    "text": text,
    "json": lambda report: json.dump(document(report)),
    "yaml": lambda report: yaml.dump(document(report)),
}
"""By ``-o``."""
