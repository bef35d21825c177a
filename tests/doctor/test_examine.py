"""Everything at once: recordings, ranking, and evidence that is not there."""

from __future__ import annotations

import pytest

from calico_debug.doctor.examine import CLUSTER_CHECKS, NODE_CHECKS, examine
from calico_debug.doctor.model import SEVERITIES
from tests.doctor.patients import WORKLOAD, bpf, bpf_report, codes, link, links, report, why
from tests.evidence.memory import MemoryNode, MemorySource
from tests.explain.rules import ruleset
from tests.explain.world import Node
from tests.recordings import Recording, recordings

ALL = [each for ending in ("-nft", "-iptables", "-bpf") for each in recordings(ending)]


@pytest.mark.parametrize("recording", ALL, ids=lambda one: one.name)
def test_recorded_nodes_are_healthy(recording: Recording) -> None:
    """No error; what is said is so: one service has no pods, and with a VXLAN pool pods kept an MTU of 1500. In one
    recording a policy freezes a tier.
    """
    found = examine(recording.source, recording.source.nodes())
    assert found.nodes == ("node1", "node2")
    tunnelled = b'"vxlanMode": "Always"' in (recording.read("cluster/ippools.crd.projectcalico.org.json") or b"")
    expected = [("warning", "service-without-endpoints")]
    frozen = [("info", "rule-shadowed")] if "stale" in recording.name else []
    assert codes(found) == [*([("warning", "mtu-pod")] if tunnelled else []), *expected, *frozen]
    assert [one.seen for one in found.findings if not one.node] == ["service yaobank/ghost: it has no backends"]
    assert found.unseen == ()


def test_made_up_nodes_are_healthy() -> None:
    assert codes(report(Node(1), Node(2))) == []
    assert codes(bpf_report(bpf())) == []


def test_the_worst_comes_first() -> None:
    made = bpf(flags=WORKLOAD)
    made.files["nft-ruleset.json"] = ruleset({"inet own": {"c@forward:0": ["drop"]}})
    made.files["ip-link.json"] = links(link(4, "nodelocaldns"))
    found = bpf_report(made)
    ranks = [SEVERITIES.index(one.severity) for one in found.findings]
    assert ranks == sorted(ranks)
    assert {one.severity for one in found.findings} == set(SEVERITIES)


def test_a_node_without_any_evidence() -> None:
    """Nothing is found, and each check that needs something says what."""
    source = MemorySource({}, {"n1": MemoryNode({})})
    found = examine(source, ["n1"])
    assert found.findings == ()
    names = {one.check for one in found.unseen}
    eager = {check.name for check in (*NODE_CHECKS, *CLUSTER_CHECKS)} - {"services", "rules", "selection", "status"}
    assert eager <= names
    assert any("nft-ruleset.json" in text for text in why(found, "dataplane"))


def test_a_node_that_is_not_there() -> None:
    class Empty(MemorySource):
        def node(self, name: str) -> MemoryNode:
            from calico_debug.errors import MissingEvidence

            raise MissingEvidence(f"no node {name}")

    found = examine(Empty({}), ["n9"])
    assert ("evidence", "n9", "no node n9") in [(one.check, one.node, one.why) for one in found.unseen]


def test_names_of_checks_differ() -> None:
    names = [check.name for check in NODE_CHECKS]
    assert len(set(names)) == len(names)
