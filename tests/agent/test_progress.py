"""Traces that tell what is done for them, over HTTP."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from calico_debug.agent import progress
from calico_debug.agent.routing import LINES
from calico_debug.errors import EvidenceError
from calico_debug.evidence.bundle import Bundle
from tests.agent.serving import SECONDS, Agent, serving
from tests.recordings import recordings

if TYPE_CHECKING:
    from pathlib import Path

QUESTION = {"from": "client/client-5f8b", "to": "svc/stars/backend"}


@contextmanager
def asked(agent: Agent, question: object, accept: str = LINES) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", agent.port, timeout=SECONDS)
    connection.request("POST", "/v1/trace", json.dumps(question), {"Accept": accept})
    response = connection.getresponse()
    try:
        yield response
    finally:
        response.close()
        connection.close()


class Slow:
    """Evidence that is held back: a node's file is given when ``gate`` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate = Event()
        self.read: list[str] = []
        self.error: Exception | None = None
        really: Callable[[Bundle, str, str], bytes] = Bundle.read

        def wait(bundle: Bundle, path: str, what_to_do: str) -> bytes:
            if path.startswith("nodes/"):
                self.read.append(path)
                assert self.gate.wait(SECONDS)
                if self.error is not None:
                    raise self.error
            return really(bundle, path, what_to_do)

        monkeypatch.setattr(Bundle, "read", wait)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    monkeypatch.setattr(progress, "SECONDS", 0.1)
    return Slow(monkeypatch)


@contextmanager
def agent_of(folder: Path, **limits: Any) -> Iterator[Agent]:
    with serving(folder, recordings("3.32.1-nft")[0].source, **limits) as agent:
        yield agent


def test_a_quick_answer_is_one_line(tmp_path: Path) -> None:
    with agent_of(tmp_path) as agent:
        whole = agent.json("/v1/trace", QUESTION)
        with asked(agent, QUESTION, f"text/plain, {LINES};q=0.9") as response:
            assert (response.status, response.getheader("Content-Type")) == (200, LINES)
            lines = response.read().splitlines()
        with asked(agent, QUESTION, "*/*") as response:
            assert json.loads(response.read()) == whole
    assert json.loads(lines[-1]) == whole
    assert {json.loads(line)["kind"] for line in lines[:-1]} <= {progress.KIND}


def test_lines_say_what_is_done_and_the_last_one_is_the_answer(slow: Slow, tmp_path: Path) -> None:
    with agent_of(tmp_path) as agent:
        with asked(agent, QUESTION) as response:
            first, second = (json.loads(response.readline()) for _ in range(2))
            slow.gate.set()
            last = json.loads(response.read().splitlines()[-1])
        assert last == agent.json("/v1/trace", QUESTION)
    assert (first["kind"], first["apiVersion"]) == (progress.KIND, last["apiVersion"])
    node, file = slow.read[0].removeprefix("nodes/").split("/", 1)
    assert first["doing"] == second["doing"] == f"reading {node}: {file}"
    assert 0 < first["seconds"] <= second["seconds"]


def test_what_fails_at_once_has_its_status(tmp_path: Path) -> None:
    with agent_of(tmp_path) as agent, asked(agent, {**QUESTION, "from": "nobody/nobody"}) as response:
        assert response.status == 400
        assert json.loads(response.read())["reason"] == "usage"


@pytest.mark.parametrize(
    ("error", "reason"), [(EvidenceError("it is broken"), "evidence"), (RuntimeError("oh"), "internal")]
)
def test_what_fails_late_is_told_in_the_last_line(slow: Slow, tmp_path: Path, error: Exception, reason: str) -> None:
    slow.error = error
    with agent_of(tmp_path) as agent, asked(agent, QUESTION) as response:
        assert json.loads(response.readline())["kind"] == progress.KIND
        slow.gate.set()
        last = json.loads(response.read().splitlines()[-1])
    assert (response.status, last["kind"], last["reason"]) == (200, "Error", reason)


def test_time_that_is_up_is_told(slow: Slow, tmp_path: Path) -> None:
    with agent_of(tmp_path, seconds=0.3) as agent, asked(agent, QUESTION) as response:
        lines = []
        while line := response.readline():
            lines.append(json.loads(line))
            if lines[-1]["kind"] == "Error":
                break
        slow.gate.set()
    assert lines[0]["kind"] == progress.KIND
    assert (lines[-1]["kind"], lines[-1]["reason"]) == ("Error", "timeout")


def test_work_ends_when_the_client_goes(slow: Slow, tmp_path: Path) -> None:
    with agent_of(tmp_path, concurrent=1) as agent:
        with asked(agent, QUESTION) as response:
            assert json.loads(response.readline())["kind"] == progress.KIND
        assert agent.ask("/v1/nodes")[0] == 503  # it is still being worked on
        read = list(slow.read)
        slow.gate.set()
        end = monotonic() + SECONDS
        while agent.ask("/v1/nodes")[0] != 200:
            assert monotonic() < end
    assert slow.read == read
