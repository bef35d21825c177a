"""Whole explanations: host endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.model.explanation import PolicyRef
from tests.explain.world import (
    ACCEPT,
    Node,
    Tier,
    World,
    allow,
    decided,
    deny,
    endpoint,
    policy,
    told,
)

if TYPE_CHECKING:
    pass


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


def test_answers_to_failsafe_ports_are_not_what_is_told_first() -> None:
    node = host(normal=True)
    node.chains["filter-cali-failsafe-in"] += ["protocol=tcp sport=179 accept", "protocol=tcp sport=2379 accept"]
    answer = World(node).ask("8.8.8.8", "node/n1:443")
    assert decided(answer) == ("allowed", "rule", "n1")
    assert [(f.code, f.severity) for f in answer.findings if f.code == "depends-on"] == [("depends-on", "info")]
    answer = World(node).ask("8.8.8.8", "node/n1:80")
    assert answer.verdict == "undetermined"
    assert "n1 host default denied: end of tier: host selects the host endpoint, none of its rules matched" in told(
        answer
    )
    (open_question,) = (finding.message for finding in answer.findings if finding.code == "depends-on")
    assert "the source port was not given" in open_question
    assert "rule handles" in open_question
    assert decided(World(node).ask("8.8.8.8:40000", "node/n1:80")) == ("denied", "end-of-tier", "n1")
    assert decided(World(node).ask("8.8.8.8:179", "node/n1:80")) == ("allowed", "failsafe", "n1")


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
