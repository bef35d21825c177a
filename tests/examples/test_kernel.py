"""The examples on a real kernel: programmed as Felix does, asked with packets, explained, compared by stage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from calico_debug.cli.environment import open_tracer
from calico_debug.decode.assertions import decode_assertions
from calico_debug.diff.compare import compare
from calico_debug.diff.model import FlowText
from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.engine import Engine
from calico_debug.matrix.make import Wanted, make_matrix
from tests.cli.worlds import run
from tests.examples.environments import NAMES, Stage, lab_model, stages, topology
from tests.kernel.test_bundle_live import LiveWithCluster
from tests.lab import namespaces
from tests.lab.conftest import need_lab
from tests.lab.evidence import write_node
from tests.lab.lab import Lab

pytestmark = pytest.mark.kernel

PORTS = {"tcp": (80, 2379, 6379, 9000, 9001)}


class Built:
    """An example that is wired, and a bundle of each of its stages."""

    def __init__(self, name: str, folder: Path) -> None:
        self.stages = [one for one in stages() if one.example == name]
        self.folder = folder
        self.lab = Lab(topology(self.stages[0].cluster(folder / "first")), PORTS)

    def bundle(self, stage: Stage) -> Path:
        """Program the stage, and record it; the objects are those of the example's manifests."""
        folder = self.folder / stage.directory.name
        self.lab.program(lab_model(stage.cluster(folder)))
        self.record(folder)
        return folder

    def record(self, folder: Path) -> None:
        """The nodes as they are."""
        for node in self.lab.topology.nodes:
            write_node(folder / "nodes" / node.name, self.lab.wiring, self.lab.model, node)


@pytest.fixture(scope="module", params=NAMES)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    need_lab()
    made = Built(request.param, tmp_path_factory.mktemp(request.param))
    yield made
    made.lab.close()


def test_packets_meet_what_is_expected(built: Built) -> None:
    for stage in built.stages:
        bundle = built.bundle(stage)
        engine = Engine(open_bundle(bundle))
        expected = decode_assertions(stage.expected.read_bytes(), str(stage))
        flows = []
        for one in expected:
            target = one.destination.strip('"')
            if target.startswith("svc/"):
                service = engine.cluster.service(*target.removeprefix("svc/").split("/"))
                assert service is not None
                flows.append(
                    built.lab.flow(one.source, str(service.cluster_addresses[0]), "tcp", service.ports[0].port)
                )
            else:
                place, _, port = target.rpartition(":")
                flows.append(built.lab.flow(one.source, place, "tcp", int(port)))
        outcomes = built.lab.send_all(flows)
        for one, outcome in zip(expected, outcomes, strict=True):
            assert outcome.verdict in one.verdicts, (str(stage), one, outcome)


def test_the_command_says_so(built: Built) -> None:
    for stage in built.stages:
        ran = run("assert", str(stage.expected), "--bundle", str(built.bundle(stage)), open_tracer=open_tracer)
        assert (ran.code, ran.err) == (0, ""), (str(stage), ran.out)


def test_the_policies_of_a_stage_are_what_changed_flows(built: Built) -> None:
    for before, after in zip(built.stages, built.stages[1:], strict=False):
        old, new = built.bundle(before), built.bundle(after)
        report = compare(open_bundle(old), open_bundle(new))
        made = {(one["kind"], one["metadata"]["name"]) for one in _new_objects(before, after)}
        # Nobody who may ask the database may send anything before the stage after it.
        assert bool(report.flows) == (str(after) != "yaobank/2-database"), str(after)
        assert not report.unsettled
        assert not report.gone
        for one in report.flows:
            assert one.cause.kind == "objects", (str(after), one)
            blamed = {(change.key.kind, change.key.name) for some in one.cause.objects for change in some}
            assert blamed <= made, (str(after), one)


def test_nodes_do_what_the_objects_say(built: Built) -> None:
    engine = Engine(open_bundle(built.bundle(built.stages[-1])))
    walked, meant = (make_matrix(engine, Wanted(basis=basis)) for basis in ("predicted", "intent"))
    assert (walked.sources, walked.destinations) == (meant.sources, meant.destinations)
    assert [[[c.verdict for c in row] for row in sheet.rows] for sheet in walked.sheets] == [
        [[c.verdict for c in row] for row in sheet.rows] for sheet in meant.sheets
    ]


