"""Whole explanations of small clusters: every reason, every kind of end, and what is missing."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from calico_debug.errors import EvidenceError
from calico_debug.model.explanation import PolicyRef, RuleRef
from calico_debug.walk.journey import Opening
from calico_debug.walk.wiring import Place
from tests.explain.world import (
    ACCEPT,
    Node,
    Tier,
    World,
    allow,
    decided,
    deny,
    endpoint,
    objects,
    passed,
    pod_address,
    policy,
    policy_object,
    told,
)

if TYPE_CHECKING:
    from tests.explain.rules import Json

PODS = "10.244.1.1", "10.244.1.2", "10.244.2.1"
SERVICE, GHOST, BALANCED = "10.96.0.1", "10.96.0.2", "203.0.113.9"

INGRESS = (Tier("security", ["gnp/security.guard"]), Tier("default", ["np/shop/web"]))
POLICIES = {
    **policy("gnp", "security.guard", "ingress", deny("protocol=tcp dport=23"), passed()),
    **policy("np", "shop/web", "ingress", allow("protocol=tcp dport=80")),
}
POLICY_OBJECTS = {
    "globalnetworkpolicies_crd_projectcalico_org": [
        policy_object(
            "security.guard",
            "security",
            ingress=[
                {"action": "Deny", "protocol": "TCP", "destination": {"ports": [23]}},
                {"action": "Pass"},
            ],
        )
    ],
    "networkpolicies_crd_projectcalico_org": [
        policy_object(
            "web",
            "default",
            "shop",
            ingress=[{"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}}],
        )
    ],
}


def guarded(number: int = 1, pod: int = 2) -> Node:
    """A node whose pod has policies of two tiers."""
    return Node(number, chains={**endpoint(f"cali-tw-cali{pod}", INGRESS), **POLICIES})


def kube_proxy(*backends: str, port: int = 80) -> dict[str, dict[str, list[str]]]:
    """A service with those backends, one without any, a node port 30080 and a load-balancer address."""
    spread = ["spread=" + ",".join(f"endpoint-{number}" for number in range(len(backends)))]
    services = [
        f"daddr={SERVICE} protocol=tcp dport={port} jump:service-shop",
        f"daddr={BALANCED} protocol=tcp dport={port} goto:external-shop",
        "local protocol=tcp dport=30080 goto:external-shop",
    ]
    endpoints = {
        f"endpoint-{number}": [f"saddr={backend} jump:mark-for-masquerade", f"protocol=tcp dnat:{backend}|{port}"]
        for number, backend in enumerate(backends)
    }
    check = [f"daddr={GHOST} protocol=tcp dport={port} goto:reject-chain"]
    return {
        "ip kube-proxy": {
            "filter-forward@forward:0": ["ct=new jump:service-endpoints-check", "ct=new jump:cluster-ips-check"],
            "filter-output@output:0": ["ct=new jump:service-endpoints-check", "ct=new jump:cluster-ips-check"],
            "nat-prerouting@prerouting:-100:accept:nat": ["jump:services"],
            "nat-output@output:-100:accept:nat": ["jump:services"],
            "nat-postrouting@postrouting:100:accept:nat": ["mark&4000=0 return", "mark-4000", "masquerade"],
            "filter-prerouting-pre-dnat@prerouting:-110": ["ct=new jump:firewall-check"],
            "firewall-check": [f"daddr={BALANCED} protocol=tcp dport={port} jump:firewall-shop"],
            "firewall-shop": ["saddr=198.51.100.0/24 return", "drop"],
            "service-endpoints-check": check,
            "cluster-ips-check": ["daddr=10.96.0.0/24 reject"],
            "reject-chain": ["reject"],
            "services": services,
            "service-shop": spread,
            "external-shop": ["jump:mark-for-masquerade", "goto:service-shop"],
            "mark-for-masquerade": ["mark|4000"],
            **endpoints,
        }
    }


def service_objects(*backends: str) -> dict[str, list[Json]]:
    services = [
        {
            "metadata": {"namespace": "shop", "name": name},
            "spec": {"type": kind, "clusterIPs": [address], "ports": [{"port": 80, "targetPort": 80, **ports}]},
            "status": {"loadBalancer": {"ingress": [{"ip": BALANCED}] if kind == "LoadBalancer" else []}},
        }
        for name, address, kind, ports in (
            ("web", SERVICE, "LoadBalancer", {"nodePort": 30080}),
            ("ghost", GHOST, "ClusterIP", {}),
        )
    ]
    slices = [
        {
            "metadata": {"namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"port": 80, "protocol": "TCP"}],
            "endpoints": [{"addresses": [backend], "conditions": {"ready": True}} for backend in backends],
        }
    ]
    return {"services": services, "endpointslices_discovery_k8s_io": slices}


def served(*backends: str, nodes: tuple[Node, ...] = ()) -> World:
    """Two nodes with kube-proxy's tables on both."""
    made = nodes or (Node(1, tables=kube_proxy(*backends)), Node(2, tables=kube_proxy(*backends)))
    return World(*made, cluster=objects(made, **service_objects(*backends)))


