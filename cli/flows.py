"""``--flows``: one question a line in, one answer a line out, in order, and nothing lost in silence."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from calico_debug.activity import say
from calico_debug.cli.environment import Environment, Place, Question, Tracer
from calico_debug.cli.errors import describe, one_line
from calico_debug.cli.exit_codes import ExitCode, worst
from calico_debug.cli.options import TraceOptions
from calico_debug.cli.render import renderer
from calico_debug.cli.render.json import render_error, render_line
from calico_debug.cli.render.terminal import Style
from calico_debug.errors import EvidenceError, UsageError
from calico_debug.model.explanation import FlowExplanation

LONGEST_LINE = 1 << 16
"""Bytes of the longest line that is taken for a flow; the rest of a longer one is skipped."""

LONGEST_SKIP = 1 << 24
"""Bytes of the longest line that is skipped; beyond that the input is no list of flows and reading it ends."""

FLOW_KEYS = ("from", "to", "protocol", "via")


def answer_flows(environment: Environment, place: Place, options: TraceOptions, style: Style) -> int:
    """Answer every line of ``options.flows``; 1 when a line was in error, else what ``--exit-code`` asks for."""
    on_answer, on_error = _writers(options.format, style)
    with environment.progress():
        tracer = environment.open_tracer(place, environment.platform)
    out, verdicts, failed = environment.stdout, set[str](), False
    with opened_flows(options.flows or "-", environment) as stream, environment.progress() as make_room:
        # Whoever writes questions into a pipe may wait for each answer.
        flush = out.flush if stream is environment.stdin else _nothing
        for number, line in numbered_lines(stream):
            say(f"flow {number:,}")
            try:
                explanation = _answer(tracer, line, options.wanted)
            except Exception as error:  # noqa: BLE001 - the line's error becomes its answer, later lines go on
                failed = True
                make_room()
                out.write(on_error(number, describe(error)))
            else:
                verdicts.add(explanation.verdict)
                make_room()
                out.write(on_answer(explanation))
            flush()
    if failed:
        return ExitCode.FAILED
    return worst(verdicts) if options.exit_code else ExitCode.ANSWERED


def numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Each line that is not blank with its number from 1; of a too long line one byte more than is allowed.

    Raises `EvidenceError` when a line has no end in sight.
    """
    number = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            _skip_line(stream, number)
        if line.strip():
            yield number, line


def _skip_line(stream: BinaryIO, number: int) -> None:
    """Read on to the end of the line."""
    for _ in range(LONGEST_SKIP // LONGEST_LINE):
        rest = stream.readline(LONGEST_LINE)
        if not rest or rest.endswith(b"\n"):
            return
    raise EvidenceError(
        f"line {number} of --flows has more than {LONGEST_SKIP >> 20} MiB: this is no list of flows, "
        "write one JSON object a line"
    )


def parse_flow(line: bytes) -> Question:
    """The question of one line. Raises `UsageError`."""
    if len(line) > LONGEST_LINE:
        raise UsageError(f"the line is longer than {LONGEST_LINE} bytes: write one JSON object a line")
    try:
        flow = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not JSON ({one_line(str(error))}): {_SHAPE}") from error
    if not isinstance(flow, dict):
        raise UsageError(f"not a JSON object: {_SHAPE}")
    if unknown := [key for key in flow if key not in FLOW_KEYS]:
        raise UsageError(f"unknown key {unknown[0]!r}: a flow has {', '.join(FLOW_KEYS)}")
    protocol, via = flow.get("protocol"), flow.get("via")
    if type(protocol) is int:
        protocol = str(protocol)
    return Question(
        source=_text(flow.get("from"), "from"),
        destination=_text(flow.get("to"), "to"),
        protocol=None if protocol is None else _text(protocol, "protocol"),
        via=None if via is None else _text(via, "via"),
    )


_SHAPE = 'write {"from": "ns/pod", "to": "svc/ns/name", "protocol": "tcp"}'


def _text(value: object, key: str) -> str:
    if isinstance(value, str) and value:
        return value
    raise UsageError(f'"{key}" is {"missing" if value is None else "not a text with something in it"}: {_SHAPE}')


def _answer(tracer: Tracer, line: bytes, wanted: str | None) -> FlowExplanation:
    return tracer.trace(replace(parse_flow(line), wanted=wanted))


def _writers(output: str, style: Style) -> tuple[Callable[[FlowExplanation], str], Callable[[int, str], str]]:
    if output == "jsonl":
        return render_line, render_error
    render = renderer(output)
    return (
        lambda explanation: render(explanation, style) + "\n",
        lambda number, message: f"ERROR    line {number}: {message}\n\n",
    )


def opened_flows(flows: str, environment: Environment) -> AbstractContextManager[BinaryIO]:
    """The stream that ``--flows`` names. Raises `EvidenceError`."""
    if flows == "-":
        return nullcontext(environment.stdin)
    try:
        return Path(flows).open("rb")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise EvidenceError(f"cannot read --flows {flows}: {reason}; check the path") from error


def _nothing() -> None:
    """A file needs no flush a line."""
