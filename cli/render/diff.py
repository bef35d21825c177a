"""What changed between two states, as text, JSON and YAML."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from calico_debug.cli.render import json, words, yaml
from calico_debug.cli.render.matrix import reason_document, reason_lines
from calico_debug.cli.render.terminal import safe
from calico_debug.diff.model import CAUSES
from calico_debug.model.explanation import API_VERSION

if TYPE_CHECKING:
    from calico_debug.diff.model import Answer, Cause, Change, DiffReport, FlowChange, FlowText, Unsettled

KIND: Final = "FlowDiff"

MOST_SHOWN: Final = 8
"""Flows with the same cause and answers, and entries of other lists, that text shows; JSON has all."""

MOST_GROUPS: Final = 12
"""Different answers before and after, of the same cause, that text shows."""


def document(report: DiffReport) -> dict[str, Any]:
    """The report for machines (docs/cli.md)."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "result": report.result,
        "before": report.before,
        "after": report.after,
        "basis": report.basis,
        "objects": [_change(one) for one in report.objects],
        "asked": report.asked,
        "flows": [_flow_change(one) for one in report.flows],
        "unsettled": [_unsettled(one) for one in report.unsettled],
        "gone": [_unsettled(one) for one in report.gone],
        "notes": list(report.notes),
    }


def _change(change: Change) -> dict[str, Any]:
    key = change.key
    return {
        "kind": key.kind,
        **({"namespace": key.namespace} if key.namespace else {}),
        "name": key.name,
        "change": change.how,
        **({"fields": list(change.fields)} if change.fields else {}),
    }


def _flow(flow: FlowText) -> dict[str, Any]:
    given = {"from": flow.source, "to": flow.destination, "protocol": flow.protocol, "via": flow.via}
    return {key: value for key, value in given.items() if value is not None}


def _flow_change(one: FlowChange) -> dict[str, Any]:
    return {
        "flow": _flow(one.flow),
        "changed": one.what,
        "before": _answer(one.before),
        "after": _answer(one.after),
        "cause": {
            "kind": one.cause.kind,
            **(
                {"objects": [[_change(change) for change in some] for some in one.cause.objects]}
                if one.cause.objects
                else {}
            ),
            **({"message": one.cause.message} if one.cause.message else {}),
        },
    }


def _answer(answer: Answer) -> dict[str, Any]:
    return {**reason_document(answer.reason), **({"dataplane": answer.dataplane} if answer.dataplane else {})}


def _unsettled(one: Unsettled) -> dict[str, Any]:
    return {"flow": _flow(one.flow), "why": one.why}


def text(report: DiffReport) -> str:
    """What changed, by cause, then what could not be compared and the sum."""
    return "".join(f"{safe(line)}\n" for line in _lines(report))


def _lines(report: DiffReport) -> Iterator[str]:
    yield f"before  {report.before}"
    yield f"after   {report.after}"
    yield from (f"note    {note}" for note in report.notes)
    yield ""
    for cause, groups in _by_cause(report.flows).items():
        yield from _cause_lines(cause)
        for flows in list(groups.values())[:MOST_GROUPS]:
            yield from _group_lines(flows)
        if len(groups) > MOST_GROUPS:
            yield f"    and {len(groups) - MOST_GROUPS} more pairs of answers, which -o json lists"
        yield ""
    for title, entries in (("NOT SETTLED", report.unsettled), ("ONLY IN ONE STATE", report.gone)):
        if entries:
            yield title
            yield from (f"    {one.flow}: {one.why}" for one in entries[:MOST_SHOWN])
            yield from _more(len(entries))
            yield ""
    yield f"{words.counted(len(report.objects), 'object')} changed"
    blamed = {change for one in report.flows for some in one.cause.objects for change in some}
    for change in sorted(report.objects, key=lambda each: each not in blamed)[:MOST_SHOWN]:
        yield f"    {change}"
    yield from _more(len(report.objects))
    verdicts = sum(one.what == "verdict" for one in report.flows)
    yield (
        f"{words.counted(report.asked, 'flow')} asked about: {verdicts} with another verdict, "
        f"{len(report.flows) - verdicts} decided by another rule, {len(report.unsettled)} not settled, "
        f"{len(report.gone)} only in one state"
    )


_Groups = dict[tuple[object, ...], list["FlowChange"]]


def _by_cause(flows: tuple[FlowChange, ...]) -> dict[Cause, _Groups]:
    """Changes of verdicts first, and those of the same cause that read the same together."""
    found: dict[Cause, _Groups] = {}
    for one in sorted(flows, key=lambda each: each.what != "verdict"):
        said = tuple(tuple(reason_lines(answer.reason)) for answer in (one.before, one.after))
        found.setdefault(one.cause, {}).setdefault(said, []).append(one)
    return found


def _cause_lines(cause: Cause) -> Iterator[str]:
    if cause.kind != "objects":
        yield f"{CAUSES[cause.kind]} ({cause.message})"
        return
    for number, some in enumerate(cause.objects):
        joined = " together with ".join(map(str, some))
        yield f"{'or alone ' if number else ''}{joined}"


def _group_lines(flows: list[FlowChange]) -> Iterator[str]:
    first = flows[0]
    yield from (f"    {one.flow}" for one in flows[:MOST_SHOWN])
    yield from _more(len(flows))
    for word, answer in (("was", first.before), ("is", first.after)):
        lines = list(reason_lines(answer.reason))
        yield f"        {word.ljust(3)}  {lines[0]}"
        yield from (f"             {line}" for line in lines[1:])


def _more(number: int) -> Iterator[str]:
    if number > MOST_SHOWN:
        yield f"    and {number - MOST_SHOWN} more, which -o json lists"


RENDERERS: Final[Mapping[str, Callable[[DiffReport], str]]] = {
    "text": text,
    "json": lambda report: json.dump(document(report)),
    "yaml": lambda report: yaml.dump(document(report)),
}
"""By ``-o``."""