# ----------------------------------------------------------------------------------------------- policies and tiers


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
    assert "destination port 8080 is not in" in closest
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


# --------------------------------------------------------------------------------------------------- the way there


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


# ------------------------------------------------------------------------------------------------- host endpoints


def host(before: str = "", forward: str = "", normal: bool = False) -> Node:
    """A node with a host endpoint eth0: rules of a policy before translation, for forwarded and for its own traffic."""
    chains: dict[str, list[str]] = {
        "filter-cali-FORWARD": [
            "mark-b0000",
            "iif=eth0 jump:filter-cali-fhfw-eth0",
            "iif=cali* jump:filter-cali-from-wl-dispatch",
            "oif=cali* jump:filter-cali-to-wl-dispatch",
        ],
        "filter-cali-INPUT": [
            "iif=cali* goto:filter-cali-wl-to-host",
            "jump:filter-cali-fh-eth0",
            f"mark&{ACCEPT}={ACCEPT} accept # cali:q; Host endpoint policy accepted packet.",
        ],
        "filter-cali-failsafe-in": ["protocol=tcp dport=22 accept"],
        "filter-cali-fhfw-eth0": [
            f"mark|{ACCEPT} # cali:k; Allow forwarded traffic by default",
            "return # cali:j; Return for accepted forward traffic",
        ],
    }
    tier = [Tier("default", ["gnp/host"])]
    chains |= endpoint("cali-fh-eth0", tier if normal else (), profile="", before=["jump:filter-cali-failsafe-in"])
    chains |= policy("gnp", "host", "ingress", allow("dport=443"))
    if forward:
        chains |= endpoint("cali-fhfw-eth0", [Tier("default", ["gnp/forward"])], profile="")
        chains["filter-cali-fhfw-eth0"].pop()
        chains |= policy("gnp", "forward", "ingress", deny(forward))
    if before:
        chains["mangle-PREROUTING@prerouting:-150"] = ["jump:mangle-cali-fh-eth0"]
        chains["mangle-cali-fh-eth0"] = [
            "ct=established,related accept",
            "mark-30000",
            "mark-20000 # cali:t; Start of tier default",
            "mark&20000=0 jump:mangle-cali-pi-gnp/before",
            f"mark&{ACCEPT}={ACCEPT} return # cali:a; Return if policy accepted",
        ]
        made = policy("gnp", "before", "ingress", deny(before))
        chains |= {name.replace("filter-", "mangle-"): rules for name, rules in made.items()}
    return Node(1, chains=chains)


def test_a_host_endpoint() -> None:
    world = World(host())
    assert decided(world.ask("8.8.8.8", "node/n1:22")) == ("allowed", "failsafe", "n1")
    assert decided(world.ask("8.8.8.8", "node/n1:443")) == ("denied", "no-profile", "n1")
    assert decided(world.ask("8.8.8.8", "11:80")) == ("allowed", "profile", "n1")
    world = World(host(normal=True))
    assert decided(world.ask("8.8.8.8", "node/n1:443")) == ("allowed", "rule", "n1")
    answer = world.ask("8.8.8.8", "node/n1:80")
    assert decided(answer) == ("denied", "end-of-tier", "n1")
    assert answer.decision is not None
    assert answer.decision.detail == "end of tier: host selects the host endpoint, none of its rules matched"
    assert answer.decision.direction == "ingress"


