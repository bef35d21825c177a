"""What an agent tells of packets it watched, or does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from calico_debug.agent.routing import Answer, Request, Route
from calico_debug.cli.agent_client import AgentClient
from calico_debug.cli.agent_source import AgentSource
from calico_debug.cli.remote_instruments import RemoteInstruments
from calico_debug.errors import EvidenceError
from calico_debug.evidence.plain import to_plain
from calico_debug.model.explanation import Witness
from calico_debug.model.observation import FlowTuple, Observation
from tests.agent.serving import Agent, serving

if TYPE_CHECKING:
    from pathlib import Path

FLOW = FlowTuple(6, ip_address("10.0.0.1"), ip_address("10.0.0.2"), None, 80)
SEEN = Observation((), "a", "b")
TOLD = Witness("denied", "n1", "dropped", "now")
BEGUN = {"id": "7"}
ANY = {"type": "object", "additionalProperties": True, "required": [], "properties": {}}


def agent(folder: Path, lines: Iterable[Any]) -> AbstractContextManager[Agent]:
    """An agent that observes nothing and says ``lines``; bytes as they are."""
    said = [line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines]

    def route(path: str, answer: Callable[[Request], Answer]) -> Route:
        keys = ("node", "kind", "flows", "milliseconds", "flow", "interface")
        kinds = {"flows": {"type": "array", "minItems": 1, "maxItems": 9, "items": {"type": "object"}}}
        kinds |= {"milliseconds": {"type": "integer", "minimum": 1, "maximum": 60_000}, "flow": {"type": "object"}}
        properties = {key: kinds.get(key, {"type": "string", "maxLength": 99}) for key in keys}
        return Route("POST", path, path, "", "", answer, body={**ANY, "properties": properties})

    return serving(
        folder,
        table=lambda: [
            route("/v1/observations", lambda _: Answer(iter(said))),
            route("/v1/observations/{id}/finish", lambda _: Answer([b'{"finished": true}'])),
            route("/v1/probes", lambda _: Answer([b"".join(said)])),
        ],
    )


def tools(made: Agent) -> RemoteInstruments:
    return RemoteInstruments("n1", lambda: AgentSource(AgentClient(made.path)))


@pytest.mark.parametrize("last", [{"observation": to_plain(SEEN)}, {"witness": to_plain(TOLD)}])
def test_what_was_seen_comes_last(tmp_path: Path, last: dict[str, Any]) -> None:
    with agent(tmp_path, [BEGUN, {}, {}, last]) as made:
        observing = tools(made).trace_rules([FLOW], 1)
        assert observing.finish(0) in (SEEN, TOLD)
        observing.close()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "it broke off"),
        ([b"SSH\n"], "it is not understood"),
        ([{}], "its beginning is not understood"),
        ([{"id": "../x"}], "its beginning is not understood"),
        ([{"id": 7}], "its beginning is not understood"),
        ([BEGUN], "it broke off"),
        ([BEGUN, b"[]\n"], "it is not understood"),
        ([BEGUN, b"\xff\n"], "it is not understood"),
        ([BEGUN, {"observation": {}}], "the agent sent a Observation that is none"),
        ([BEGUN, {"witness": 7}], "the agent sent a Witness that is none"),
        ([BEGUN, {"error": "no memory\nleft"}], "n1: no memory"),
        ([BEGUN, *[{}] * 1001], "it does not end"),
    ],
)
def test_whatever_else_is_said_is_an_error(tmp_path: Path, lines: list[Any], said: str) -> None:
    with agent(tmp_path, lines) as made, pytest.raises(EvidenceError, match=said):
        tools(made).trace_rules([FLOW], 1).finish(0)


@pytest.mark.parametrize("lines", [[b"{}"], [b"x"], [{"sent": 1}], [[]]])
def test_a_probe_that_is_not_told_is_an_error_of_its_report(tmp_path: Path, lines: list[Any]) -> None:
    with agent(tmp_path, lines) as made:
        report = tools(made).probe(FLOW, "cali1", "here")
    assert (report.sent, report.place) == (0, "here")
    assert "agent" in report.error


def test_nobody_there(tmp_path: Path) -> None:
    nobody = RemoteInstruments("n1", partial(AgentSource, AgentClient(str(tmp_path / "none"))))
    with pytest.raises(EvidenceError, match="no answer from agent"):
        nobody.trace_rules([FLOW], 1)
    assert "no answer from agent" in nobody.probe(FLOW, "cali1", "here").error
