"""Whole explanations of small clusters: policies, tiers, and the way there."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from calico_debug.model.explanation import PolicyRef, RuleRef
from calico_debug.walk.journey import Opening
from calico_debug.walk.wiring import Place
from tests.explain.guarded import POLICY_OBJECTS, guarded
from tests.explain.services import GHOST, PODS, kube_proxy, service_objects
from tests.explain.world import (
    Node,
    Tier,
    World,
    decided,
    deny,
    endpoint,
    objects,
    policy,
    told,
)

if TYPE_CHECKING:
    pass


def test_a_rule_denies_and_the_rest_is_told_as_it_would_be() -> None:
    nodes = (Node(1), guarded(2, 1))
    answer = World(*nodes, cluster=objects(nodes, **POLICY_OBJECTS)).ask("11", "21:23")
    assert decided(answer) == ("denied", "rule", "n2")
    decision = answer.decision
    assert decision is not None
    assert (decision.tier, decision.direction) == ("security", "ingress")
    assert decision.policy == PolicyRef("GlobalNetworkPolicy", "security.guard")
    assert decision.rule == RuleRef("Deny", 0)
    assert decision.detail == ""
    assert decision.evidence is not None
    assert decision.evidence.chain == "filter-cali-pi-gnp/security.guard"
    assert decision.evidence.counter == 7
    assert told(answer, hypothetical=False)[-1] == "n2 ingress security denied: "


def test_the_end_of_a_tier_names_the_policies_and_the_closest_rule() -> None:
    nodes = (guarded(1, 2),)
    answer = World(*nodes, cluster=objects(nodes, **POLICY_OBJECTS)).ask("11", "12:8080")
    assert decided(answer) == ("denied", "end-of-tier", "n1")
    assert answer.decision is not None
    assert answer.decision.tier == "default"
    assert answer.decision.detail == "end of tier: shop/web selects the pod, none of its rules matched"
    assert "closest: rule 0 (Allow TCP to ports 80)" in (closest := told(answer)[-1]) or "closest: rule 0" in closest
    assert "destination port 8080 is not 80" in closest
    passed_step = next(step for step in answer.steps if step.tier == "security")
    assert (passed_step.action, passed_step.policy and passed_step.policy.name) == ("passed", "security.guard")
    assert passed_step.rule == RuleRef("Pass", 1)


def test_a_rule_allows() -> None:
    answer = World(guarded(1, 2)).ask("11", "12:80")
    assert decided(answer) == ("allowed", "rule", "n1")
    assert answer.decision is not None
    assert answer.decision.policy == PolicyRef("NetworkPolicy", "web", "shop")
    assert answer.decision.rule == RuleRef("Allow", None), "the object that would tell the index is not there"


@pytest.mark.parametrize("word", ["drop", "reject"])
def test_after_a_denial_at_the_source_the_destination_is_still_told(word: str) -> None:
    chains = {
        **endpoint("cali-fw-cali1", [Tier("default", ["gnp/out"])]),
        **policy("gnp", "out", "egress", deny(verdict=word)),
    }
    answer = World(Node(1, chains=chains), guarded(2, 1)).ask("11", "21:80")
    assert decided(answer)[0] == {"drop": "denied", "reject": "rejected"}[word]
    assert answer.decision is not None
    assert answer.decision.node == "n1"
    assert "n2 ingress default allowed: " in told(answer, hypothetical=True)
    assert not [text for text in told(answer) if "reply" in text]


def test_no_profile_and_profile() -> None:
    chains = {"filter-cali-pri-kns.shop": ["continue # cali:i; Profile kns.shop ingress"]}
    assert decided(World(Node(1, chains=chains)).ask("11", "12:80")) == ("denied", "no-profile", "n1")
    answer = World(Node(1)).ask("11", "12:80")
    assert decided(answer) == ("allowed", "profile", "n1")
    assert answer.decision is not None
    assert answer.decision.policy == PolicyRef("Profile", "kns.shop")


def test_an_endpoint_that_is_disabled() -> None:
    chains = {"filter-cali-tw-cali2": ["drop # cali:d; Endpoint admin disabled"]}
    assert decided(World(Node(1, chains=chains)).ask("11", "12:80")) == ("denied", "endpoint-disabled", "n1")


def test_workloads_may_not_encapsulate() -> None:
    rule = "protocol=udp dport=4789 drop # cali:v; Drop VXLAN encapped packets originating in workloads"
    chains = endpoint("cali-fw-cali1", (), before=[rule])
    world = World(Node(1, chains=chains))
    assert decided(world.ask("11", "12:4789", "udp")) == ("denied", "encapsulation", "n1")
    assert decided(world.ask("11", "12:4790", "udp")) == ("allowed", "profile", "n1")


def test_a_limit_leaves_the_outcome_open() -> None:
    rule = "limit=10 drop # cali:l; Drop packets over ingress packet rate limit"
    answer = World(Node(1, chains=endpoint("cali-tw-cali2", (), before=[rule]))).ask("11", "12:80")
    assert decided(answer)[:2] == ("undetermined", "alternatives")
    assert [finding.code for finding in answer.findings] == ["depends-on"]
    always = "drop # cali:l; Drop packets over ingress packet rate limit"
    answer = World(Node(1, chains=endpoint("cali-tw-cali2", (), before=[always]))).ask("11", "12:80")
    assert decided(answer)[:2] == ("denied", "rate-limit")


def test_an_interface_that_calico_does_not_know() -> None:
    chains = {
        "filter-cali-from-wl-dispatch": ["iif=cali2 goto:filter-cali-fw-cali2", "drop # cali:u; Unknown interface"]
    }
    assert decided(World(Node(1, chains=chains)).ask("11", "12:80")) == ("denied", "unknown-interface", "n1")


def reason_from(world: World, interface: str, source: str) -> tuple[str, str]:
    """Verdict and reason for a packet that comes in through an interface, wherever its source should be."""
    opening = Opening(4, 6, int(ip_address(source)), int(ip_address("10.244.1.2")), 40000, 80, Place("n1", interface))
    (found,) = world.engine._alternatives(opening, join_existing=False)
    assert found.narrative.decision is not None
    return found.narrative.verdict, found.narrative.decision.reason


def test_a_source_that_is_not_behind_its_interface() -> None:
    assert reason_from(World(Node(1)), "cali1", "10.244.1.1") == ("allowed", "profile")
    assert reason_from(World(Node(1)), "cali1", "10.244.1.9") == ("denied", "rpf")
    strict = {"sysctl.txt": "net.ipv4.conf.all.rp_filter = 1\nnet.ipv4.conf.all.forwarding = 1\n"}
    assert reason_from(World(Node(1, files=strict)), "eth0", "10.244.1.1") == ("denied", "rpf")


def test_routes() -> None:
    blackhole = {"type": "blackhole", "dst": "10.244.1.0/26"}
    answer = World(Node(1, routes=[blackhole])).ask("11", "10.244.1.9:80")
    assert decided(answer) == ("denied", "no-route", "n1")
    unreachable = {"type": "unreachable", "dst": "10.244.1.0/26"}
    assert decided(World(Node(1, routes=[unreachable])).ask("11", "10.244.1.9:80"))[:2] == ("rejected", "no-route")
    still = {"sysctl.txt": "net.ipv4.ip_forward = 0\nnet.ipv4.conf.all.forwarding = 0\n"}
    assert decided(World(Node(1, files=still)).ask("11", "12:80")) == ("denied", "not-forwarding", "n1")


def test_a_loop_of_routes_ends() -> None:
    lost = {"dst": "10.245.0.0/16", "dev": "eth0"}
    nodes = (Node(1, routes=[{**lost, "gateway": "172.30.0.2"}]), Node(2, routes=[{**lost, "gateway": "172.30.0.1"}]))
    answer = World(*nodes).ask("11", "10.245.0.1:80")
    assert decided(answer)[:2] == ("undetermined", "missing-evidence")
    assert answer.decision is not None
    assert "the routes form a loop" in answer.decision.detail


def test_a_pod_and_its_own_node() -> None:
    for action, verdict in (("accept", "allowed"), ("drop", "denied"), ("reject", "rejected"), ("return", "allowed")):
        world = World(Node(1, host_action=action))
        assert decided(world.ask("11", "node/n1:22")) == (verdict, "host-default", "n1"), action
    assert decided(world.ask("node/n1", "11:80")) == ("allowed", "host-to-own-pod", "n1")
    node = World(Node(1), Node(2)).ask("11", "node/n2:22")
    assert (node.destination.node, node.destination.interface, decided(node)[:2]) == ("n2", "", ("allowed", "profile"))


def test_nobody_has_a_policy() -> None:
    answer = World(Node(1), Node(2)).ask("node/n1", "node/n2:22")
    assert decided(answer) == ("allowed", "no-policy", "n1")


def test_an_address_outside() -> None:
    world = World(Node(1), Node(2))
    answer = world.ask("11", "8.8.8.8:53", "udp")
    assert decided(answer) == ("allowed", "profile", "n1")
    assert (answer.destination.node, answer.destination.interface) == ("", "")
    assert (answer.source.node, answer.source.interface) == ("n1", "cali1")
    answer = world.ask("8.8.8.8", "21:80")
    assert decided(answer) == ("allowed", "profile", "n2")
    message = next(f.message for f in answer.findings if f.code == "assumption")
    assert message.startswith("8.8.8.8 is assumed to arrive through n2")
    answer = world.ask("8.8.8.8", "21:80", via="n1")
    assert decided(answer) == ("allowed", "profile", "n2")
    assert not [f for f in answer.findings if f.code == "assumption"]


def test_another_table_denies() -> None:
    tables = {"inet firewall": {"input@forward:10": ["dport=80 drop"]}}
    answer = World(Node(1, tables=tables)).ask("11", "12:80")
    assert decided(answer) == ("denied", "not-calico", "n1")
    assert answer.decision is not None
    assert "table inet firewall, chain input" in answer.decision.detail
    closed = {"inet firewall": {"f@forward:10:drop": ["dport=81 accept"]}}
    answer = World(Node(1, tables=closed)).ask("11", "12:80")
    assert decided(answer) == ("denied", "not-calico", "n1")
    assert answer.decision is not None
    assert "the policy of chain f of table inet firewall is to drop" in answer.decision.detail
    shut = World(Node(1, tables={"inet firewall": {"f@forward:10:drop": ["dport=81 accept", "sport=81 accept"]}}))
    assert decided(shut.ask("11:40000", "12:81"))[0] == "allowed"
    assert decided(shut.ask("11:40000", "12:80"))[0] == "denied"


def test_the_answer_is_denied() -> None:
    tables = {"inet firewall": {"input@forward:10": ["sport=80 drop"]}}
    answer = World(Node(1, tables=tables)).ask("11:40000", "12:80")
    assert decided(answer) == ("denied", "not-calico", "n1")
    assert told(answer)[-1].startswith("n1 reply denied: a rule of table inet firewall")


def test_a_port_that_was_not_given() -> None:
    """What decides over the answer's destination port decides over the source port of the question."""
    tables = {"inet firewall": {"input@forward:10": ["dport=5000 drop"]}}
    answer = World(Node(1, tables=tables)).ask("11", "12:81")
    assert decided(answer)[:2] == ("undetermined", "not-understood")
    assert answer.decision is not None
    assert "the source port was not given (table inet firewall" in answer.decision.detail
    assert World(Node(1, tables=tables)).ask("11:40000", "12:81").verdict == "allowed"


