"""Sentences of the steps."""

from __future__ import annotations

from calico_debug.explain.evaluation import EndpointVisit, PolicyVisit, TierVisit
from calico_debug.explain.phrases import OUTSIDE_TIERS, end_of_tier, spot, undecided_tier
from calico_debug.model.explanation import REASONS, PolicyRef
from calico_debug.model.values import unknown
from calico_debug.policy.chains import chain_role


def visit(chain: str) -> EndpointVisit:
    role = chain_role(chain)
    assert role is not None
    return EndpointVisit("ip", "calico", chain, role, "forward", hypothetical=False, position=0)


POD, HOST = visit("filter-cali-tw-cali1"), visit("filter-cali-fh-eth0")
A, B, C = (
    PolicyRef("GlobalNetworkPolicy", "a"),
    PolicyRef("NetworkPolicy", "b", "ns"),
    PolicyRef("NetworkPolicy", "c", "ns"),
)


def test_the_end_of_a_tier() -> None:
    assert end_of_tier(True, [B]) == "end of tier: ns/b selects the pod, none of its rules matched"
    assert end_of_tier(False, [A]) == "end of tier: a selects the host endpoint, none of its rules matched"
    assert end_of_tier(True, [A, B, C]) == "end of tier: a, ns/b and ns/c select the pod, none of their rules matched"
    assert end_of_tier(True, []) == "end of tier: policies select the endpoint, none of their rules matched"


def test_tiers_that_decide_nothing() -> None:
    asked = [PolicyVisit("ip", "calico", "c")]
    assert undecided_tier(POD, TierVisit("t", asked, "passed")).endswith("default action is to pass")
    assert undecided_tier(POD, TierVisit("t", [], "passed")) == "no policy of the tier is enforced here"
    assert "preDNAT" in undecided_tier(visit("mangle-cali-fh-eth0"), TierVisit("t", asked))
    assert "doNotTrack" in undecided_tier(visit("raw-cali-fh-eth0"), TierVisit("t", asked))
    assert undecided_tier(visit("filter-cali-fhfw-eth0"), TierVisit("t", asked)) == "no rule matched"


def test_places() -> None:
    assert spot(4, 0x0A000001, 80) == "10.0.0.1:80"
    assert spot(4, 0x0A000001, None) == "10.0.0.1"
    assert spot(4, 0x0A000001, unknown(16, "not given")) == "10.0.0.1"
    assert spot(6, 1, 80) == "[::1]:80"


def test_reasons_are_reasons() -> None:
    assert set(OUTSIDE_TIERS) <= set(REASONS)
