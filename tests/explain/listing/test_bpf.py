"""Rows of recorded eBPF nodes: names, directions, and nothing lost."""

from __future__ import annotations

from collections.abc import Iterator

from calico_debug.decode.bpf_layout_types import Role
from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.listing.bpf import BpfListings
from calico_debug.state.bpf import BpfState
from calico_debug.state.cluster import load_cluster
from tests.evidence.memory import recorded_bundles


def recorded() -> Iterator[tuple[BpfState, BpfListings]]:
    for bundle in recorded_bundles():
        source = open_bundle(bundle)
        for name in source.nodes():
            if "bpf/map-show.json" in source.node(name).files():
                state = BpfState(source.node(name))
                yield state, BpfListings(state, load_cluster(source))


def test_pods_are_named_and_directions_are_theirs() -> None:
    for state, listings in recorded():
        pods = {
            row.document["interface"]: row.document["pod"] for row in listings.ifstate().rows if "pod" in row.document
        }
        assert pods
        assert all(interface.startswith("cali") for interface in pods)
        for row in listings.ifstate().rows:
            if row.document["interface"] in pods:
                for way, letter in (("ingress", "I"), ("egress", "E")):
                    assert row.document["policies"][way]
                    for family, words in row.document["policies"][way].items():
                        assert f"(p{family[-1]}{letter}_" in words
        for row in listings.attachments().rows:
            assert row.document["calico"]
            assert row.document.get("pod") == pods.get(row.document["place"])
        assert all(len(row.cells) == len(listings.counters().headings) for row in listings.counters().rows)
        assert state.findings == ()


def test_services_routes_and_sets_are_complete() -> None:
    for state, listings in recorded():
        for role, listing in (
            (Role.NAT_FRONTENDS, listings.nat()),
            (Role.ROUTES, listings.routes()),
            (Role.IP_SETS, listings.ipsets()),
        ):
            rows = list(listing.rows)
            assert len(rows) == sum(1 for family in (4, 6) for _ in state.entries(role, family))
            assert all(len(row.cells) == len(listing.headings) for row in rows)
        names = [row.document.get("service") for row in listings.nat().rows]
        assert all(names)
        assert "refuses" in str(
            [row.cells for row in listings.nat().rows if row.document["service"] == "yaobank/ghost"]
        )
