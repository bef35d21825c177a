"""Ids that are digests of names."""

from __future__ import annotations

from calico_debug.model.cluster import PolicyObject
from calico_debug.policy.rule_ids import end_of_tier_id, named, renamed_ids, rule_id
from calico_debug.redact.numbers import WELL_KNOWN_SETS, NumberMap


def test_numbers_are_others_and_the_same_each_time() -> None:
    one, other = NumberMap(bytes(32), names=True), NumberMap(bytes([1]) * 32, names=True)
    for change in (NumberMap.rule, NumberMap.ip_set):
        numbers = [change(one, number) for number in range(4, 200)]
        assert len(set(numbers)) == len(numbers)
        assert not set(numbers) & set(range(4, 200))
        assert numbers == [change(one, number) for number in range(4, 200)]
        assert not set(numbers) & {change(other, number) for number in range(4, 200)}
    assert one.rule(77) != one.ip_set(77)


def test_what_means_the_same_everywhere_stays() -> None:
    numbers = NumberMap(bytes(32), names=True)
    assert numbers.rule(0) == 0
    assert [numbers.ip_set(number) for number in WELL_KNOWN_SETS] == list(WELL_KNOWN_SETS)


def test_nothing_changes_while_names_stay() -> None:
    numbers = NumberMap(bytes(32), names=False)
    numbers.add_rules({5: 6})
    assert (numbers.rule(5), numbers.ip_set(5)) == (5, 5)


def test_ids_of_rules_follow_from_the_new_names() -> None:
    spec = {"ingress": [{"action": "Allow"}, {"action": "Deny"}]}
    before = [
        PolicyObject("NetworkPolicy", "shop", "platform.web", "platform", None, spec),
        PolicyObject("KubernetesNetworkPolicy", "shop", "web", "default", None, spec),
    ]
    after = [
        PolicyObject("NetworkPolicy", "n1", "t1.p1", "t1", None, spec),
        PolicyObject("KubernetesNetworkPolicy", "n1", "p2", "default", None, spec),
    ]
    numbers = NumberMap(bytes(32), names=True)
    numbers.add_rules(renamed_ids(zip(before, after, strict=True), [("platform", "t1")], [("kns.shop", "kns.n1")]))
    old = [rule_id(f"{letter}PI{place}|np/shop/platform.web") for letter in "ADP" for place in range(4)]
    new = named(map(numbers.rule, old), after, (), ())
    assert {(one.namespace, one.name, one.tier) for one in new.values()} == {("n1", "t1.p1", "t1")}
    assert [new[numbers.rule(number)].index for number in old] == [*range(4)] * 3
    assert numbers.rule(end_of_tier_id("platform", "egress", "deny")) == end_of_tier_id("t1", "egress", "deny")
    assert numbers.rule(rule_id("ARI0|kns.shop")) == rule_id("ARI0|kns.n1")
