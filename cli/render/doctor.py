"""What the doctor found, as text, JSON and YAML."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import Any

from calico_debug.cli.render import json, yaml
from calico_debug.cli.render.terminal import safe
from calico_debug.doctor.examine import Report
from calico_debug.doctor.model import SEVERITIES
from calico_debug.model.explanation import API_VERSION

KIND = "DoctorReport"

_WORDS = {"error": "error", "warning": "warning", "info": "note"}
_INDENT = " " * 9
_SHOWN = 10
"""Findings of one code and severity that text shows; JSON has all."""


def document(report: Report, kind: str = KIND) -> Mapping[str, Any]:
    """The report for machines (docs/doctor.md)."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "nodes": list(report.nodes),
        "counts": {severity: report.count(severity) for severity in SEVERITIES},
        **findings_document(report),
    }


def findings_document(report: Report) -> Mapping[str, Any]:
    """What was found, and what could not be looked at."""
    return {
        "findings": [
            {
                "code": one.code,
                "severity": one.severity,
                **({"node": one.node} if one.node else {}),
                "evidence": one.seen,
                "meaning": one.entry.meaning,
                "remedy": one.entry.remedy,
            }
            for one in report.findings
        ],
        "unchecked": [
            {"check": one.check, **({"node": one.node} if one.node else {}), "why": one.why} for one in report.unseen
        ],
    }


def text(report: Report) -> str:
    """The report for people: one block for each kind of finding."""
    return "".join(f"{safe(line)}\n" for line in _lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield from findings_lines(report)
    counts = [_counted(report.count(severity), _WORDS[severity]) for severity in SEVERITIES]
    gaps = f"; {_counted(len(report.unseen), 'thing')} not checked" if report.unseen else ""
    yield f"{_counted(len(report.nodes), 'node')}: {', '.join(counts)}{gaps}"


def findings_lines(report: Report) -> Iterator[str]:
    """A block for each kind of finding, and one for what could not be looked at."""
    for (severity, code), group in groupby(report.findings, key=lambda one: (one.severity, one.code)):
        findings = list(group)
        yield f"{severity.upper().ljust(len(_INDENT))}{code}: {findings[0].entry.meaning}"
        for one in findings[:_SHOWN]:
            yield f"{_INDENT}seen     {f'{one.node}: ' if one.node else ''}{one.seen}"
        if len(findings) > _SHOWN:
            yield f"{_INDENT}         and {len(findings) - _SHOWN} more, which -o json lists"
        yield f"{_INDENT}remedy   {findings[0].entry.remedy}"
        yield ""
    if report.unseen:
        yield "NOT CHECKED"
        for unseen in report.unseen:
            yield f"{_INDENT}{unseen.check}{f' of {unseen.node}' if unseen.node else ''}: {unseen.why}"
        yield ""


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def renderers(kind: str) -> Mapping[str, Callable[[Report], str]]:
    """By ``-o``, for a report of that kind."""
    return {
        "text": text,
        "json": lambda report: json.dump(document(report, kind)),
        "yaml": lambda report: yaml.dump(document(report, kind)),
    }


RENDERERS = renderers(KIND)
"""The doctor's, by ``-o``."""
