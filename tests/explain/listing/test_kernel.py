"""Routes, sets, interfaces and counters of nodes in nftables and iptables mode."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest

from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.listing.kernel import NO_CHAIN, rule_counters
from calico_debug.explain.listing.node import NodeListings
from calico_debug.explain.listing.rows import Listing
from tests.explain.guarded import guarded
from tests.explain.world import Node, World
from tests.recordings import DATA

A = ip_address
MODES = ("nft", "iptables")


def documents(listing: Listing) -> list[Any]:
    found = list(listing.rows)
    assert {(len(row.cells), len(row.more)) for row in found} <= {(len(listing.headings), len(listing.more))}
    return [row.document for row in found]


def recorded(mode: str, node: str = "node1") -> NodeListings:
    return NodeListings(open_bundle(str(DATA / f"v3.32.1-{mode}.tar.xz")), node)


@pytest.mark.parametrize("mode", MODES)
def test_routes_to_pods_and_to_the_other_nodes_block(mode: str) -> None:
    found = {one["prefix"]: one for one in documents(recorded(mode).routes())}
    assert found["10.244.1.30/32"]["pod"] == "client/client-5f8b"
    assert found["10.244.1.30/32"]["flags"] == ["local", "workload", "in-pool"]
    assert (found["10.244.2.0/24"]["nextHop"], found["10.244.2.0/24"]["flags"]) == (
        "172.30.0.12",
        ["remote", "in-pool"],
    )
    assert not {"0.0.0.0/0", "172.30.0.0/24"} & set(found)
    covering = documents(recorded(mode).routes(frozenset({A("10.244.2.7")})))
    assert [one["prefix"] for one in covering] == ["10.244.2.0/24"]


def test_tunnels_blackholes_and_several_next_hops() -> None:
    more = [
        {"type": "blackhole", "dst": "10.244.1.0/26"},
        {"dst": "10.244.9.0/26", "gateway": "10.244.9.1", "dev": "vxlan.calico", "flags": ["onlink"]},
        {
            "dst": "10.244.8.0/26",
            "nexthops": [{"gateway": f"172.30.0.{n}", "dev": "eth0", "weight": 1, "flags": []} for n in (8, 9)],
        },
    ]
    world = World(Node(routes=more))
    found = {one["prefix"]: one for one in documents(NodeListings(world.source, "n1").routes())}
    assert found["10.244.1.0/26"]["flags"] == ["blackhole", "in-pool"]
    assert found["10.244.9.0/26"]["flags"] == ["remote", "tunneled", "in-pool"]
    assert [hop["nextHop"] for hop in found["10.244.8.0/26"]["hops"]] == ["172.30.0.8", "172.30.0.9"]


@pytest.mark.parametrize("mode", MODES)
def test_sets_have_members_names_and_users(mode: str) -> None:
    found = documents(recorded(mode).ipsets())
    by_member = {one["member"]: one for one in found if "ip-pools" not in one["set"]}
    assert by_member["10.244.1.31"]["pod"] == "stars/frontend-77cd"
    assert by_member["10.244.2.12 tcp 2379"]["pod"] == "yaobank/database-0"
    assert all(one["usedBy"] for one in found)
    assert len({json.dumps(one) for one in found}) == len(found)
    assert [one["member"] for one in found if "dscp-src-net" in one["set"]] == [None]
    holding = documents(recorded(mode).ipsets(frozenset({A("198.51.100.7")})))
    assert {one["member"] for one in holding} == {"198.51.100.0/24", "203.0.113.7"}


@pytest.mark.parametrize("mode", MODES)
def test_interfaces_with_their_chains(mode: str) -> None:
    found = {one["interface"]: one for one in documents(recorded(mode, "node2").ifstate())}
    assert found["eth0"]["flags"] == ["host", "up"]
    assert {"ipv4", "ipv4 filter host endpoint, forwarded traffic", "ipv4 mangle host endpoint"} <= set(
        found["eth0"]["policies"]["ingress"]
    )
    pods = [one for one in found.values() if "pod" in one]
    assert len(pods) == 6
    assert all(one["policies"]["egress"]["ipv4"].endswith(f"cali-fw-{one['interface']}") for one in pods)
    assert set(documents(recorded(mode, "node2").ifstate(frozenset({"eth0"})))[0]) == set(found["eth0"])


def test_a_workload_without_chains_and_chains_without_an_interface() -> None:
    node = Node(pods=(1, 2))
    evidence = node.evidence()
    links = [link for link in json.loads(evidence.read("ip-link.json")) if link["ifname"] != "cali2"]
    links.append({"ifindex": 9, "ifname": "cali9", "flags": []})
    changed = Node(pods=(1, 2), files={"ip-link.json": json.dumps(links)})
    found = {one["interface"]: one for one in documents(NodeListings(World(changed).source, "n1").ifstate())}
    assert found["cali9"]["policies"] == {way: {"any": NO_CHAIN} for way in ("ingress", "egress")}
    assert found["cali9"]["flags"] == ["workload", "down"]
    assert found["cali2"]["flags"] == ["gone"]
    assert found["cali2"]["policies"]["egress"] == {"ipv4": "filter-cali-fw-cali2"}


def test_another_prefix_of_interfaces() -> None:
    node = Node(files={"felix-env.txt": "FELIX_INTERFACEPREFIX=tap,eth\n"})
    names = {one["interface"] for one in documents(NodeListings(World(node).source, "n1").ifstate())}
    assert names == {"eth0", "cali1", "cali2"}


def test_counters_without_traffic_are_shown_on_request() -> None:
    listings = NodeListings(World(guarded()).source, "n1")
    views = list(listings.policies(frozenset({"cali2"})))
    some = documents(rule_counters(views))
    assert {one["direction"] for one in some} == {"egress", "ingress"}
    assert all(one["packets"] for one in some)
    assert len(documents(rule_counters(views, zeros=True))) == len(some)
    ends = [one for one in some if one["counter"] == "denied: end of tier"]
    assert [one["tier"] for one in ends] == ["security", "default"]
    assert all(one["pod"] == "shop/pod12" for one in some)
