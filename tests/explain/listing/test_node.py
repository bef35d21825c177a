"""Which dataplane a node's listings are of, and which interfaces an endpoint means."""

from __future__ import annotations

import json

import pytest

from calico_debug.errors import EvidenceError, UsageError
from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.listing.node import NodeListings, node_of
from calico_debug.state.connection_filter import ANY_CONNECTION, ConnectionFilter
from calico_debug.state.dataplane import EBPF, IPTABLES, NFTABLES
from tests.explain.services import service_objects
from tests.explain.world import Node, World, objects
from tests.recordings import DATA


@pytest.mark.parametrize(("mode", "dataplane"), [("nft", NFTABLES), ("iptables", IPTABLES), ("bpf", EBPF)])
def test_an_endpoint_by_every_name_it_has(mode: str, dataplane: str) -> None:
    source = open_bundle(str(DATA / f"v3.32.1-{mode}.tar.xz"))
    listings = NodeListings(source, "node1")
    assert listings.dataplane == dataplane
    own = frozenset({"cali930d9fe4cd7"})
    for text in ("cali930d9fe4cd7", "client/client-5f8b", "pod/client/client-5f8b", "10.244.1.30"):
        assert listings.interfaces_of(text) == own
        assert node_of(source, text) == "node1"
    assert listings.interfaces_of("client-5f8b", "client") == own
    assert "eth0" in listings.interfaces_of("node/node1")
    assert not own & listings.interfaces_of("node/node1")
    for text, message in (
        ("stars/backend-6c9d", "is on node node2: ask with --node node2"),
        ("svc/stars/frontend", "has no policy of its own"),
        ("external", "has no policy of its own"),
        ("client/nobody", "no pod is named"),
    ):
        with pytest.raises(UsageError, match=message):
            listings.interfaces_of(text)
    with pytest.raises(EvidenceError, match="no interface of node1 leads to"):
        listings.interfaces_of("192.0.2.1")


def test_an_interface_that_several_nodes_have_tells_no_node() -> None:
    source = open_bundle(str(DATA / "v3.32.1-nft.tar.xz"))
    with pytest.raises(UsageError, match="no pod is named 'eth0'"):
        node_of(source, "eth0")


def test_pods_in_their_hosts_network_have_no_policy_of_their_own() -> None:
    node = Node()
    pod = {
        "metadata": {"namespace": "shop", "name": "agent"},
        "spec": {"nodeName": "n1", "hostNetwork": True},
        "status": {"phase": "Running", "podIPs": [{"ip": node.address}]},
    }
    cluster = objects((node,))
    cluster["pods.json"] = json.dumps({"items": [pod]})
    with pytest.raises(UsageError, match="is in its host's network"):
        NodeListings(World(node, cluster=cluster).source, "n1").interfaces_of("shop/agent")


def test_a_node_without_calico_is_refused() -> None:
    listings = NodeListings(World(Node(calico=False)).source, "n1")
    with pytest.raises(EvidenceError, match="n1 of memory, nodes/n1 has no rules and no eBPF programs of Calico"):
        listings.conntrack(ANY_CONNECTION)


def test_attachments_are_of_ebpf_nodes_alone() -> None:
    listings = NodeListings(World(Node(), cluster=objects((Node(),), **service_objects("10.244.1.1"))).source, "n1")
    with pytest.raises(UsageError, match="n1 runs nftables, and attachments are of the eBPF dataplane alone"):
        listings.attachments()


@pytest.mark.parametrize(("mode", "state"), [("nft", "reset"), ("bpf", "time-wait"), ("bpf", "assured")])
def test_a_state_that_the_dataplane_does_not_tell_is_refused(mode: str, state: str) -> None:
    listings = NodeListings(open_bundle(str(DATA / f"v3.32.1-{mode}.tar.xz")), "node1")
    with pytest.raises(UsageError, match=f"whose connections are never {state}: give one of syn-sent"):
        listings.conntrack(ConnectionFilter(state=state))


def test_pods_come_first_egress_before_ingress() -> None:
    views = list(NodeListings(open_bundle(str(DATA / "v3.32.1-nft.tar.xz")), "node2").policies())
    kinds = [view.kind for view in views]
    assert kinds == sorted(kinds, reverse=True)
    pods = [(view.pod, view.direction) for view in views if view.kind == "pod"]
    assert pods == sorted(pods)


def test_undecodable_connections_are_told() -> None:
    node = Node(files={"conntrack.txt": "tcp 6 what\n"})
    listings = NodeListings(World(node).source, "n1")
    assert list(listings.conntrack(ANY_CONNECTION).rows) == []
    assert ["evidence" for finding in listings.findings if "cannot be decoded" in finding.message] == ["evidence"]
