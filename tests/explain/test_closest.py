"""The rule that came closest, and what kept it from matching."""

from __future__ import annotations

from typing import Any

import pytest

from tests.explain.world import Node, Tier, World, allow, deny, endpoint, objects, policy, policy_object


def closest(*rules: Any, spec: list[Any] | None = None, to: str = "12:80", protocol: str = "tcp") -> tuple[str, Any]:
    """The words of the step "closest" for a flow that met these rules, and the rule it names."""
    chains = {**endpoint("cali-tw-cali2", [Tier("t", ["gnp/t.x"])]), **policy("gnp", "t.x", "ingress", *rules)}
    nodes = [Node(1, chains=chains)]
    given = [policy_object("t.x", "t", ingress=spec)] if spec is not None else []
    cluster = objects(nodes, globalnetworkpolicies_crd_projectcalico_org=given)
    answer = World(*nodes, cluster=cluster).ask("11:40000" if protocol == "tcp" else "11", to, protocol)
    assert answer.decision is not None
    assert answer.decision.reason == "end-of-tier"
    step = next((step for step in answer.steps if step.action == "closest"), None)
    return (step.detail, step.rule) if step is not None else ("", None)


PORTS = [{"action": "Allow", "protocol": "TCP", "destination": {"ports": [443]}}]


def test_a_port_in_the_words_of_the_object() -> None:
    detail, rule = closest(allow("protocol=tcp dport=443"), spec=PORTS)
    assert detail == "rule 0 (Allow TCP to port 443): destination port 80 is not 443"
    assert (rule.action, rule.index) == ("Allow", 0)


def test_without_the_object_the_kernels_rule_is_named() -> None:
    detail, rule = closest(deny("dport=1"), allow("protocol=tcp dport=443"))
    assert detail == "rule 1 as programmed (Allow): destination port 80 is not 443"
    assert rule.index is None


def test_the_fewest_failures_win_and_the_first_of_equals() -> None:
    rules = (
        allow("protocol=tcp saddr=10.9.0.0/16 dport=443"),
        allow("protocol=tcp dport=444"),
        allow("protocol=tcp dport=445"),
    )
    assert closest(*rules)[0].startswith("rule 1 as programmed")


def test_only_rules_that_allow_are_close() -> None:
    assert closest(deny("dport=443"), ("log=x dport=80",)) == ("", None)
    assert closest() == ("", None)


@pytest.mark.parametrize(
    ("match", "why"),
    [
        ("protocol=udp dport=443", "protocol tcp is not udp"),
        ("saddr=10.9.0.0/16", "source 10.244.1.1 (shop/pod11) is not in 10.9.0.0/16"),
        ("daddr=10.9.0.0/16", "destination 10.244.1.2 (shop/pod12) is not in 10.9.0.0/16"),
        ("protocol=tcp sport=1", "source port 40000 is not 1"),
        ("iif=eth0", "a condition beyond addresses and ports does not hold"),
        (
            "saddr=10.9.0.0/16 protocol=tcp dport=1",
            "source 10.244.1.1 (shop/pod11) is not in 10.9.0.0/16; destination port 80 is not 1",
        ),
    ],
)
def test_what_failed(match: str, why: str) -> None:
    detail = closest(allow(match))[0]
    assert detail.lower().removeprefix("rule 0 as programmed (allow): ") == why.lower()


def test_icmp() -> None:
    detail = closest(allow("protocol=icmp icmp=echo-reply"), to="12", protocol="icmp")[0]
    assert detail == "rule 0 as programmed (Allow): ICMP type 8 code 0 is not type 0"
    assert "protocol" in closest(allow("protocol=icmp icmp=echo-reply"))[0], "one failure, not two"
