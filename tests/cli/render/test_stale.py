"""The report of old connections as text and document."""

from __future__ import annotations

from ipaddress import ip_address

from calico_debug.cli.render.stale import document, text
from calico_debug.explain.live_connections import LiveConnection, Tally
from calico_debug.explain.outlived import Answer, OldFlow, StaleReport
from calico_debug.model.explanation import Decision
from calico_debug.state.cluster import ClusterState
from tests.evidence.memory import MemorySource

CLIENT, SERVICE, SERVER = (ip_address(last) for last in ("10.0.0.1", "10.96.0.1", "10.0.0.2"))
NOBODY = ClusterState(MemorySource({}))


def old(verdict: str, *ports: int, why: str = "") -> OldFlow:
    ends = ((SERVICE, 80), (SERVER, 8080))
    connections = tuple(
        LiveConnection(
            ("n1",), 6, (CLIENT, port), *ends, (CLIENT, port), "established", ("client side",), 2, 100, port, 1.5
        )
        for port in ports
    )
    decision = Decision("n1", "nftables", "end-of-tier", tier="t", detail="nothing matched")
    return OldFlow(6, CLIENT, *ends, Answer(verdict, decision, why), None, connections)


def test_a_flow_that_would_be_refused() -> None:
    lines = text(StaleReport(("n1",), 7, (old("denied", *range(1, 8)),), ()), NOBODY).splitlines()
    assert lines[:4] == [
        "tcp      10.0.0.1 -> 10.0.0.2:8080 by 10.96.0.1:80",
        "         if new   DENIED on n1: nothing matched (tier t)",
        "         lives    7 connections, 14 packets of 700 bytes, the oldest for 7 s, idle for 2 s",
        "                  from port 1, established, approved by client side, tracked on n1",
    ]
    assert lines[8] == "                  and 2 more, which -o json lists"
    assert lines[-1].endswith("7 would be refused now, 0 could not be settled, 0 would be allowed again")


def test_what_is_not_settled_is_one_line_each() -> None:
    flows = tuple(old("undetermined", port, why="gone \x1b[2J") for port in range(12))
    report = StaleReport(("n1",), 12, (), flows, Tally(12, left_out=3, unread={"n2": "no conntrack.txt"}))
    lines = text(report, NOBODY).splitlines()
    assert lines[:2] == ["NOT SETTLED", "         tcp 10.0.0.1 -> 10.0.0.2:8080 by 10.96.0.1:80: gone \\x1b[2J"]
    assert lines[11] == "         and 2 more, which -o json lists"
    assert lines[-2:] == [
        "not looked at: n2: no conntrack.txt",
        "3 open connections more were not judged: there are too many",
    ]
    assert len(document(report, NOBODY)["undetermined"]) == 12


def test_the_document_lists_a_hundred_connections() -> None:
    (flow,) = document(StaleReport(("n1",), 150, (old("denied", *range(1, 151)),), ()), NOBODY)["refused"]
    assert (flow["count"], len(flow["connections"]), flow["oldestSeconds"], flow["idleSeconds"]) == (150, 100, 150, 1.5)
