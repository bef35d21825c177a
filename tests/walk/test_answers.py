"""Answers that no program has an entry for, and connections whose answers take another way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from calico_debug.model.explanation import FlowExplanation
from calico_debug.walk.choices import explore
from calico_debug.walk.packet import UDP
from calico_debug.walk.wiring import Place
from tests.explain.world import SYSCTLS, Node, World, decided
from tests.walk.recorded_bpf import RecordedCluster
from tests.walk.test_journey import POD21, opening, travel

ON_NODE1, ON_NODE2 = "10.244.1.31", "10.244.2.32"


@pytest.fixture(scope="module")
def cluster() -> RecordedCluster:
    return RecordedCluster()


def ask(cluster: RecordedCluster, source: str, protocol: str, port: str = ":5555") -> FlowExplanation:
    return cluster.engine.explain(cluster.resolver.resolve(source, f"192.0.2.50{port}", protocol=protocol))


@pytest.mark.parametrize(("protocol", "port"), [("udp", ":5555"), ("sctp", ":5555"), ("47", "")])
def test_they_meet_the_host_endpoint_s_policy_as_new(cluster: RecordedCluster, protocol: str, port: str) -> None:
    answer = ask(cluster, ON_NODE2, protocol, port)
    assert decided(answer) == ("denied", "rule", "node2")
    assert answer.decision is not None
    assert answer.decision.detail.startswith("the answer")
    assert [step.action for step in answer.steps if step.stage == "reply"] == ["passed", "denied"]


def test_a_policy_that_allows_them_is_told_and_does_not_decide(cluster: RecordedCluster) -> None:
    answer = ask(cluster, ON_NODE2, "icmp", "")
    told = [(step.action, step.rule is not None) for step in answer.steps if step.stage == "reply"]
    assert answer.verdict == "allowed"
    assert answer.decision is not None
    assert answer.decision.direction == "egress"
    assert ("allowed", True) in told


def test_tcp_is_left_to_the_host_s_conntrack(cluster: RecordedCluster) -> None:
    assert ask(cluster, ON_NODE2, "tcp").verdict == "allowed"


def test_without_a_host_endpoint_nobody_minds(cluster: RecordedCluster) -> None:
    answer = ask(cluster, ON_NODE1, "udp")
    assert answer.verdict == "allowed"
    assert {step.action for step in answer.steps if step.stage == "reply"} == {"passed"}


@pytest.mark.parametrize(("reached", "denied"), [("172.30.0.77", True), ("198.51.100.7", False)])
def test_a_node_that_the_answer_does_not_pass(reached: str, denied: bool) -> None:
    """Its conntrack saw a SYN and then an ACK. An answer to a gateway may come by there all the same."""
    first = Node(1, chains={"filter-cali-FORWARD": ["ct=invalid drop"]})
    world = World(first, Node(2))
    start = opening(POD21, source=reached, place=Place("n1", "eth0"))
    journey = travel(world, start)
    assert (journey.arrived, journey.replied) == ("workload", not denied)
    assert [leg.made.node for leg in journey.legs if leg.later] == (["n1"] if denied else [])
    assert travel(world, replace(start, protocol=UDP)).replied
    assert travel(World(Node(1), Node(2)), start).replied
    answer = world.ask(f"{reached}:40000", "21:80", via="n1")
    assert (answer.verdict == "denied") == denied
    if denied:
        assert answer.decision is not None
        assert (answer.decision.node, answer.decision.reason) == ("n1", "ct-invalid")
        assert "the answer takes another way" in answer.decision.detail
        assert [step.action for step in answer.steps if step.stage == "conntrack"][-1] == "denied"


@pytest.mark.parametrize("port", [81, None])
def test_whether_something_listens_decides_where_the_answer_takes_another_way(port: int | None) -> None:
    """A refusal gets back, and nothing follows it that could be cut. Pods declare port 80 alone."""
    world = World(Node(1, chains={"filter-cali-FORWARD": ["ct=invalid drop"]}), Node(2))
    start = replace(opening(POD21, source="172.30.0.77", place=Place("n1", "eth0")), destination_port=port)
    traveller = world.engine._traveller
    listening, refusing = explore(lambda chooser: traveller.travel(start, chooser, False), 3)
    assert (listening.result.replied, listening.result.legs[-1].later) == (False, True)
    assert (refusing.result.replied, refusing.result.legs[-1].later) == (True, False)
    assert not refusing.result.assumed
    where = "10.244.2.1" if port is None else f"TCP port {port} of 10.244.2.1"
    assert f"whether something listens on {where}: if so, n1 drops" in listening.choices[0].why


def test_a_port_that_nobody_declares_is_undetermined() -> None:
    world = World(Node(1, chains={"filter-cali-FORWARD": ["ct=invalid drop"]}), Node(2))
    answer = world.ask("172.30.0.77:40000", "21:81", via="n1")
    assert decided(answer) == ("undetermined", "alternatives", "n1")
    assert ["TCP port 81 of 10.244.2.1" in f.message for f in answer.findings if f.code == "depends-on"] == [True]


LISTENS = "something is taken to listen on TCP port 80 of 10.244.2.1, since pod shop/pod21 declares that port"
IGNORES = "the client is taken to ignore the ICMP redirects by which n1 tells it of the shorter way, if it sends any"


@pytest.mark.parametrize(
    ("redirects", "hook", "verdict", "said"),
    [
        ({}, "FORWARD", "denied", [LISTENS, IGNORES]),
        ({"all": 0}, "FORWARD", "denied", [LISTENS, IGNORES]),
        ({"all": 0, "eth0": 0}, "FORWARD", "denied", [LISTENS]),
        ({"all": 0, "eth0": 1}, "FORWARD", "undetermined", [LISTENS]),
        ({"all": 1}, "FORWARD", "undetermined", [LISTENS]),
        ({"all": 1}, "PREROUTING", "denied", [LISTENS, IGNORES]),
    ],
)
def test_what_is_taken_to_be_so_is_said(redirects: dict[str, int], hook: str, verdict: str, said: list[str]) -> None:
    """Redirects are sent behind the routing decision, so not for what is dropped before it."""
    lines = "".join(f"net.ipv4.conf.{scope}.send_redirects = {value}\n" for scope, value in redirects.items())
    base = "c@forward:10" if hook == "FORWARD" else "c@prerouting:-140"
    tables = {"ip guard": {base: ["ct=invalid drop"]}}
    world = World(Node(1, tables=tables, files={"sysctl.txt": f"{SYSCTLS}{lines}"}), Node(2))
    answer = world.ask("172.30.0.77:40000", "21:80", via="n1")
    assert answer.verdict == verdict
    found = [f.message for f in answer.findings if f.code == "assumption"]
    assert [wanted in message for wanted, message in zip(said, found, strict=True)] == [True] * len(said)
    questions = [f.message for f in answer.findings if f.code == "depends-on"]
    assert ["whether the client follows the ICMP redirects" in one for one in questions] == [True] * (
        verdict != "denied"
    )
    assert not [f for f in world.ask("11", "21:80").findings if f.code == "assumption"]


@pytest.mark.parametrize(
    ("reached", "protocol", "decision"),
    [
        ("172.30.0.77", "tcp", ("denied", "untranslated", "n1")),
        ("172.30.0.77", "udp", ("undetermined", "alternatives", "n1")),
        ("198.51.100.7", "tcp", ("allowed", "profile", "n2")),
    ],
)
def test_an_answer_that_is_not_translated_back(reached: str, protocol: str, decision: tuple[str, str, str]) -> None:
    """One that goes to a gateway may come by the node that would do it."""
    moved = {"ip moved": {"c@prerouting:-100:accept:nat": [f"daddr=10.99.0.1 protocol={protocol} dnat:{POD21}|80"]}}
    world = World(Node(1, tables=moved), Node(2))
    answer = world.ask(f"{reached}:40000", "10.99.0.1:8080", protocol, via="n1")
    assert decided(answer) == decision
    assert [step.action for step in answer.steps if step.stage == "reply"][-1] == (
        "passed" if reached.startswith("198") else "denied"
    )
