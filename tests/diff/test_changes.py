"""Which objects changed, and states in between."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from calico_debug.diff.changes import applied, changes
from calico_debug.diff.model import Change, ObjectKey
from calico_debug.model.cluster import Backend, Cluster, HostEndpoint, NetworkSet, Service, ServicePort, Tier
from tests.intent.clusters import ACCOUNTS, NAMESPACES, NODES, PODS, TIERS, cluster, pod, policy

DENY = [{"action": "Deny"}]
SERVICE = Service("shop", "web", "ClusterIP", (ip_address("10.96.0.1"),), (ServicePort("http", "TCP", 80, 8080),))
BACKEND = Backend(ip_address("10.0.0.1"), 8080, "TCP", "http", True)
BEFORE = cluster(
    policy("GlobalNetworkPolicy", "lock", types=["Ingress"], ingress=DENY, order=1),
    policy("NetworkPolicy", "own", "shop", types=["Ingress"]),
    services=(SERVICE,),
    network_sets=(NetworkSet("", "bad", (ip_network("192.0.2.0/24"),)),),
    host_endpoints=(HostEndpoint("n1-eth0", "n1", "eth0"),),
)
AFTER = replace(
    cluster(
        policy("GlobalNetworkPolicy", "lock", types=["Ingress"], ingress=[], order=1),
        policy("KubernetesNetworkPolicy", "own", "shop", podSelector={}),
        tiers=(*TIERS[:1], replace(TIERS[1], order=99.0), Tier("new", 5.0)),
        pods=(pod("shop/web", 1, "n1", "web", app="shop"), *PODS[1:]),
        services=(replace(SERVICE, backends=(BACKEND,)),),
        network_sets=(NetworkSet("shop", "bad", (ip_network("192.0.2.0/24"),)),),
        host_endpoints=(HostEndpoint("n1-eth0", "n1", "eth0", profiles=("p",)),),
    ),
    namespaces={**NAMESPACES, "shop": {"team": "b"}},
    service_accounts={key: labels for key, labels in ACCOUNTS.items() if key != ("shop", "web")},
)

FOUND = [
    "changed GlobalNetworkPolicy lock (spec ingress)",
    "removed NetworkPolicy shop/own",
    "added KubernetesNetworkPolicy shop/own",
    "changed Tier early (order)",
    "removed Tier passing",
    "added Tier new",
    "removed GlobalNetworkSet bad",
    "added NetworkSet shop/bad",
    "changed HostEndpoint n1-eth0 (profiles)",
    "changed Service shop/web (backends)",
    "changed Pod shop/web (labels app)",
    "changed Namespace shop (labels team)",
    "removed ServiceAccount shop/web",
]


def test_what_changed() -> None:
    assert list(map(str, changes(BEFORE, AFTER))) == FOUND
    assert changes(BEFORE, BEFORE) == ()


def test_annotations_are_nothing() -> None:
    told = replace(BEFORE, policies=[replace(one, annotations={"seen": "yes"}) for one in BEFORE.policies])
    assert changes(BEFORE, told) == ()


def test_order_is_nothing() -> None:
    assert changes(BEFORE, replace(BEFORE, pods=PODS[::-1], nodes=NODES[::-1])) == ()


def test_each_change_alone_and_all_but_it() -> None:
    every = changes(BEFORE, AFTER)
    for one in every:
        assert changes(BEFORE, applied(BEFORE, AFTER, {one.key})) == (one,)
        rest = applied(BEFORE, AFTER, {other.key for other in every if other != one})
        assert [change.key for change in changes(rest, AFTER)] == [one.key]


def test_all_changes_are_the_second_state() -> None:
    every = {one.key for one in changes(BEFORE, AFTER)}
    assert changes(applied(BEFORE, AFTER, every), AFTER) == ()
    assert applied(BEFORE, AFTER, ()) == BEFORE


def test_words() -> None:
    assert str(Change(ObjectKey("Tier", "", "web"), "added")) == "added Tier web"
    assert changes(Cluster(), Cluster()) == ()
