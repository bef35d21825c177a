"""Which dataplane a node runs."""

from __future__ import annotations

import pytest

from calico_debug.errors import EvidenceError
from calico_debug.explain.dataplane import Dataplanes
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


def test_a_node_without_calico() -> None:
    """Asked again, the answer is the same, and nothing is read anew."""
    found, world = looked_at(Node(1, calico=False))
    for _ in range(2):
        with pytest.raises(EvidenceError, match=r"n1 has (neither|no) .*name a node that runs Calico"):
            found.admit(world.engine._walkers["n1"])
    assert world.source.node("n1").reads.count("nft-ruleset.json") == 1


def test_a_table_without_chains() -> None:
    found, world = looked_at(Node(1, calico=False, tables={"ip calico": {"filter-FORWARD@forward:0": []}}))
    walker = world.engine._walkers["n1"]
    found.admit(walker)
    (finding,) = found.findings(walker)
    assert (finding.code, finding.severity) == ("node-not-programmed", "error")
    assert "n1" in finding.message
