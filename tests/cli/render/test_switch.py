"""The report of a switch as text and document, where recordings do not lead."""

from __future__ import annotations

from dataclasses import replace

from calico_debug.cli.render.switch import document, text
from calico_debug.doctor.examine import Report
from calico_debug.switch.compare import Comparison, NodeChange, SwitchReport
from calico_debug.switch.model import Answer, Question, RecordedEnd, RecordedFlow, RecordedNode, Way

POD = RecordedEnd("pod", "10.0.0.1", None, "shop", "a\x1b[2J", {"app": "a"}, "n1")
SERVER = RecordedEnd("outside", "fd00::1", 80)
QUESTION = Question(POD, SERVER, 17, "n1")
EMPTY = SwitchReport("before", "after", (), (), (), Report("after", (), (), ()), ())


def flow(result: str, **more: object) -> Comparison:
    return Comparison(RecordedFlow(QUESTION, Answer("allowed")), result, QUESTION, Answer("denied"), **more)  # type: ignore[arg-type]


def test_nothing_at_all() -> None:
    assert text(EMPTY) == "\n0 flows: \n"
    assert document(EMPTY)["result"] == "undetermined"


def test_untrusted_names_and_addresses() -> None:
    shown = text(replace(EMPTY, flows=(flow("differs"),)))
    assert "DIFFERS      udp shop/a\\x1b[2J (10.0.0.1) -> [fd00::1]:80 via n1\n" in shown
    assert "         before   ALLOWED\n         now      DENIED\n" in shown


def test_nodes() -> None:
    nodes = (
        NodeChange("n1", RecordedNode("n1", "ebpf", dsr=False), RecordedNode("n1", "ebpf", dsr=True)),
        NodeChange("n2", RecordedNode("n2", "iptables"), None),
        NodeChange("n3", None, RecordedNode("n3", "", problem="why")),
    )
    assert text(replace(EMPTY, nodes=nodes)).splitlines()[:3] == [
        "n1  ebpf, answers through the tunnel -> ebpf, answers straight to clients (DSR)",
        "n2  iptables -> no evidence",
        "n3  no evidence -> unknown (why)",
    ]


def test_many_flows_are_cut_in_text_only() -> None:
    report = replace(EMPTY, flows=tuple(flow("differs") for _ in range(60)))
    shown = text(report)
    assert shown.count("before   ALLOWED") == 50
    assert "DIFFERS      10 more, which -o json lists" in shown
    assert len(document(report)["flows"]) == 60


def test_flows_that_are_gone_and_not_known() -> None:
    gone = Comparison(RecordedFlow(QUESTION, Answer("allowed")), "gone", why="pod shop/a is no longer there")
    unknown = flow("undetermined", why="now: why")
    broken = replace(unknown, answer=Answer("undetermined", problem="no node"))
    shown = text(replace(EMPTY, flows=(broken, gone), notes=("not in the record: x",)))
    assert "         now      not known: no node\n         because  now: why\n" in shown
    assert "GONE         udp " in shown
    assert shown.endswith("not in the record: x\n2 flows: 1 undetermined, 1 gone\n")


def test_backends_with_a_verdict_each() -> None:
    ways = tuple(
        Way(verdict, replace(SERVER, kind="pod", namespace="s", name=verdict)) for verdict in ("allowed", "denied")
    )
    one = replace(flow("differs"), answer=Answer("undetermined", None, ways))
    assert "UNDETERMINED (s/allowed ([fd00::1]:80): allowed; s/denied ([fd00::1]:80): denied)" in text(
        replace(EMPTY, flows=(one,))
    )
