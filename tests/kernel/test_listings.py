"""Listings of live nodes: what they say of policy, counters and connections, against the kernel and real packets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from calico_debug.agent.evidence import LiveSource
from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.listing.node import NodeListings
from calico_debug.state.connection_filter import connection_filter
from tests.lab import namespaces
from tests.lab.conftest import need_lab
from tests.lab.lab import Lab
from tests.lab.model import Entity, Model, Policy, Rule, Selector, Tier
from tests.lab.topology import small_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from calico_debug.explain.listing.policy_view import EndpointView

pytestmark = pytest.mark.kernel

CLUSTER = small_cluster()
WEB = Selector("app", ("web",))
TIERS = (Tier("default", 1_000_000), Tier("security", 100))
MODEL = Model(
    TIERS,
    (
        Policy(
            "GlobalNetworkPolicy",
            "guard",
            "security",
            selector=WEB,
            ingress=(Rule("Deny", "udp"), Rule("Pass")),
        ),
        Policy(
            "NetworkPolicy",
            "web",
            "default",
            "blue",
            selector=WEB,
            ingress=(Rule("Allow", "tcp", destination=Entity(ports=(80,))),),
        ),
    ),
)
CLIENT, SERVER = "red/cli1", "blue/web2"
FLOWS = (("tcp", 80, "allowed"), ("tcp", 8080, "denied"), ("udp", 53, "denied"))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    need_lab()
    with Lab(CLUSTER) as built:
        built.program(MODEL)
        yield built


def live(lab: Lab, node: str) -> list[EndpointView]:
    with namespaces.entered(lab.namespace(node)):
        return list(NodeListings(LiveSource(node), node).policies())


def server_view(lab: Lab) -> EndpointView:
    interface = next(pod.interface for pod in CLUSTER.pods if pod.place == SERVER)
    return next(
        view
        for view in live(lab, "node2")
        if (view.interface, view.direction, view.family) == (interface, "ingress", 4)
    )


def test_the_kernels_rules_are_told_like_the_recorded_ones(lab: Lab, tmp_path: Path) -> None:
    lab.evidence(tmp_path)
    for node in ("node1", "node2"):
        recorded = {
            (view.place, view.family): view for view in NodeListings(open_bundle(str(tmp_path)), node).policies()
        }
        found = {(view.place, view.family): view for view in live(lab, node)}
        assert found.keys() == recorded.keys()
        assert found
        for key, view in found.items():
            other = recorded[key]
            assert [(tier.name, tier.end) for tier in view.tiers] == [(tier.name, tier.end) for tier in other.tiers]
            assert view.counts == other.counts
            for one, same in zip(view.policies, other.policies, strict=True):
                assert one.ref == same.ref
                # Live there are no objects, so there are no words of theirs.
                assert [(r.action, r.hits, r.handles, r.programmed, r.ip_sets) for r in one.rules] == [
                    (r.action, r.hits, r.handles, r.programmed, r.ip_sets) for r in same.rules
                ]


@pytest.mark.parametrize(("protocol", "port", "expected"), FLOWS)
def test_packets_raise_the_hits_of_the_rule_that_took_them(lab: Lab, protocol: str, port: int, expected: str) -> None:
    before = server_view(lab)
    assert lab.send(lab.flow(CLIENT, SERVER, protocol, port)).verdict == expected
    after = server_view(lab)
    raised = [
        (policy.ref.name, new.action)
        for policy, old in zip(after.policies, before.policies, strict=True)
        for new, was in zip(policy.rules, old.rules, strict=True)
        if (new.hits or 0) > (was.hits or 0)
    ]
    ended = [
        tier.name
        for tier, old in zip(after.tiers, before.tiers, strict=True)
        if tier.end and old.end and (tier.end.hits or 0) > (old.end.hits or 0)
    ]
    assert (raised, ended) == {
        ("tcp", 80): ([("guard", "Pass"), ("web", "Allow")], []),
        ("tcp", 8080): ([("guard", "Pass")], ["default"]),
        ("udp", 53): ([("guard", "Deny")], []),
    }[protocol, port]
    counted = {
        one.what
        for one, old in zip(after.counts, before.counts, strict=True)
        if (one.packets or 0) > (old.packets or 0)
    }
    assert ("denied: end of tier" in counted) == bool(ended)
    assert ("accepted by NetworkPolicy blue/web" in counted) == (expected == "allowed")


def documents(lab: Lab, node: str, **wanted: Any) -> list[dict[str, Any]]:
    with namespaces.entered(lab.namespace(node)):
        listings = NodeListings(LiveSource(node), node)
        rows = listings.conntrack(connection_filter(listings.resolver, **wanted)).rows
        return json.loads(json.dumps([row.document for row in rows]))  # type: ignore[no-any-return]


def test_connections_are_listed_where_policy_let_them_through(lab: Lab) -> None:
    lab.program(MODEL)
    client, server = CLUSTER.address(CLIENT), CLUSTER.address(SERVER)
    for protocol, port, expected in FLOWS:
        assert lab.send(lab.flow(CLIENT, SERVER, protocol, port)).verdict == expected
        ends = {"source": client, "destination": f"{server}:{port}"}
        # The client's node let all of them out; the server's forgets what it denies.
        (there,) = documents(lab, "node1", **ends)
        assert there["approvedBy"] == ["client side"]
        here = documents(lab, "node2", **ends)
        assert [one["approvedBy"] for one in here] == ([["server side"]] if expected == "allowed" else [])
        assert bool(documents(lab, "node1", state="unreplied", **ends)) == (expected == "denied")


def test_a_workload_without_a_chain_is_told(lab: Lab) -> None:
    with namespaces.entered(lab.namespace("node1")):
        listings = NodeListings(LiveSource("node1"), "node1")
        told = {row.document["interface"]: row.document["policies"] for row in listings.ifstate().rows}
    own = {pod.interface for pod in CLUSTER.pods if pod.node == "node1"}
    assert set(told) == own
    namespaces.ip(lab.namespace("node1"), ["link add caliunknown type veth peer name unknown0"])
    try:
        with namespaces.entered(lab.namespace("node1")):
            listings = NodeListings(LiveSource("node1"), "node1")
            told = {row.document["interface"]: row.document["policies"] for row in listings.ifstate().rows}
    finally:
        namespaces.ip(lab.namespace("node1"), ["link del caliunknown"])
    assert told["caliunknown"]["egress"] == {"any": "none: dropped as an unknown interface"}
