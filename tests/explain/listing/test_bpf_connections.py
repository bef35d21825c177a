"""Connections of recorded eBPF nodes: every one, with its service and its approvals."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from calico_debug.decode.bpf_layout_types import Role
from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.listing.bpf_connections import bpf_connections
from calico_debug.explain.listing.names import Names
from calico_debug.state.bpf import BpfState
from calico_debug.state.cluster import load_cluster
from calico_debug.state.connection_filter import ANY_CONNECTION, STATES, ConnectionFilter
from tests.recordings import Recording, recordings

RECORDINGS = recordings("-bpf")


def opened(recording: Recording, node: str) -> tuple[BpfState, Names]:
    source = open_bundle(str(recording.path))
    return BpfState(source.node(node)), Names(load_cluster(source))


@pytest.mark.parametrize("node", ["node1", "node2"])
@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
def test_every_connection_once_and_services_by_name(recording: Recording, node: str) -> None:
    state, names = opened(recording, node)
    rows = list(bpf_connections(state, names, ANY_CONNECTION).rows)
    documents = [row.document for row in rows]
    entries = [entry for family in (4, 6) for entry in state.entries(Role.CONNTRACK, family)]
    assert len(documents) == sum(entry.type != 1 for entry in entries)
    assert min(document["idleSeconds"] for document in documents) == 0
    services = [document for document in documents if "service" in document]
    assert services
    for document in services:
        assert document["type"] == "nat-reverse"
        assert "service" in document["service"], document
    assert {document["state"] for document in documents if "state" in document} <= set(STATES)
    listing = bpf_connections(state, names, ANY_CONNECTION)
    assert {(len(row.cells), len(row.more)) for row in rows} == {(len(listing.headings), len(listing.more))}


def test_idle_does_not_depend_on_the_filter() -> None:
    state, names = opened(RECORDINGS[0], "node1")
    client = frozenset({ip_address("10.244.1.30")})
    everything = {
        str(row.document["client"]): row.document for row in bpf_connections(state, names, ANY_CONNECTION).rows
    }
    some = [row.document for row in bpf_connections(state, names, ConnectionFilter(clients=client)).rows]
    assert some
    for document in some:
        assert document == everything[str(document["client"])]


def test_what_policy_denied_was_approved_by_nobody_there() -> None:
    """The client may not reach the management UI: nothing it opened to that is in the map."""
    state, names = opened(RECORDINGS[0], "node1")
    wanted = ConnectionFilter(frozenset({ip_address("10.244.1.30")}), frozenset({ip_address("10.244.2.32")}))
    assert list(bpf_connections(state, names, wanted).rows) == []


def test_a_clock_gives_the_time_since_the_last_packet() -> None:
    state, names = opened(RECORDINGS[0], "node1")
    newest = max(entry.last_seen for entry in state.entries(Role.CONNTRACK, 4))
    rows = bpf_connections(state, names, ANY_CONNECTION, newest + 5 * 10**9).rows
    assert min(row.document["idleSeconds"] for row in rows) == 5
