"""Whole explanations: what evidence lacks, what conntrack knows, IPv6, and what is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from calico_debug.errors import EvidenceError
from tests.explain.guarded import INGRESS, POLICIES, guarded
from tests.explain.world import (
    Node,
    Tier,
    World,
    decided,
    endpoint,
    objects,
    pod_address,
    policy,
    told,
)

if TYPE_CHECKING:
    pass


SLICES = "endpointslices.discovery.k8s.io.json"
ALIVE = (
    "tcp      6 86000 ESTABLISHED src=10.244.1.1 dst=10.244.1.2 sport=40000 dport=8080 "
    "src=10.244.1.2 dst=10.244.1.1 sport=8080 dport=40000 [ASSURED] mark=0 use=1\n"
)


def test_a_connection_that_outlived_a_policy() -> None:
    node = guarded(1, 2)
    node.conntrack = ALIVE
    answer = World(node).ask("11:40000", "12:8080")
    assert decided(answer) == ("allowed", "established", "n1")
    assert answer.new_connection is not None
    assert answer.new_connection.verdict == "denied"
    assert answer.new_connection.decision is not None
    assert answer.new_connection.decision.reason == "end-of-tier"
    assert "outlived-policy" in {finding.code for finding in answer.findings}
    assert World(node).ask("11:40001", "12:8080").verdict == "denied"


def test_the_destinations_node_is_missing() -> None:
    nodes = (Node(1), Node(2))
    answer = World(*nodes, absent=["n2"]).ask("11", "21:80")
    assert decided(answer)[:2] == ("undetermined", "missing-evidence")
    assert answer.decision is not None
    assert answer.decision.detail == "the packet goes on to node n2 at 172.30.0.2, of which there is no evidence"
    shut = {**endpoint("cali-fw-cali1", [Tier("default", ["gnp/out"])]), **policy("gnp", "out", "egress")}
    answer = World(Node(1, chains=shut), Node(2), absent=["n2"]).ask("11", "21:80")
    assert decided(answer) == ("denied", "end-of-tier", "n1"), "what n2 would do does not matter"


def test_the_sources_node_is_missing() -> None:
    nodes = (Node(1), guarded(2, 1))
    world = World(*nodes, absent=["n1"])
    answer = world.ask("11", "21:23")
    assert decided(answer) == ("denied", "rule", "n2")
    assert [f.code for f in answer.findings if f.severity == "warning"] == ["missing-evidence"]
    answer = world.ask("11", "21:80")
    assert decided(answer) == ("undetermined", "missing-evidence", "n1")
    assert answer.decision is not None
    assert answer.decision.detail.endswith("it needs that of node n1; n2 would let it in")
    assert answer.decision.dataplane == "", "of a node that is not in the evidence nobody knows it"
    assert "n2 ingress default allowed: " in told(answer)
    answer = world.ask("11", "8.8.8.8:80")
    assert decided(answer) == ("undetermined", "missing-evidence", "n1")
    assert not answer.steps


def test_the_nodes_in_between_are_said_to_be_missing() -> None:
    world = World(Node(1), Node(2), absent=["n1"])
    answer = world.ask("8.8.8.8", "21:80", via="n1")
    assert decided(answer)[:2] == ("undetermined", "missing-evidence")
    assert answer.decision is not None
    assert "arrives through n1, and there is no evidence of that node" in answer.decision.detail


def test_without_cluster_objects() -> None:
    """Addresses alone: routes tell where pods are, nothing tells who is outside."""
    world = World(Node(1), Node(2), cluster={})
    assert decided(world.ask("10.244.1.1", "10.244.2.1:80")) == ("allowed", "profile", "n2")
    answer = world.ask("10.244.1.1", "8.8.8.8:53")
    assert decided(answer)[:2] == ("undetermined", "missing-evidence")
    assert answer.decision is not None
    assert "no evidence says what is there" in answer.decision.detail
    assert world.ask("10.244.1.1", "10.244.1.2:80").source.pod is None


@pytest.mark.parametrize("file", ["ip-route-all.json", "nft-ruleset.json"])
def test_without_a_file(file: str) -> None:
    world = World(Node(1, files={file: None}))
    try:
        answer = world.ask("10.244.1.1", "10.244.1.2:80")
        told_so = " ".join([answer.decision.detail if answer.decision else "", *(f.message for f in answer.findings)])
    except EvidenceError as error:
        told_so = str(error)
    assert file in told_so


@pytest.mark.parametrize("file", ["ip-link.json", "ip-addr.json"])
def test_either_list_of_interfaces_is_enough(file: str) -> None:
    assert decided(World(Node(1, files={file: None})).ask("11", "12:80"))[0] == "allowed"


def test_without_sysctl() -> None:
    answer = World(Node(1, files={"sysctl.txt": None})).ask("11", "12:80")
    assert any("sysctl.txt" in finding.message for finding in answer.findings) or answer.verdict == "undetermined"


def test_a_chain_is_missing() -> None:
    chains = {"filter-cali-FORWARD": ["jump:filter-cali-nowhere"]}
    answer = World(Node(1, chains=chains)).ask("11", "12:80")
    assert decided(answer)[:2] == ("undetermined", "missing-evidence")
    assert answer.decision is not None
    assert "filter-cali-nowhere" in answer.decision.detail


def test_a_node_without_calico() -> None:
    with pytest.raises(EvidenceError, match="n1"):
        World(Node(1, calico=False)).ask("11", "12:80")


def test_a_node_that_felix_has_not_programmed() -> None:
    node = Node(1, calico=False, tables={"ip calico": {"filter-FORWARD@forward:0": []}})
    answer = World(node).ask("11", "12:80")
    assert "node-not-programmed" in {finding.code for finding in answer.findings}


def test_ipv6() -> None:
    chains = {**endpoint("cali-tw-cali2", INGRESS), **POLICIES}
    world = World(Node(1, family=6, chains=chains), Node(2, family=6))
    assert decided(world.ask("11", "12:80")) == ("allowed", "rule", "n1")
    assert decided(world.ask("11", "12:23")) == ("denied", "rule", "n1")
    assert decided(world.ask("11", "21:80")) == ("allowed", "profile", "n2")
    assert world.ask("11", "21:80").destination.ip == pod_address(2, 1, 6)
    assert decided(world.ask("21", "12", "icmpv6")) == ("denied", "end-of-tier", "n1")


def test_a_flow_reads_only_what_it_needs() -> None:
    world = World(Node(1), Node(2))
    world.ask("10.244.1.1", "10.244.1.2:80")
    evidence = world.source.node("n2")
    assert "nft-ruleset.json" not in evidence.reads
    again = len(world.source.node("n1").reads)
    world.ask("10.244.1.1", "10.244.1.2:80")
    assert len(world.source.node("n1").reads) == again


def test_lists_that_cannot_be_read_are_findings() -> None:
    node = guarded(1, 2)
    world = World(node, cluster={**objects([node]), SLICES: "{", "services.json": '{"items": [{"spec": {}}]}'})
    answer = world.ask("11:40001", "12:8080")
    assert answer.verdict == "denied"
    found = {(f.severity, f.message.split(" (")[0]) for f in answer.findings if "cluster/" in f.message}
    assert found >= {
        ("warning", f"cluster/{SLICES} of memory is not complete JSON"),
        ("info", "cluster/services.json of memory: object 0"),
    }
