"""Recordings compared: what was really changed between them is found."""

from __future__ import annotations

import pytest

from calico_debug.diff import asked
from calico_debug.diff.compare import compare
from calico_debug.diff.model import DiffReport, FlowText
from calico_debug.errors import EvidenceError
from calico_debug.evidence.bundle import open_bundle
from calico_debug.evidence.source import EvidenceSource
from tests.evidence.memory import MemorySource
from tests.recordings import DATA
from tests.switch.sources import Json, items, source


def bundle(name: str) -> EvidenceSource:
    return open_bundle(DATA / f"v3.32.1-{name}.tar.xz")


@pytest.fixture(scope="module")
def there() -> DiffReport:
    """From the recording before the freeze to the one after it."""
    return compare(bundle("nft"), bundle("stale-nft"))


def test_the_policy_that_froze_the_backend(there: DiffReport) -> None:
    """In the second recording policy platform.freeze had been added."""
    report = there
    assert report.result == "changed"
    verdicts = [one for one in report.flows if one.what == "verdict"]
    assert {(one.flow.source, one.flow.destination) for one in verdicts} == {
        ("pod/client/client-5f8b", "pod/stars/backend-6c9d:6379"),
        ("pod/stars/frontend-77cd", "pod/stars/backend-6c9d:6379"),
    }
    for one in report.flows:
        assert [[str(change) for change in some] for some in one.cause.objects] == [
            ["added GlobalNetworkPolicy platform.freeze"]
        ]
        assert one.flow.destination.startswith("pod/stars/backend-6c9d")
    assert [change.key.kind for change in report.objects] == ["GlobalNetworkPolicy", "Node", "Node"]


def test_there_and_back(there: DiffReport) -> None:
    back = compare(bundle("stale-nft"), bundle("nft"))
    assert {one.flow for one in there.flows} == {one.flow for one in back.flows}
    assert {str(change) for one in back.flows for some in one.cause.objects for change in some} == {
        "removed GlobalNetworkPolicy platform.freeze"
    }


@pytest.mark.parametrize("dataplane", ["nft", "iptables", "bpf"])
def test_the_same_twice(dataplane: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "MOST_FLOWS", 150)
    report = compare(bundle(dataplane), bundle(dataplane))
    assert (report.flows, report.objects, report.gone) == ((), (), ())
    assert report.asked > 150


def test_another_dataplane_treats_a_service_without_endpoints_otherwise() -> None:
    flows = [
        FlowText("pod/client/client-5f8b", "svc/yaobank/ghost"),
        FlowText("pod/client/client-5f8b", "svc/stars/backend"),
    ]
    report = compare(bundle("nft"), bundle("bpf"), flows)
    (one,) = report.flows
    assert (one.before.verdict, one.after.verdict) == ("denied", "rejected")
    assert (one.cause.kind, one.cause.message) == ("dataplane", "nftables became ebpf")


def test_names_without_a_namespace_and_ends_that_nobody_has() -> None:
    flows = [FlowText("frontend-77cd", "svc/backend", via=None), FlowText("nobody", "svc/backend")]
    report = compare(bundle("nft"), bundle("stale-nft"), flows, namespace="stars")
    assert [one.flow.source for one in report.flows] == ["frontend-77cd"]
    assert report.asked == 2
    assert [one.flow.source for one in report.unsettled] == ["nobody"]


def test_too_many_flows_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "MOST_FLOWS", 40)
    monkeypatch.setattr(asked, "MOST_OPEN", 3)
    report = compare(bundle("nft"), bundle("stale-nft"))
    assert report.asked <= 43
    # What the objects decide otherwise goes first.
    assert sum(one.what == "verdict" for one in report.flows) == 2
    assert any("flows between pods are not asked about" in note for note in report.notes)
    assert any("of open connections the first 3" in note for note in report.notes)


def test_enough_is_enough() -> None:
    turns = iter(range(10_000))
    report = compare(bundle("nft"), bundle("stale-nft"), is_enough=lambda: next(turns) >= 20)
    assert report.asked == 20
    assert any("flows are not asked about, as it takes long" in note for note in report.notes)
    flows = [FlowText("pod/client/client-5f8b", "svc/stars/backend")]
    assert compare(bundle("nft"), bundle("stale-nft"), flows, is_enough=lambda: True).asked == 1


def objects_alone(name: str) -> MemorySource:
    """A recording without its nodes."""
    whole = bundle(name)
    return MemorySource({file: whole.read_cluster(file) for file in whole.cluster_files()})


def test_objects_alone(there: DiffReport) -> None:
    report = compare(objects_alone("nft"), objects_alone("stale-nft"))
    assert report.basis == "intent"
    assert any("there is no evidence of a node in memory and memory" in note for note in report.notes)
    assert there.basis == "predicted"
    between_pods = {one.flow for one in there.flows if one.flow.source.startswith("pod/")}
    assert {one.flow for one in report.flows} == between_pods
    assert {str(change) for one in report.flows for some in one.cause.objects for change in some} == {
        "added GlobalNetworkPolicy platform.freeze"
    }


def test_a_service_that_lost_its_backends_by_objects_alone() -> None:
    flows = [FlowText("pod/client/client-5f8b", "svc/stars/backend"), FlowText("pod/client/client-5f8b", "svc/stars/x")]
    before, lists = objects_alone("nft"), objects_alone("nft")
    lists._cluster = {**lists._cluster, "endpointslices.discovery.k8s.io.json": b'{"items": []}'}
    report = compare(before, lists, flows)
    (one,) = report.flows
    assert (one.before.verdict, one.after.verdict) == ("allowed", "rejected")
    assert [[str(change) for change in some] for some in one.cause.objects] == [
        ["changed Service stars/backend (backends)"]
    ]
    assert [one.flow for one in report.unsettled] == flows[1:]


def test_nothing_to_compare() -> None:
    with pytest.raises(EvidenceError, match="has no pods"):
        compare(MemorySource({}), bundle("nft"))


def rolled_out(pods: list[Json]) -> list[Json]:
    """The same pods after their workloads were rolled out: other names, and another hash."""
    for one in pods:
        meta = one["metadata"]
        if not one["spec"].get("hostNetwork"):
            meta["name"] = f"{meta['name']}-next"
            meta["labels"] = {**(meta.get("labels") or {}), "pod-template-hash": "next"}
    return pods


def test_pods_that_were_rolled_out_are_compared(there: DiffReport) -> None:
    """What changed is found all the same, also when flows are named after the new pods."""
    after = source("stale-nft", {"pods.json": rolled_out(items("stale-nft", "pods.json"))})
    report = compare(bundle("nft"), after)
    assert [(one.flow, one.before, one.after, one.cause) for one in report.flows] == [
        (one.flow, one.before, one.after, one.cause) for one in there.flows
    ]
    assert (report.asked, report.gone) == (there.asked, ())
    assert any("pods were replaced by others alike" in note and "client-5f8b-next" in note for note in report.notes)
    named = compare(bundle("nft"), after, [FlowText("client/client-5f8b-next", "svc/stars/backend")])
    assert [one.what for one in named.flows] == ["verdict"]
    assert named.flows[0].flow.source == "pod/client/client-5f8b"
