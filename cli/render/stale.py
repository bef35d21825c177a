"""Connections that outlived a change of policy, as text, JSON and YAML."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from calico_debug.cli.render import json, words, yaml
from calico_debug.cli.render.terminal import safe
from calico_debug.explain.document import decision_document
from calico_debug.explain.listing.names import Names, end_words, protocol_word
from calico_debug.model.explanation import API_VERSION

if TYPE_CHECKING:
    from calico_debug.explain.live_connections import LiveConnection
    from calico_debug.explain.outlived import OldFlow, StaleReport
    from calico_debug.state.cluster import ClusterState

KIND = "StaleReport"

LISTED = 100
"""Connections of one flow that the document lists; their number is always there."""

_SHOWN = 5
_UNSETTLED = 10
"""Connections of a flow, and flows that are not settled, that text shows; JSON has more."""

_INDENT = " " * 9


def document(report: StaleReport, cluster: ClusterState) -> Mapping[str, Any]:
    """The report for machines (docs/cli.md)."""
    names = Names(cluster)
    tally = report.tally
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "nodes": list(report.nodes),
        "connections": {
            "tracked": tally.looked_at,
            "notOpen": tally.not_open,
            "ofNoPod": tally.elsewhere,
            "leftOut": tally.left_out,
            "judged": report.live,
        },
        "unread": [{"node": node, "why": why} for node, why in tally.unread.items()],
        "refused": [_flow(flow, names) for flow in report.refused],
        "undetermined": [_flow(flow, names) for flow in report.undetermined],
    }


def _flow(flow: OldFlow, names: Names) -> Mapping[str, Any]:
    service = flow.asked != flow.server
    packets, octets, ages, idle = _sums(flow)
    return {
        "protocol": protocol_word(flow.protocol),
        "client": names.end(flow.client, None),
        **({"service": names.end(*flow.asked, flow.protocol)} if service else {}),
        "server": names.end(*flow.server),
        "newConnection": {
            "verdict": flow.answer.verdict,
            **({"decision": decision_document(flow.answer.decision)} if flow.answer.decision is not None else {}),
            **({"why": flow.answer.why} if flow.answer.why else {}),
        },
        **({"policyChange": _change(flow)} if flow.change is not None else {}),
        "count": len(flow.connections),
        **({"packets": packets} if packets is not None else {}),
        **({"bytes": octets} if octets is not None else {}),
        **({"oldestSeconds": max(ages)} if ages else {}),
        **({"idleSeconds": round(min(idle), 3)} if idle else {}),
        "connections": [_connection(one) for one in flow.connections[:LISTED]],
    }


def _change(flow: OldFlow) -> Mapping[str, Any]:
    change = flow.change
    assert change is not None
    return {
        **({"created": change.created} if change.created else {}),
        **({"generation": change.generation} if change.generation is not None else {}),
        **({"lastWritten": change.written} if change.written else {}),
        "exact": change.exact,
    }


def _connection(one: LiveConnection) -> Mapping[str, Any]:
    return {
        "nodes": list(one.nodes),
        **({"clientPort": one.client[1]} if one.client[1] is not None else {}),
        **({"state": one.state} if one.state else {}),
        "approvedBy": list(one.approved_by),
        **({"packets": one.packets} if one.packets is not None else {}),
        **({"bytes": one.bytes} if one.bytes is not None else {}),
        **({"ageSeconds": one.age} if one.age is not None else {}),
        **({"idleSeconds": round(one.idle, 3)} if one.idle is not None else {}),
    }


def _sums(flow: OldFlow) -> tuple[int | None, int | None, list[int], list[float]]:
    """Packets, bytes (None where some are not counted), ages and idle times."""
    packets = [one.packets for one in flow.connections if one.packets is not None]
    octets = [one.bytes for one in flow.connections if one.bytes is not None]
    every = len(flow.connections)
    return (
        sum(packets) if len(packets) == every else None,
        sum(octets) if len(octets) == every else None,
        [one.age for one in flow.connections if one.age is not None],
        [one.idle for one in flow.connections if one.idle is not None],
    )


def text(report: StaleReport, cluster: ClusterState) -> str:
    """The report for people: a block for each flow that would be refused, then what is open."""
    return "".join(f"{safe(line)}\n" for line in _lines(report, Names(cluster)))


def _lines(report: StaleReport, names: Names) -> Iterator[str]:
    for flow in report.refused:
        yield from _block(flow, names)
        yield ""
    if report.undetermined:
        yield "NOT SETTLED"
        for flow in report.undetermined[:_UNSETTLED]:
            yield f"{_INDENT}{protocol_word(flow.protocol)} {_ends(flow, names)}: {flow.answer.why}"
        if len(report.undetermined) > _UNSETTLED:
            yield f"{_INDENT}and {len(report.undetermined) - _UNSETTLED} more, which -o json lists"
        yield ""
    tally = report.tally
    refused = sum(len(flow.connections) for flow in report.refused)
    unsettled = sum(len(flow.connections) for flow in report.undetermined)
    yield (
        f"{_counted(report.live, 'open connection')} of pods on {', '.join(report.nodes) or 'no node'}: "
        f"{refused} would be refused now, {unsettled} could not be settled, "
        f"{report.live - refused - unsettled} would be allowed again"
    )
    for node, why in tally.unread.items():
        yield f"not looked at: {node}: {why}"
    if tally.left_out:
        yield f"{_counted(tally.left_out, 'open connection')} more were not judged: there are too many"


def _ends(flow: OldFlow, names: Names) -> str:
    service = f" by {end_words(names.end(*flow.asked, flow.protocol))}" if flow.asked != flow.server else ""
    return f"{end_words(names.end(flow.client, None))} -> {end_words(names.end(*flow.server))}{service}"


def _block(flow: OldFlow, names: Names) -> Iterator[str]:
    yield f"{protocol_word(flow.protocol).ljust(len(_INDENT))}{_ends(flow, names)}"
    yield f"{_INDENT}if new   {words.outcome(flow.answer.verdict, flow.answer.decision)}"
    if flow.change is not None:
        yield f"{_INDENT}policy   {flow.change.words}"
    yield f"{_INDENT}lives    {_living(flow)}"
    for one in flow.connections[:_SHOWN]:
        yield f"{_INDENT}         {_single(one)}"
    if len(flow.connections) > _SHOWN:
        yield f"{_INDENT}         and {len(flow.connections) - _SHOWN} more, which -o json lists"


def _living(flow: OldFlow) -> str:
    packets, octets, ages, idle = _sums(flow)
    parts = [_counted(len(flow.connections), "connection")]
    if packets is not None and octets is not None:
        parts.append(f"{_counted(packets, 'packet')} of {_counted(octets, 'byte')}")
    parts.append(f"the oldest for {max(ages)} s" if ages else "age not in evidence")
    if idle:
        parts.append(f"idle for {min(idle):.0f} s")
    return ", ".join(parts)


def _single(one: LiveConnection) -> str:
    port = f"from port {one.client[1]}" if one.client[1] is not None else "without ports"
    approved = f"approved by {' and '.join(one.approved_by)}" if one.approved_by else "approved by nobody here"
    return ", ".join([port, *([one.state] if one.state else []), approved, f"tracked on {', '.join(one.nodes)}"])


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


RENDERERS: Mapping[str, Callable[[StaleReport, ClusterState], str]] = {
    "text": text,
    "json": lambda report, cluster: json.dump(document(report, cluster)),
    "yaml": lambda report, cluster: yaml.dump(document(report, cluster)),
}
"""By ``-o``."""