@pytest.mark.parametrize("older", [True, False])
def test_chains_of_equal_priority(older: bool) -> None:
    """The chain that was registered last runs first; that it was is inferred, and said where it matters."""
    chains = {**endpoint("cali-fw-cali1", [Tier("default", ["gnp/out"])]), **policy("gnp", "out", "egress")}
    tables = kube_proxy(PODS[1])
    node = Node(1, chains=chains, first_tables=tables) if older else Node(1, chains=chains, tables=tables)
    world = World(node, cluster=objects([node], **service_objects(PODS[1])))
    answer = world.ask("11", f"{GHOST}:80")
    wanted = ("denied", "end-of-tier") if older else ("rejected", "no-endpoints")
    assert decided(answer)[:2] == wanted
    finding = next(f for f in answer.findings if f.code == "hook-order")
    assert finding.severity == "info"
    assert ("would refuse" if older else "would drop") in finding.message
    assert not [f for f in world.ask("11", "12:80").findings if f.code == "hook-order"]


def test_what_is_not_understood_and_matters() -> None:
    tables = {"ip odd": {"f@forward:10": ["dport=80 alien drop"]}}
    world = World(Node(1, tables=tables))
    answer = world.ask("11", "12:80")
    assert decided(answer)[:2] == ("undetermined", "not-understood")
    assert answer.decision is not None
    assert "alien" in " ".join([answer.decision.detail, *(f.message for f in answer.findings)])
    assert decided(world.ask("11:40000", "12:81"))[0] == "allowed", "the rule does not get that far"
    either = {"ip odd": {"f@forward:10": ["alien accept", "accept"]}}
    assert decided(World(Node(1, tables=either)).ask("11", "12:80"))[0] == "allowed", "both ways end alike"


def test_invalid_packets() -> None:
    world = World(Node(1))
    flow = world.resolver.resolve("10.244.1.1", "10.244.1.2", protocol="icmp")
    answer = world.engine.explain(replace(flow, icmp=(0, 0)))
    assert decided(answer) == ("denied", "ct-invalid", "n1")