def test_forwarded_traffic_of_a_host_endpoint() -> None:
    answer = World(host(forward="dport=80")).ask("8.8.8.8", "11:80")
    assert decided(answer) == ("denied", "rule", "n1")
    assert answer.decision is not None
    assert answer.decision.policy == PolicyRef("GlobalNetworkPolicy", "forward")
    assert "n1 ingress allowed: no tier decided; profile kns.shop allows" in told(answer, hypothetical=True)
    by_default = World(host()).ask("8.8.8.8", "node/n1:443")
    assert not [text for text in told(by_default) if "forwarded" in text]
    assert "n1 host allowed: no policy for forwarded traffic applies to the host endpoint" in told(
        World(host()).ask("8.8.8.8", "11:80")
    )


def test_before_translation() -> None:
    world = World(host(before="dport=80"))
    answer = world.ask("8.8.8.8", "11:80")
    assert decided(answer) == ("denied", "rule", "n1")
    assert answer.decision is not None
    assert answer.decision.policy == PolicyRef("GlobalNetworkPolicy", "before")
    open_step = next(text for text in told(world.ask("8.8.8.8", "11:81")) if "default" in text)
    assert open_step == (
        "n1 host default no match: no rule matched; policy before translation (preDNAT) denies only by a rule"
    )


# ------------------------------------------------------------------------------------------------------- services


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
    assert any("service translated: 10.96.0.1:80 -> 10.244.1.2:80 (shop/pod12)" in text for text in told(answer))


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


# -------------------------------------------------------------------------------------------------- other tables


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


# ------------------------------------------------------------------------------------------- existing connections

ALIVE = (
    "tcp      6 86000 ESTABLISHED src=10.244.1.1 dst=10.244.1.2 sport=40000 dport=8080 "
    "src=10.244.1.2 dst=10.244.1.1 sport=8080 dport=40000 [ASSURED] mark=0 use=1\n"
)


def test_a_connection_that_outlived_a_policy() -> None:
    node = guarded(1, 2)
    node.conntrack = ALIVE
    answer = World(node).ask("11:40000", "12:8080")
    assert decided(answer) == ("allowed", "established", "n1")
    assert answer.new_connection is not None
    assert answer.new_connection.verdict == "denied"
    assert answer.new_connection.decision is not None
    assert answer.new_connection.decision.reason == "end-of-tier"
    assert "outlived-policy" in {finding.code for finding in answer.findings}
    assert World(node).ask("11:40001", "12:8080").verdict == "denied"


# ------------------------------------------------------------------------------------------------ missing evidence


def test_the_destinations_node_is_missing() -> None:
    nodes = (Node(1), Node(2))
    answer = World(*nodes, absent=["n2"]).ask("11", "21:80")
    assert decided(answer)[:2] == ("undetermined", "missing-evidence")
    assert answer.decision is not None
    assert answer.decision.detail == "the packet goes on to node n2 at 172.30.0.2, of which there is no evidence"
    shut = {**endpoint("cali-fw-cali1", [Tier("default", ["gnp/out"])]), **policy("gnp", "out", "egress")}
    answer = World(Node(1, chains=shut), Node(2), absent=["n2"]).ask("11", "21:80")
    assert decided(answer) == ("denied", "end-of-tier", "n1"), "what n2 would do does not matter"


def test_the_sources_node_is_missing() -> None:
    nodes = (Node(1), guarded(2, 1))
    world = World(*nodes, absent=["n1"])
    answer = world.ask("11", "21:23")
    assert decided(answer) == ("denied", "rule", "n2")
    assert [f.code for f in answer.findings if f.severity == "warning"] == ["missing-evidence"]
    answer = world.ask("11", "21:80")
    assert decided(answer) == ("undetermined", "missing-evidence", "n1")
    assert answer.decision is not None
    assert answer.decision.detail.endswith("it needs that of node n1; n2 would let it in")
    assert "n2 ingress default allowed: " in told(answer)
    answer = world.ask("11", "8.8.8.8:80")
    assert decided(answer) == ("undetermined", "missing-evidence", "n1")
    assert not answer.steps


