"""Paths about captures over HTTP; tests/agent/captures/test_live.py has them with a kernel."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import jsonschema
import pytest

from calico_debug.agent.capture_routes import CAPTURE, CAPTURES, START
from calico_debug.agent.captures.running import BOUNDS
from calico_debug.model.subject import KEYS, Subject
from tests.agent.captures.made import Made, serving_captures
from tests.agent.serving import serving, work_over
from tests.evidence.memory import MemorySource

if TYPE_CHECKING:
    from pathlib import Path


def test_a_capture_through_its_life(tmp_path: Path) -> None:
    made = Made(tmp_path / "captures")
    with serving_captures(tmp_path, made) as agent:
        asked = {"pod": "a/b", "drops": True, "namespace": "c", "files": 2, "bytes": 1 << 20}
        begun = agent.json("/v1/captures", asked)
        assert made.asked[0][0] == Subject(pod="a/b", drops=True, namespace="c")
        place = f"/v1/captures/{begun['id']}"
        stopped = json.loads(agent.ask(place, method="DELETE")[2])
        assert stopped["limits"] == {
            "seconds": 600,
            "packets": 100_000,
            "bytes": 1 << 20,
            "files": 2,
            "snap": 256,
            "rate": 1000,
        }
        status, headers, content = agent.ask(f"{place}/files/00001.pcapng")
        assert (status, headers["Content-Type"]) == (200, "application/octet-stream")
        assert content == (tmp_path / "captures" / begun["id"] / "00001.pcapng").read_bytes()
        assert agent.json(place) == stopped
        assert agent.json("/v1/captures") == {"captures": [stopped]}
        for document in (begun, stopped):
            jsonschema.validate(document, CAPTURE)
        assert json.loads(agent.ask(f"{place}/files", method="DELETE")[2]) == stopped
        jsonschema.validate(agent.json("/v1/captures"), CAPTURES)
        assert [agent.ask(where)[0] for where in (place, f"{place}/files/00001.pcapng")] == [404, 404]


def test_bodies_have_what_can_be_asked() -> None:
    assert START["properties"].keys() == {*KEYS.values(), *BOUNDS}


@pytest.mark.parametrize(
    ("path", "body", "method"),
    [
        ("/v1/captures", {"drops": True}, ""),
        ("/v1/captures", None, ""),
        ("/v1/captures/20261121-174704-8db1", None, "DELETE"),
        ("/v1/drops", None, ""),
    ],
)
def test_an_agent_without_captures_says_so(tmp_path: Path, path: str, body: object, method: str) -> None:
    with serving_captures(tmp_path, None) as agent:
        status, _, content = agent.ask(path, body, method=method)
        assert (status, json.loads(content)["reason"]) == (500, "evidence")
        assert "this agent" in json.loads(content)["message"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("seconds=0", "is not a number from 1 to 60"),
        ("seconds=1e3", "is not a number"),
        ("events=" + "9" * 5000, "is not a number"),
        ("what=1", "unknown key"),
        ("pod=a&policy=b", "contradict each other"),
        ("pod=%ff", "cannot be read"),
        ("&".join("pod=a" for _ in range(100)), "cannot be read"),
    ],
)
def test_what_stands_behind_the_path_is_checked(tmp_path: Path, query: str, said: str) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    work = replace(work_over(MemorySource({})), open_watch=never)
    with serving(tmp_path, work=work) as agent:
        status, _, content = agent.ask(f"/v1/drops?{query}")
        assert (status, json.loads(content)["reason"]) == (400, "usage")
        assert said in json.loads(content)["message"]
