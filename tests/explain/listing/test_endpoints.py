"""Endpoints' chains, found from the hooks."""

from __future__ import annotations

from pathlib import Path

import pytest

from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.listing.endpoints import endpoint_chains, pods_by_interface
from calico_debug.policy.chains import ChainKind
from calico_debug.state.cluster import load_cluster
from calico_debug.state.node import NodeState
from tests.explain.world import Node, World
from tests.recordings import DATA


@pytest.mark.parametrize(("mode", "prefix"), [("nft", "filter-"), ("iptables", "")])
def test_every_recorded_endpoint_in_both_directions(mode: str, prefix: str) -> None:
    source = open_bundle(str(DATA / f"v3.32.1-{mode}.tar.xz"))
    for node in source.nodes():
        state = NodeState(source.node(node))
        found = list(endpoint_chains(state.ruleset))
        workloads = {name for name in state.interfaces if name.startswith("cali")}
        assert {(one.role.subject, one.role.direction) for one in found if one.role.kind is ChainKind.WORKLOAD} == {
            (name, direction) for name in workloads for direction in ("egress", "ingress")
        }
        assert len({(one.family, one.table, one.name) for one in found}) == len(found)
        hosts = [one for one in found if one.role.kind is not ChainKind.WORKLOAD]
        # Node 2 has a host endpoint: usual and forwarded both ways, before and behind service translation.
        assert len(hosts) == (6 if node == "node2" else 0)
        assert {one.layer for one in hosts} == ({"filter", "mangle"} if hosts else set())
        assert all(one.name.startswith(prefix) for one in found if one.layer == "filter")
        assert set(pods_by_interface(state, load_cluster(source))) == workloads


def test_a_loop_of_chains_ends_and_strangers_are_left_alone(tmp_path: Path) -> None:
    node = Node(
        chains={"filter-cali-FORWARD": ["jump:filter-cali-OTHER"], "filter-cali-OTHER": ["jump:filter-cali-FORWARD"]},
        tables={"ip mine": {"c@forward:0": ["jump:d"], "d": ["jump:cali-tw-cali9"], "cali-tw-cali9": ["drop"]}},
    )
    state = NodeState(World(node).source.node("n1"))
    # From the host the pods' own chains are still reached; nothing of the other table is taken for Calico's.
    assert {(one.table, one.role.direction) for one in endpoint_chains(state.ruleset)} == {("calico", "egress")}
