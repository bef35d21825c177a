"""What differs after a switch."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from calico_debug.explain.engine import Engine
from calico_debug.switch.answers import Asker
from calico_debug.switch.causes import BOTH_WITHOUT, NO_ENDPOINTS
from calico_debug.switch.compare import Comparison, SwitchReport, compare
from calico_debug.switch.model import Answer, Record, RecordedFlow, Way
from calico_debug.switch.questions import asked_question
from tests.switch.sources import engine, items, record, source


def one_flow(mode: str, after: Engine, *ends: str, via: str | None = None, answer: Answer | None = None) -> Comparison:
    """The comparison of one flow of a recording."""
    before = engine(mode)
    asker = Asker(before)
    question = asked_question(asker, *ends, "tcp", via)  # type: ignore[misc]
    flow = RecordedFlow(question, answer or asker.answer(question))
    return compare(Record("x", (), (flow,)), after).flows[0]


@pytest.mark.parametrize("mode", ["nft", "iptables", "bpf"])
def test_nothing_differs_from_itself(mode: str) -> None:
    report = compare(record(mode), engine(mode))
    open_before = sum(not flow.answer.ways or flow.answer.verdict == "undetermined" for flow in record(mode).flows)
    found = Counter(one.result for one in report.flows)
    assert set(found) <= {"same", "undetermined"}
    assert found["undetermined"] <= min(open_before, 1)
    assert report.result == ("undetermined" if found["undetermined"] else "same")
    assert not any(one.source or one.new_backends for one in report.flows)
    assert {one.status for one in report.fates} == {"tracked"}
    assert all(node.before == node.after for node in report.nodes)


def test_to_ebpf() -> None:
    report = compare(record("nft"), engine("bpf"))
    assert report.result == "differs"
    assert [one.result for one in report.flows] == sorted(one.result for one in report.flows)
    assert Counter(one.source.kind for one in report.flows if one.source) == {"preserved": 40, "otherwise": 2}
    assert [(node.before.dataplane, node.after.dataplane) for node in report.nodes if node.before and node.after] == [
        ("nftables", "ebpf"),
        ("nftables", "ebpf"),
    ]
    back = compare(record("bpf"), engine("nft"))
    assert {one.source.kind for one in back.flows if one.source} == {"rewritten", "otherwise"}
    assert all(one.why for one in report.flows if one.result == "differs")


def test_between_rules_only_the_order_of_hooks_differs() -> None:
    report = compare(record("nft"), engine("iptables"))
    assert {one.why for one in report.flows if one.result == "differs"} <= {NO_ENDPOINTS, BOTH_WITHOUT}
    assert not any(one.source for one in report.flows)


def test_restarted_pods_are_the_same_flows() -> None:
    pods = items("bpf", "pods.json")
    for pod in pods:
        pod["metadata"]["name"] += "-new"
    report = compare(record("nft"), Engine(source("bpf", {"pods.json": pods})))
    assert Counter(one.result for one in report.flows) == Counter(
        one.result for one in compare(record("nft"), engine("bpf")).flows
    )


def test_flows_that_are_gone() -> None:
    without = [pod for pod in items("nft", "pods.json") if pod["metadata"]["namespace"] != "client"]
    one = one_flow("nft", Engine(source("nft", {"pods.json": without})), "client/client-5f8b", "svc/stars/backend")
    assert (one.result, one.answer) == ("gone", None)
    assert one.why == "pod client/client-5f8b is no longer there"


def test_another_backend() -> None:
    slices = items("nft", "endpointslices.discovery.k8s.io.json")
    one = one_flow("nft", Engine(source("nft", {"endpointslices.discovery.k8s.io.json": slices})), *TO_BACKEND)
    assert not one.new_backends
    before = Asker(engine("nft"))
    answer = before.answer(asked_question(before, *TO_BACKEND, "tcp", None))
    moved = tuple(replace(way, backend=replace(way.backend, name="x", labels={})) for way in answer.ways if way.backend)
    other = one_flow("nft", engine("nft"), *TO_BACKEND, answer=replace(answer, ways=moved))
    assert (other.result, other.new_backends) == ("same", True)


TO_BACKEND = ("client/client-5f8b", "svc/stars/backend")


@pytest.mark.parametrize(
    ("verdict", "ways", "result"),
    [
        ("allowed", {"a": "allowed", "b": "allowed"}, "differs"),  # now one of them is denied
        ("undetermined", {"a": "allowed", "b": "denied"}, "same"),
        ("undetermined", {"a": "denied", "b": "allowed"}, "differs"),
        ("undetermined", {"a": "undetermined", "b": "denied"}, "undetermined"),
        ("undetermined", {}, "undetermined"),
    ],
)
def test_backends_that_fare_differently(verdict: str, ways: dict[str, str], result: str) -> None:
    asker = Asker(engine("nft"))
    ends = ("node/node1", "svc/yaobank/summary")
    now = {
        way.backend.name[8]: way for way in asker.answer(asked_question(asker, *ends, "tcp", None)).ways if way.backend
    }
    assert {name: way.verdict for name, way in now.items()} == {"a": "allowed", "b": "denied"}
    made = tuple(Way(ways[name], way.backend) for name, way in now.items() if name in ways)
    one = one_flow("nft", engine("nft"), *ends, answer=Answer(verdict, None, made))
    assert one.result == result
    assert bool(one.why) == (result == "undetermined")


def test_the_worst_is_the_result() -> None:
    empty = compare(Record("x", (), ()), engine("nft"))
    assert empty.result == "undetermined"
    flow = record("nft").flows[0]

    def report(*results: str) -> str:
        made: SwitchReport = replace(empty, flows=tuple(Comparison(flow, result) for result in results))
        return made.result

    assert report("same", "gone") == "same"
    assert report("gone") == "undetermined"
    assert report("same", "undetermined") == "undetermined"
    assert report("same", "undetermined", "differs") == "differs"


def test_what_was_left_out_is_told() -> None:
    assert compare(Record("x", (), (), (), ("a",)), engine("nft")).notes == ("not in the record: a",)
