"""Rules that packets met, named."""

from __future__ import annotations

import pytest

from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.engine import Engine
from calico_debug.model.observation import TracedPacket, TraceEvent
from tests.lab.demo import RECORDING

NODE = "node1"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(open_bundle(str(RECORDING)))


def named(engine: Engine, table: str, *chains: tuple[str, int], verdict: str = "drop") -> str:
    """The name of the last of these rules, met in this order."""
    events = tuple(
        TraceEvent("ip", table, chain, "rule", 1, "jump" if number < len(chains) else verdict, handle=handle)
        for number, (chain, handle) in enumerate(chains, 1)
    )
    return engine.rule_names(NODE)(TracedPacket(events, ()), events[-1])


def handle(engine: Engine, table: str, chain: str, wanted: str = "", position: int = 0) -> int:
    rules = engine.states[NODE].ruleset.rules("ip", table, chain) or ()
    return [rule.handle for rule in rules if wanted in rule.comment][position]


def test_a_rule_of_a_policy(engine: Engine) -> None:
    workload = "filter-cali-fw-cali930d9fe4cd7"
    policy = "filter-cali-po-np/client/platform.client-egress"
    text = named(
        engine, "calico", (workload, handle(engine, "calico", workload)), (policy, handle(engine, "calico", policy))
    )
    assert text.startswith("NetworkPolicy client/platform.client-egress, rule 0 (table ip calico, chain ")


def test_a_policy_met_without_its_endpoint_is_a_place(engine: Engine) -> None:
    policy = "filter-cali-po-np/client/platform.client-egress"
    assert named(engine, "calico", (policy, handle(engine, "calico", policy))).startswith("table ip calico, chain ")


def test_the_end_of_a_tier(engine: Engine) -> None:
    workload = "filter-cali-fw-cali930d9fe4cd7"
    text = named(engine, "calico", (workload, handle(engine, "calico", workload, "End of tier platform")))
    assert text.startswith("End of tier platform. Drop if no policies passed packet (table ip calico")


def test_a_rule_of_kube_proxy(engine: Engine) -> None:
    text = named(engine, "kube-proxy", ("reject-chain", handle(engine, "kube-proxy", "reject-chain")))
    assert text.startswith("kube-proxy: the service has no endpoints (table ip kube-proxy, chain reject-chain")


def test_a_rule_that_is_not_there_any_more(engine: Engine) -> None:
    text = named(engine, "calico", ("filter-FORWARD", 99999))
    assert text == (
        "table ip calico, chain filter-FORWARD, handle 99999 (no such rule was there when the rules were read)"
    )


def test_a_policy_of_a_base_chain(engine: Engine) -> None:
    event = TraceEvent("ip", "mine", "forward", "policy", 1, "drop")
    text = engine.rule_names(NODE)(TracedPacket((event,), ()), event)
    assert text == "the policy of chain forward of table ip mine"
