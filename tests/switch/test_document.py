"""A record survives its file, and a file that is none is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from calico_debug.errors import EvidenceError
from calico_debug.switch.document import from_json, to_document
from calico_debug.switch.model import KIND, VERSION, Record, RecordedNode
from tests.switch.sources import record


def written(made: Record) -> bytes:
    return json.dumps(to_document(made)).encode()


@pytest.mark.parametrize("mode", ["nft", "iptables", "bpf"])
def test_what_is_written_is_read(mode: str) -> None:
    made = record(mode)
    read = from_json(written(made), "it")
    assert (read.nodes, read.connections, read.left_out) == (made.nodes, made.connections, made.left_out)
    assert len(read.flows) == len(made.flows) > 200
    for one, other in zip(made.flows, read.flows, strict=True):
        assert one.question == other.question
        assert (one.answer.verdict, one.answer.ways, one.answer.rewrites) == (
            other.answer.verdict,
            other.answer.ways,
            other.answer.rewrites,
        )
        decision = one.answer.decision
        assert other.answer.decision == (replace(decision, evidence=None) if decision is not None else None)


def test_what_a_node_answers_straight_is_kept() -> None:
    made = Record("x", (RecordedNode("n1", "ebpf", dsr=False), RecordedNode("n2", "", problem="why")), ())
    assert from_json(written(made), "it").nodes == made.nodes


GOOD: dict[str, Any] = {"apiVersion": "calico-debug/v1", "kind": KIND, "version": VERSION, "nodes": [], "flows": []}
END = {"kind": "pod", "ip": "10.0.0.1"}
FLOW = {"source": END, "destination": END, "protocol": 6, "answer": {"verdict": "allowed"}}


def test_a_small_record_by_hand() -> None:
    assert len(from_json(json.dumps({**GOOD, "flows": [FLOW]}).encode(), "it").flows) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({**GOOD, "kind": "Bundle"}, "not a record of flows"),
        ([], "not a record of flows"),
        ({**GOOD, "version": 2}, "version 2 and 1 is known"),
        ({**GOOD, "nodes": None}, "is damaged"),
        ({**GOOD, "flows": [{}]}, "it has no 'protocol'"),
        ({**GOOD, "flows": [{**FLOW, "source": {**END, "kind": "cloud"}}]}, "an end of kind 'cloud'"),
        ({**GOOD, "flows": [{**FLOW, "source": {**END, "ip": "::x"}}]}, "is damaged"),
        ({**GOOD, "flows": [{**FLOW, "source": {**END, "port": "80"}}]}, "a number is expected"),
        ({**GOOD, "flows": [{**FLOW, "via": 3}]}, "a text is expected"),
        ({**GOOD, "flows": [{**FLOW, "answer": {"verdict": "maybe"}}]}, "a verdict 'maybe'"),
        ({**GOOD, "connections": [{"protocol": 6, "client": ["10.0.0.1"]}]}, "is damaged"),
    ],
)
def test_what_is_no_record(content: object, words: str) -> None:
    with pytest.raises(EvidenceError, match=words):
        from_json(json.dumps(content).encode(), "it")


def test_what_is_no_json() -> None:
    with pytest.raises(EvidenceError, match="not complete JSON"):
        from_json(b"{", "it")