def test_what_nodes_do_is_not_blamed_on_objects(built: Built) -> None:
    """The same objects twice: once a node that was not yet programmed, once a route that leads nowhere."""
    first, second = built.stages[:2]
    late = built.bundle(first)
    second.write(late)
    report = compare(open_bundle(late), open_bundle(built.bundle(second)))
    assert not report.objects
    assert report.flows
    for one in report.flows:
        assert (one.before.verdict, one.after.verdict, one.cause.kind) == ("allowed", "denied", "programmed")
        assert one.cause.message == "by the objects it was denied before: the first state had drifted"

    whole = built.bundle(first)
    astray = built.folder / "astray"
    first.write(astray)
    node = built.lab.namespace("node1")
    kept = namespaces.run(node, ["ip", "route", "show", "10.244.2.0/24"]).strip()
    namespaces.run(node, ["ip", "route", "replace", "blackhole", "10.244.2.0/24"])
    try:
        built.record(astray)
    finally:
        namespaces.run(node, ["ip", "route", "replace", *kept.split()])
    report = compare(open_bundle(whole), open_bundle(astray))
    assert not report.objects
    assert {(one.cause.kind, one.cause.message) for one in report.flows} == {("path", "decided by no-route")}


def live(built: Built, stage: Stage) -> LiveWithCluster:
    """The first node as it is now, with the stage's objects for its cluster's; to be used inside of its namespace."""
    lists = {f"{name}.json": {"kind": "List", "items": items} for name, items in stage.lists.items()}
    return LiveWithCluster("node1", lists)


def test_a_bundle_and_the_live_node(built: Built) -> None:
    """What stays on the node is compared; what leads to a node without evidence is not settled, and said so."""
    before, after = built.stages[:2]
    old = open_bundle(built.bundle(before))
    built.bundle(after)
    with namespaces.entered(built.lab.namespace("node1")):
        report = compare(old, live(built, after))
    assert report.basis == "predicted"
    assert "only before has evidence of node2" in report.notes
    assert report.flows
    here = {one.place for one in built.lab.topology.pods if one.node == "node1"}
    for one in report.flows:
        assert {change.key.name for some in one.cause.objects for change in some} == {"default-deny"}
        assert one.after.verdict == "denied"
    assert any(_places(one.flow) <= here for one in report.flows)
    assert not any(_places(one.flow) <= here for one in report.unsettled)


def test_a_matrix_of_the_live_node(built: Built) -> None:
    stage = built.stages[1]
    built.bundle(stage)
    pods = tuple(one.place for one in built.lab.topology.pods if one.node == "node1")
    with namespaces.entered(built.lab.namespace("node1")):
        engine = Engine(live(built, stage))
        walked = make_matrix(engine, Wanted(basis="predicted", sources=pods, destinations=pods))
        assert make_matrix(engine, Wanted()).basis == "intent"
    meant = make_matrix(engine, Wanted(basis="intent", sources=pods, destinations=pods))
    assert "undetermined" not in {cell.verdict for sheet in walked.sheets for row in sheet.rows for cell in row}
    assert [[[c.verdict for c in row] for row in sheet.rows] for sheet in walked.sheets] == [
        [[c.verdict for c in row] for row in sheet.rows] for sheet in meant.sheets
    ]


def _places(flow: FlowText) -> set[str]:
    return {end.removeprefix("pod/").partition(":")[0] for end in (flow.source, flow.destination)}


def _new_objects(before: Stage, after: Stage) -> Iterator[dict[str, object]]:
    """What a stage adds, with kinds as explanations name them."""
    for name, items in after.lists.items():
        for one in items[len(before.lists.get(name, ())) :]:
            kind = "KubernetesNetworkPolicy" if name == "networkpolicies.networking.k8s.io" else one["kind"]
            yield {**one, "kind": kind}
