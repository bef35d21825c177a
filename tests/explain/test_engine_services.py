"""Whole explanations: services, node ports, load balancers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.explain.services import BALANCED, GHOST, PODS, SERVICE, kube_proxy, served, sticky
from tests.explain.world import (
    Node,
    Tier,
    World,
    decided,
    endpoint,
    policy,
    told,
)

if TYPE_CHECKING:
    pass


def test_a_service_with_backends_that_agree() -> None:
    answer = served(PODS[1], PODS[2]).ask("11", f"{SERVICE}:80")
    assert answer.verdict == "allowed"
    assert [(b.ip, b.port, b.node, b.verdict) for b in answer.backends] == [
        (PODS[1], 80, "n1", "allowed"),
        (PODS[2], 80, "n2", "allowed"),
    ]
    assert answer.backends[0].pod == {"namespace": "shop", "name": "pod12"}
    assert (answer.destination.node, answer.destination.interface) == ("", "")
    assert answer.destination.service is not None
    step = "service translated: shop/web 10.96.0.1:80 -> 10.244.1.2:80 (shop/pod12)"
    assert any(step in text for text in told(answer))


def test_a_service_with_backends_that_disagree() -> None:
    tables = kube_proxy(PODS[1], PODS[2])
    shut = endpoint("cali-tw-cali1", [Tier("default", ["gnp/shut"])])
    nodes = (Node(1, tables=tables), Node(2, tables=tables, chains={**shut, **policy("gnp", "shut", "ingress")}))
    answer = served(PODS[1], PODS[2], nodes=nodes).ask("11", "svc/shop/web:80")
    assert decided(answer)[:2] == ("undetermined", "alternatives")
    assert [b.verdict for b in answer.backends] == ["allowed", "denied"]
    finding = next(f for f in answer.findings if f.code == "backends-differ")
    assert "10.244.1.2:80 allowed, 10.244.2.1:80 denied" in finding.message


def test_a_service_without_backends() -> None:
    assert decided(served(PODS[1]).ask("11", f"{GHOST}:80")) == ("rejected", "no-endpoints", "n1")
    assert decided(served(PODS[1]).ask("node/n1", f"{GHOST}:80")) == ("rejected", "no-endpoints", "n1")
    assert decided(served(PODS[1]).ask("11", f"{SERVICE}:81")) == ("rejected", "service-port", "n1")


def test_a_load_balancer_address() -> None:
    world = served(PODS[2])
    answer = world.ask("198.51.100.7", f"{BALANCED}:80", via="n1")
    assert decided(answer) == ("allowed", "profile", "n2")
    assert any("masqueraded" in text for text in told(answer))
    answer = world.ask("192.0.2.7", f"{BALANCED}:80", via="n1")
    assert decided(answer) == ("denied", "source-ranges", "n1")


def test_a_node_port() -> None:
    world = served(PODS[2])
    answer = world.ask("198.51.100.7", "172.30.0.1:30080")
    assert decided(answer) == ("allowed", "profile", "n2")
    assert [f for f in answer.findings if f.code == "assumption"]
    assert answer.destination.node == "n1"
    nodes = list(dict.fromkeys(step.node for step in answer.steps))
    assert nodes == ["n1", "n2"]
    answer = world.ask("198.51.100.7", "172.30.0.1:30080", via="n2")
    assert list(dict.fromkeys(step.node for step in answer.steps)) == ["n2", "n1"]


def test_a_pod_and_its_own_service() -> None:
    answer = served(PODS[0]).ask("11", f"{SERVICE}:80")
    assert decided(answer)[0] == "allowed"
    assert any("source 10.244.1.1 becomes 172.30.0.1" in text for text in told(answer))


def test_a_pod_and_its_own_address() -> None:
    """The node never sees these packets, so its rules do not matter, nor whether there is evidence of it."""
    shut = Node(1, chains={**endpoint("cali-fw-cali1", [Tier("t", ["gnp/x"])]), **policy("gnp", "x", "egress")})
    for world in (World(shut), World(shut, absent=["n1"])):
        answer = world.ask("11", "11:80")
        assert decided(answer) == ("allowed", "no-policy", "n1")
        assert not answer.steps
    assert World(shut, cluster={}).ask("10.244.1.1", "10.244.1.1:80").verdict == "allowed"
    assert World(Node(1)).ask("node/n1", "node/n1:80").steps, "a node's own packets do meet its rules"


def test_service_loop_prevention() -> None:
    chains = {
        "filter-cali-FORWARD": ["iif=cali* jump:filter-cali-from-wl-dispatch", "jump:filter-cali-cidr-block"],
        "filter-cali-cidr-block": ["daddr=10.96.0.0/16 drop"],
    }
    answer = World(Node(1, chains=chains)).ask("11", "10.96.7.7:80")
    assert decided(answer) == ("denied", "service-loop", "n1")


def test_affinity_in_iptables_mode_leaves_the_backend_open_and_nothing_else() -> None:
    files = {"iptables-save.txt": sticky(PODS[1], PODS[2])}
    answer = served(PODS[1], PODS[2], nodes=(Node(1, files=files), Node(2))).ask("11", f"{SERVICE}:80")
    assert [(b.ip, b.verdict) for b in answer.backends] == [(PODS[1], "allowed"), (PODS[2], "allowed")]
    assert answer.verdict == "allowed"

    shut = {**endpoint("cali-tw-cali1", [Tier("default", ["gnp/shut"])]), **policy("gnp", "shut", "ingress")}
    answer = served(PODS[1], PODS[2], nodes=(Node(1, files=files), Node(2, chains=shut))).ask("11", f"{SERVICE}:80")
    assert decided(answer)[:2] == ("undetermined", "alternatives")
    assert [backend.verdict for backend in answer.backends] == ["allowed", "denied"]
    (question,) = [f.message for f in answer.findings if f.code == "depends-on"]
    assert question.startswith("whether chain KUBE-SVC-1 of table ip nat remembers 10.244.1.1 from earlier packets")
    alone = served(PODS[2], nodes=(Node(1, files={"iptables-save.txt": sticky(PODS[2])}), Node(2, chains=shut)))
    assert decided(alone.ask("11", f"{SERVICE}:80"))[:2] == ("denied", "end-of-tier")
