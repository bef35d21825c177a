"""Which flows are compared when none are named."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from calico_debug.diff import asked as asked_module
from calico_debug.diff.asked import _name, default_flows
from calico_debug.diff.changes import changes
from calico_debug.diff.model import FlowText
from calico_debug.explain.engine import Engine
from calico_debug.intent.decide import Intent
from calico_debug.model.cluster import Backend, Cluster, Service, ServicePort
from tests.evidence.memory import MemorySource
from tests.intent.clusters import PODS, cluster, pod, policy
from tests.recordings import recordings

SERVICE = Service("shop", "web", "ClusterIP", (ip_address("10.96.0.1"),), (ServicePort("http", "UDP", 53, 53),))
BACKEND = Backend(ip_address("10.0.0.1"), 53, "UDP", "http", True)


def asked(before: Cluster, after: Cluster) -> tuple[FlowText, ...]:
    engine = Engine(MemorySource({}))
    return default_flows(
        (engine, engine), (engine.cluster, engine.cluster), (Intent(before), Intent(after)), changes(before, after)
    ).flows


def ends(flows: tuple[FlowText, ...]) -> set[tuple[str, str]]:
    return {(one.source.removeprefix("pod/"), one.destination.removeprefix("pod/").partition(":")[0]) for one in flows}


def test_equals_are_asked_about_once_but_for_each_other() -> None:
    twins = tuple(pod(f"shop/twin-{n}", 10 + n, app="twin") for n in range(20))
    found = ends(asked(cluster(pods=twins), cluster(pods=twins)))
    assert found == {("shop/twin-0", "shop/twin-1"), ("shop/twin-1", "shop/twin-0")}


def test_what_either_state_tells_apart() -> None:
    """After the change one of the twins is another; on another node too."""
    twins = tuple(pod(f"shop/twin-{n}", 10 + n, "n2" if n == 7 else "n1", app="twin") for n in range(20))
    lock = policy("GlobalNetworkPolicy", "lock", selector="odd == 'yes'", types=["Ingress"])
    odd = (*twins[:5], pod("shop/twin-5", 15, app="twin", odd="yes"), *twins[6:])
    sources = {source for source, _ in ends(asked(cluster(pods=twins), cluster(lock, pods=odd)))}
    assert sources == {"shop/twin-0", "shop/twin-1", "shop/twin-5", "shop/twin-7"}


def test_pods_of_one_state_alone_are_not_asked_about() -> None:
    before, after = Intent(cluster()), Intent(cluster(pods=(*PODS[1:], pod("shop/new", 9))))
    engine = Engine(MemorySource({}))
    chosen = default_flows((engine, engine), (engine.cluster, engine.cluster), (before, after), ())
    assert {name for pair in ends(chosen.flows) for name in pair} == {"shop/db", "bank/cli"}
    assert chosen.notes == (
        "1 of 3 pods are there only before and not asked about: shop/web",
        "1 of 3 pods are there only after and not asked about: shop/new",
    )


def test_services_that_changed() -> None:
    before, after = cluster(services=(SERVICE,)), cluster(services=(replace(SERVICE, backends=(BACKEND,)),))
    found = [one for one in asked(before, after) if one.destination.startswith("svc/")]
    assert {(one.destination, one.protocol) for one in found} == {("svc/shop/web:53", "udp")}
    assert len(found) == len(PODS)
    assert not [one for one in asked(after, after) if one.destination.startswith("svc/")]


def test_what_is_too_much_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cluster(services=(SERVICE,))
    after = cluster(services=(replace(SERVICE, backends=(BACKEND,)),))
    monkeypatch.setattr(asked_module, "MOST_TO_SERVICES", 2)
    monkeypatch.setattr(asked_module, "MOST_JUDGED", 10)
    engine = Engine(MemorySource({}))
    chosen = default_flows(
        (engine, engine), (engine.cluster, engine.cluster), (Intent(before), Intent(after)), changes(before, after)
    )
    assert chosen.notes == (
        "1 of 2 ports are not asked about: udp 53",
        "of 3 flows to changed services the first 2 are asked about",
    )
    assert len([one for one in chosen.flows if one.destination.startswith("svc/")]) == 2


def test_open_connections_by_names() -> None:
    (recording,) = recordings("v3.32.1-nft")[:1]
    engine = Engine(recording.source)
    intent = Intent(engine.cluster.cluster)
    flows = default_flows((engine, engine), (engine.cluster, engine.cluster), (intent, intent), ()).flows
    assert FlowText("172.30.0.100", "pod/kube-system/coredns-0:53", "udp") in flows
    assert len(set(flows)) == len(flows)


def test_names_of_ends() -> None:
    (recording,) = recordings("v3.32.1-nft")[:1]
    engine = Engine(recording.source)
    for address, port, name in (
        ("10.96.20.1", 80, "svc/stars/frontend:80"),
        ("10.96.20.1", 81, "10.96.20.1:81"),
        ("10.244.1.30", None, "pod/client/client-5f8b"),
        ("198.51.100.9", 80, "198.51.100.9:80"),
        ("2001:db8::1", 80, "[2001:db8::1]:80"),
        ("2001:db8::1", None, "2001:db8::1"),
    ):
        assert _name(engine.cluster, ip_address(address), port, 6) == name
