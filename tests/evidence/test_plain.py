"""Records as JSON, there and back; and whatever else comes is refused."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest

from calico_debug.errors import EvidenceError
from calico_debug.evidence.plain import from_plain, to_plain
from calico_debug.model.explanation import Witness
from calico_debug.model.observation import FlowTuple, Headers, Observation, ProbeReport, TracedPacket, TraceEvent
from calico_debug.model.packet_event import Ends

A, B = ip_address("10.0.0.1"), ip_address("fd00::2")
FLOW = FlowTuple(6, A, A, None, 80)
HEADERS = Headers(1, B, B, icmp=(8, 0))
EVENT = TraceEvent("ip", "t", "c", "rule", 7, "drop", handle=3, mark=0xFFFFFFFF, headers=HEADERS)
OBSERVATION = Observation((TracedPacket((EVENT, EVENT), ("prerouting",), output_index=2, headers=HEADERS),), "a", "b")
PROBE = ProbeReport(2, "here", FLOW, ("reset", "reset"), "10.0.0.1", at="now")
WITNESS = Witness("denied", "n1", "said", "now", (Witness("denied", "n2", "x"),))


@pytest.mark.parametrize(
    "record", [FLOW, Ends(17, A, A, 1, 2), OBSERVATION, PROBE, WITNESS], ids=lambda r: type(r).__name__
)
def test_there_and_back(record: Any) -> None:
    assert from_plain(type(record), json.loads(json.dumps(to_plain(record)))) == record


def changed(**members: Any) -> dict[str, Any]:
    return {**to_plain(FLOW), **members}


@pytest.mark.parametrize(
    "odd",
    [
        None,
        [],
        "x",
        {},
        changed(more=1),
        {key: value for key, value in to_plain(FLOW).items() if key != "protocol"},
        changed(protocol="6"),
        changed(protocol=True),
        changed(protocol=6.0),
        changed(protocol=None),
        changed(protocol=1 << 65),
        changed(source="10.0.0.1/24"),
        changed(source=1),
        changed(source=None),
        changed(destination_port=[80]),
        changed(destination_port="80"),
    ],
)
def test_what_is_no_flow(odd: Any) -> None:
    with pytest.raises(EvidenceError, match="the agent sent a FlowTuple"):
        from_plain(FlowTuple, odd)


@pytest.mark.parametrize(
    ("path", "odd"),
    [
        (("packets",), {}),
        (("packets",), [1]),
        (("packets", 0, "events"), None),
        (("packets", 0, "events", 0, "headers", "icmp"), [8]),
        (("packets", 0, "events", 0, "headers", "icmp"), [8, "0"]),
        (("packets", 0, "hooks"), [None]),
        (("started",), "x" * 5000),
        (("lost",), 0),
    ],
)
def test_what_is_no_observation(path: tuple[Any, ...], odd: Any) -> None:
    document = json.loads(json.dumps(to_plain(OBSERVATION)))
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = odd
    with pytest.raises(EvidenceError, match=r"the agent sent a Observation\."):
        from_plain(Observation, document)
