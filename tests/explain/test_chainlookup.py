"""Chains to policies and back, over the project's recording."""

from __future__ import annotations

from pathlib import Path

import pytest

from calico_debug.errors import UsageError
from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.chainlookup import ChainDirectory
from calico_debug.state.cluster import load_cluster
from calico_debug.state.node import NodeState

RECORDING = Path(__file__).resolve().parents[1] / "data" / "v3.32.1-nft.tar.xz"


@pytest.fixture(scope="module")
def directory() -> ChainDirectory:
    source = open_bundle(RECORDING)
    return ChainDirectory(load_cluster(source), {name: NodeState(source.node(name)) for name in source.nodes()})


@pytest.mark.parametrize(
    "name", ["cali-po-np/client/platform.client-egress", "filter-cali-po-np/client/platform.client-egress"]
)
def test_a_policy_chain_names_its_policy(directory: ChainDirectory, name: str) -> None:
    (answer,) = directory.look_up(name)
    assert str(answer.policy) == "NetworkPolicy client/platform.client-egress"
    assert answer.direction == "egress"
    assert [(place.node, place.rules) for place in answer.programmed] == [("node1", 1)]


def test_a_policy_names_its_chains_on_every_node(directory: ChainDirectory) -> None:
    (answer,) = directory.look_up("security.quarantine")
    assert {(place.node, place.chain) for place in answer.programmed} == {
        (node, f"filter-cali-{side}-gnp/security.quarantine") for node in ("node1", "node2") for side in ("pi", "po")
    }


def test_a_hashed_name_is_resolved_through_the_objects(directory: ChainDirectory) -> None:
    (asked,) = directory.look_up("client/platform.client-egress")
    hashed = [name for name in asked.names if name.startswith("cali-po-_")]
    assert hashed
    for name in hashed:
        (answer,) = directory.look_up(name)
        assert str(answer.policy) == "NetworkPolicy client/platform.client-egress"
        assert answer.programmed == ()


def test_a_hash_that_no_object_has_stays_a_name(directory: ChainDirectory) -> None:
    (answer,) = directory.look_up("cali-pi-_00000000000000000000")
    assert (answer.policy, answer.subject, answer.kind) == (None, "_00000000000000000000", "policy")


def test_an_endpoint_chain_names_its_pod(directory: ChainDirectory) -> None:
    (answer,) = directory.look_up("cali-fw-cali930d9fe4cd7")
    assert (answer.pod, answer.direction) == (("client", "client-5f8b"), "egress")


def test_what_is_neither_is_a_usage_error(directory: ChainDirectory) -> None:
    with pytest.raises(UsageError, match="neither a chain of Calico"):
        directory.look_up("nobody")