def test_the_nodes_in_between_are_said_to_be_missing() -> None:
    world = World(Node(1), Node(2), absent=["n1"])
    answer = world.ask("8.8.8.8", "21:80", via="n1")
    assert decided(answer)[:2] == ("undetermined", "missing-evidence")
    assert answer.decision is not None
    assert "arrives through n1, and there is no evidence of that node" in answer.decision.detail


def test_without_cluster_objects() -> None:
    """Addresses alone: routes tell where pods are, nothing tells who is outside."""
    world = World(Node(1), Node(2), cluster={})
    assert decided(world.ask("10.244.1.1", "10.244.2.1:80")) == ("allowed", "profile", "n2")
    answer = world.ask("10.244.1.1", "8.8.8.8:53")
    assert decided(answer)[:2] == ("undetermined", "missing-evidence")
    assert answer.decision is not None
    assert "no evidence says what is there" in answer.decision.detail
    assert world.ask("10.244.1.1", "10.244.1.2:80").source.pod is None


@pytest.mark.parametrize("file", ["ip-route-all.json", "nft-ruleset.json"])
def test_without_a_file(file: str) -> None:
    world = World(Node(1, files={file: None}))
    try:
        answer = world.ask("10.244.1.1", "10.244.1.2:80")
        told_so = " ".join([answer.decision.detail if answer.decision else "", *(f.message for f in answer.findings)])
    except EvidenceError as error:
        told_so = str(error)
    assert file in told_so


@pytest.mark.parametrize("file", ["ip-link.json", "ip-addr.json"])
def test_either_list_of_interfaces_is_enough(file: str) -> None:
    assert decided(World(Node(1, files={file: None})).ask("11", "12:80"))[0] == "allowed"


def test_without_sysctl() -> None:
    answer = World(Node(1, files={"sysctl.txt": None})).ask("11", "12:80")
    assert any("sysctl.txt" in finding.message for finding in answer.findings) or answer.verdict == "undetermined"


def test_a_chain_is_missing() -> None:
    chains = {"filter-cali-FORWARD": ["jump:filter-cali-nowhere"]}
    answer = World(Node(1, chains=chains)).ask("11", "12:80")
    assert decided(answer)[:2] == ("undetermined", "missing-evidence")
    assert answer.decision is not None
    assert "filter-cali-nowhere" in answer.decision.detail


def test_a_node_without_calico() -> None:
    with pytest.raises(EvidenceError, match="n1"):
        World(Node(1, calico=False)).ask("11", "12:80")


def test_a_node_that_felix_has_not_programmed() -> None:
    node = Node(1, calico=False, tables={"ip calico": {"filter-FORWARD@forward:0": []}})
    answer = World(node).ask("11", "12:80")
    assert "node-not-programmed" in {finding.code for finding in answer.findings}


# ------------------------------------------------------------------------------------------------------------ IPv6


def test_ipv6() -> None:
    chains = {**endpoint("cali-tw-cali2", INGRESS), **POLICIES}
    world = World(Node(1, family=6, chains=chains), Node(2, family=6))
    assert decided(world.ask("11", "12:80")) == ("allowed", "rule", "n1")
    assert decided(world.ask("11", "12:23")) == ("denied", "rule", "n1")
    assert decided(world.ask("11", "21:80")) == ("allowed", "profile", "n2")
    assert world.ask("11", "21:80").destination.ip == pod_address(2, 1, 6)
    assert decided(world.ask("21", "12", "icmpv6")) == ("denied", "end-of-tier", "n1")


# --------------------------------------------------------------------------------------------------------- economy


def test_a_flow_reads_only_what_it_needs() -> None:
    world = World(Node(1), Node(2))
    world.ask("10.244.1.1", "10.244.1.2:80")
    evidence = world.source.node("n2")
    assert "nft-ruleset.json" not in evidence.reads
    again = len(world.source.node("n1").reads)
    world.ask("10.244.1.1", "10.244.1.2:80")
    assert len(world.source.node("n1").reads) == again
