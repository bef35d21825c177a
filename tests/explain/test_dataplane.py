"""Which dataplane a node runs."""

from __future__ import annotations

import pytest

from calico_debug.errors import EvidenceError
from calico_debug.explain.dataplane import Dataplanes
from calico_debug.walk.context import Undecided
from tests.explain.world import Node, World


def looked_at(node: Node) -> tuple[Dataplanes, World]:
    world = World(node)
    return Dataplanes(world.source), world


def test_nftables_is_admitted_and_looked_at_once() -> None:
    found, world = looked_at(Node(1))
    walker = world.engine._walkers["n1"]
    for _ in range(2):
        found.admit(walker)
        assert found.findings(walker) == ()
    assert world.source.node("n1").reads.count("nft-ruleset.json") == 1


def test_ebpf_is_said_to_be_ebpf() -> None:
    found, world = looked_at(Node(1, calico=False, files={"bpf/prog-show.json": "[]"}))
    for _ in range(2):
        with pytest.raises(Undecided, match=r"n1 runs Calico's eBPF dataplane, which this version does not walk"):
            found.admit(world.engine._walkers["n1"])


def test_a_node_without_calico() -> None:
    found, world = looked_at(Node(1, calico=False))
    with pytest.raises(EvidenceError, match=r"n1 has (neither an|no) nftables table named calico.*: name a node"):
        found.admit(world.engine._walkers["n1"])


def test_a_table_without_chains() -> None:
    found, world = looked_at(Node(1, calico=False, tables={"ip calico": {"filter-FORWARD@forward:0": []}}))
    walker = world.engine._walkers["n1"]
    found.admit(walker)
    (finding,) = found.findings(walker)
    assert (finding.code, finding.severity) == ("node-not-programmed", "error")
    assert "n1" in finding.message
