"""What ``calico-debug bundle`` writes of a live node explains like the node itself, byte for byte."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from calico_debug.agent.evidence import LiveSource
from calico_debug.cli.archive import new_bundle
from calico_debug.cli.environment import Question
from calico_debug.cli.render.json import render_line
from calico_debug.cli.tracer import EvidenceTracer
from calico_debug.evidence.bundle import open_bundle
from calico_debug.record.recorder import Recorder
from calico_debug.redact.redactor import KINDS
from tests.lab import namespaces
from tests.lab.cluster_objects import cluster_files
from tests.lab.conftest import need_lab
from tests.lab.generate import Case, cases
from tests.lab.lab import Lab
from tests.lab.topology import small_cluster
from tests.record.worlds import quiet_world
from tests.redact.worlds import Asked, Redacted, without_sentences

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from calico_debug.evidence.source import EvidenceSource, NodeEvidence

pytestmark = pytest.mark.kernel

UNHURRIED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
RULES = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m set --match-set s src -j {target}\nCOMMIT\n"


class LiveWithCluster:
    """A live node, with the lab's cluster objects in place of an API server's."""

    origin = "this node"

    def __init__(self, node: str, cluster: Mapping[str, Any]) -> None:
        self._live = LiveSource(node)
        self._cluster = {name: json.dumps(content).encode() for name, content in cluster.items()}

    def nodes(self) -> Sequence[str]:
        return self._live.nodes()

    def node(self, name: str) -> NodeEvidence:
        return self._live.node(name)

    def cluster_files(self) -> Sequence[str]:
        return tuple(self._cluster)

    def read_cluster(self, file: str) -> bytes:
        return self._cluster[file]


def write(source: EvidenceSource, target: Path) -> None:
    with new_bundle(target) as sink:
        Recorder(source, sink, quiet_world(), "calico-debug test").record(source.nodes())


def answers(source: EvidenceSource, questions: Sequence[Question]) -> list[str]:
    """What trace prints, without the times of the evidence."""
    tracer = EvidenceTracer(source)
    found = []
    for question in questions:
        document = json.loads(render_line(tracer.trace(question)))
        for witness in document["witnesses"].values():
            witness.pop("at")
        found.append(json.dumps(document, indent=1))
    return found


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    need_lab()
    with Lab(small_cluster()) as built:
        yield built


@pytest.mark.slow
@settings(max_examples=5, deadline=None, suppress_health_check=UNHURRIED, phases=[Phase.generate])
@given(case=cases(small_cluster(), flows=4))
def test_generated_clusters(lab: Lab, tmp_path_factory: pytest.TempPathFactory, case: Case) -> None:
    lab.program(case.model)
    for flow in case.flows:
        lab.send(flow)
    questions = [
        Question(asked["from"], asked["to"], asked["protocol"], None)
        for asked in (lab.question(flow) for flow in case.flows)
    ]
    objects = cluster_files(lab.topology, case.model)
    for node in lab.topology.nodes:
        target = tmp_path_factory.mktemp("bundle") / "b.tar"
        with namespaces.entered(lab.namespace(node.name)):
            live = answers(LiveWithCluster(node.name, objects), questions)
            write(LiveWithCluster(node.name, objects), target)
        for recorded, told in zip(answers(open_bundle(target), questions), live, strict=True):
            assert recorded == told


@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=UNHURRIED, phases=[Phase.generate])
@given(case=cases(small_cluster(), flows=4))
def test_generated_clusters_redacted(lab: Lab, tmp_path_factory: pytest.TempPathFactory, case: Case) -> None:
    lab.program(case.model)
    for flow in case.flows:
        lab.send(flow)
    directory = tmp_path_factory.mktemp("bundle") / "b"
    lab.evidence(directory)
    pair = Redacted(open_bundle(directory), KINDS)
    before, after = Asked(pair.source), Asked(pair.bundle)
    for flow in case.flows:
        asked = lab.question(flow)
        for via in {None, asked.get("via")}:
            expected = before.explain(asked["from"], asked["to"], asked["protocol"], via)
            new = pair.name(asked["from"]), pair.name(asked["to"])
            found = after.explain(*new, asked["protocol"], via and pair.name(via))
            assert without_sentences(found) == pair.mapped(expected), (found, expected)


def test_iptables_and_sets(tmp_path: Path) -> None:
    need_lab()
    (name,) = namespaces.create(["bundle"]).values()
    try:
        namespaces.nft(name, "table ip calico { chain c { type filter hook input priority 0; }; }")
        namespaces.run(name, ["ipset", "restore"], "create s hash:ip family inet\nadd s 10.0.0.7\n")
        namespaces.run(name, ["iptables-nft-restore"], RULES.format(target="ACCEPT"))
        namespaces.run(name, ["iptables-legacy-restore"], RULES.format(target="DROP"))
        namespaces.ip(name, ["link set lo up", "addr add 10.0.0.1/24 dev lo"])
        questions = [Question("10.0.0.7:40000", "10.0.0.1:80", None, "n1"), Question("10.0.0.1", "10.0.0.9:53", "udp")]
        with namespaces.entered(name):
            live = answers(LiveWithCluster("n1", {}), questions)
            write(LiveWithCluster("n1", {}), tmp_path / "b")
        assert answers(open_bundle(tmp_path / "b"), questions) == live
    finally:
        namespaces.delete([name])


class Changing(LiveSource):
    """A node whose rules change while its files are read."""

    def __init__(self, node: str, namespace: str) -> None:
        super().__init__(node)
        self._namespace = namespace

    def node(self, name: str) -> NodeEvidence:
        evidence = super().node(name)
        read = evidence.read

        def and_change(file: str) -> bytes:
            if file == "sysctl.txt":
                namespaces.nft(self._namespace, "table ip later")
            return read(file)

        evidence.read = and_change  # type: ignore[method-assign]
        return evidence


def test_rules_that_change_are_told(tmp_path: Path) -> None:
    need_lab()
    (name,) = namespaces.create(["bundle"]).values()
    question = Question("10.0.0.1", "10.0.0.9:53", "udp")
    try:
        namespaces.nft(name, "table ip calico { chain c { type filter hook input priority 0; }; }")
        namespaces.ip(name, ["link set lo up", "addr add 10.0.0.1/24 dev lo"])
        with namespaces.entered(name):
            write(LiveSource("n1"), tmp_path / "quiet")
            write(Changing("n1", name), tmp_path / "changing")
    finally:
        namespaces.delete([name])
    for bundle, told in (("quiet", False), ("changing", True)):
        found = EvidenceTracer(open_bundle(tmp_path / bundle)).trace(question).findings
        assert ("rules-changed" in {finding.code for finding in found}) is told
