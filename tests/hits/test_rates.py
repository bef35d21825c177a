"""What counters did between two readings."""

from __future__ import annotations

from calico_debug.hits.rates import ORDERS, document, ordered, rates, reading
from calico_debug.metrics.families import DROPS, INFO, RULE_PACKETS

RULE = {
    "dataplane": "nftables",
    "direction": "ingress",
    "tier": "default",
    "kind": "NetworkPolicy",
    "namespace": "red",
    "policy": "web",
    "rule": "0",
    "action": "Deny",
}
DROP = {"dataplane": "nftables", "direction": "egress", "reason": "rpf", "interface_kind": "workload"}


def samples(rule: float, drop: float) -> list[tuple[str, dict[str, str], float]]:
    return [(RULE_PACKETS.name, RULE, rule), (DROPS.name, DROP, drop), (INFO.name, {"version": "1"}, 1.0)]


def test_rates() -> None:
    first = reading(10.0, samples(5, 7))
    (rule,), (drop,) = rates(None, first)
    assert (rule.total, rule.per_second, drop.per_second) == (5, None, None)
    (rule,), (drop,) = rates(first, reading(12.0, samples(9, 7)))
    assert (rule.total, rule.grown, rule.per_second) == (9, 4, 2.0)
    assert (rule.name, rule.denied) == ("NetworkPolicy red/web, rule 0 (Deny) ingress", True)
    assert (drop.name, drop.per_second) == ("rpf egress workload", 0.0)


def test_a_counter_that_went_back_or_is_new() -> None:
    first = reading(10.0, samples(5, 7))
    (rule,), _ = rates(first, reading(11.0, samples(2, 7)))
    assert rule.per_second == 2.0
    (rule,), _ = rates(reading(10.0, ()), reading(11.0, samples(400, 7)))
    assert rule.per_second == 0.0
    assert rates(first, reading(10.0, samples(9, 9)))[0][0].per_second is None


def test_orders_and_documents() -> None:
    (rule,), (drop,) = rates(reading(0.0, samples(5, 700)), reading(1.0, samples(9, 700)))
    first = [[one.name[0] for one in ordered([drop, rule], order)] for order in ORDERS]
    assert first == [["N", "r"], ["r", "N"], ["N", "r"]]
    assert document(drop) == {"reason": "rpf egress workload", "total": 700, "grown": 0, "perSecond": 0}
    assert document(rule)["policy"] == "web"
