"""Environments made of memory, with a tracer that answers from a table."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from calico_debug.cli.environment import Environment, PacketWatch, Place, Question, WatchQuestion
from calico_debug.cli.main import main
from calico_debug.errors import MissingEvidence, UsageError
from calico_debug.model.explanation import FlowExplanation
from calico_debug.model.observation import Wanted
from tests.cli.samples import SAMPLES

ANSWERS: Mapping[str, FlowExplanation | BaseException] = {
    "allowed": SAMPLES["allowed_same_node"],
    "denied": SAMPLES["denied_end_of_tier"],
    "rejected": SAMPLES["rejected_no_endpoints"],
    "undetermined": SAMPLES["ipv6_host"],
    "nobody": UsageError("no pod is named 'nobody': did you mean\nsomebody"),
    "missing": MissingEvidence("nft-ruleset.json is not in the bundle: add it"),
    "broken": RuntimeError("\x1b[31mred"),
    "interrupt": KeyboardInterrupt(),
    "pipe": BrokenPipeError(),
}
"""What the tracer answers, by the flow's source."""


@dataclass
class Ran:
    """How a command ended. ``asked`` is every question that the tracer got, ``wanted`` what witnesses it was to call,
    ``places`` where it was to look.
    """

    code: int = 0
    out: str = ""
    err: str = ""
    asked: list[Question] = field(default_factory=list)
    wanted: list[Wanted] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)

    def trace(self, question: Question) -> FlowExplanation:
        self.asked.append(question)
        answer = ANSWERS[question.source]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def witness(self, explanation: FlowExplanation, wanted: Wanted) -> FlowExplanation:
        self.wanted.append(wanted)
        return explanation


def nothing_to_watch(place: Place, platform: str, question: WatchQuestion) -> PacketWatch:
    raise MissingEvidence("packets are not watched in tests of the command line")


def run(*arguments: str, stdin: bytes | BinaryIO = b"", stdout: io.StringIO | None = None, **world: Any) -> Ran:
    """Run the command line in memory."""
    ran = Ran()
    out, err = stdout or io.StringIO(), io.StringIO()

    def open_tracer(place: Place, platform: str) -> Ran:
        ran.places.append(place)
        return ran

    source = io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin
    streams = {"stdin": source, "stdout": out, "stderr": err}
    environment = Environment(**{**streams, "open_tracer": open_tracer, "open_watch": nothing_to_watch, **world})
    ran.code = main(arguments, environment)
    ran.out, ran.err = out.getvalue(), err.getvalue()
    return ran
