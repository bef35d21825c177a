"""Kernel rules back to API rules, in the shapes of the releases."""

from __future__ import annotations

import pytest

from calico_debug.explain.rulegroups import Marks, endpoint_marks, rule_groups
from calico_debug.model.nft import Rule
from calico_debug.state.ruleset import RecordedRuleset
from tests.explain.rules import ruleset
from tests.explain.world import Tier, allow, deny, endpoint, passed

MARKS = Marks(0x10000, 0x20000)


def rules(*texts: str) -> list[Rule]:
    listing = ruleset({"ip calico": {"c": texts}}).encode()
    found = RecordedRuleset.read(listing, "test").rules("ip", "calico", "c")
    assert found is not None
    return list(found)


def test_each_verdict_is_one_group() -> None:
    written = rules(*deny("dport=1"), *allow("dport=2"), *passed("dport=3"), "log=x", *allow())
    groups = rule_groups(written, MARKS)
    assert [group.action for group in groups] == ["Deny", "Allow", "Pass", "Log", "Allow"]
    assert [len(group.rules) for group in groups] == [2, 2, 2, 1, 2]
    assert groups[0].main is written[0]
    assert [rule for group in groups for rule in group.rules] == written
    assert {group.logged_index for group in groups} == {None}


def test_flow_logs_write_the_index_down() -> None:
    written = rules(
        "dport=1 mark|80000",
        "mark&80000=80000 nflog=DPI4|gnp/x",
        "mark&80000=80000 drop",
        "mark|10000",
        "mark&10000=10000 nflog=API11|gnp/x",
        "mark&10000=10000 return",
        "mark|20000",
        "mark&20000=20000 nflog=other",
        "mark&20000=20000 return",
    )
    assert [(g.action, g.logged_index, len(g.rules)) for g in rule_groups(written, MARKS)] == [
        ("Deny", 4, 3),
        ("Allow", 11, 3),
        ("Pass", None, 3),
    ]


def test_v3_29_denies_in_one_rule() -> None:
    written = rules("dport=1 drop", "dport=2 reject", "nflog=DPI0|x drop")
    assert [(g.action, g.logged_index) for g in rule_groups(written, MARKS)] == [
        ("Deny", None),
        ("Deny", None),
        ("Deny", 0),
    ]


def test_match_blocks_belong_to_the_rule_behind_them() -> None:
    """Alternatives are collected in scratch bits, which are no verdict."""
    block = (
        "mark-300000",
        "saddr=10.0.0.0/8 mark|100000",
        "saddr=172.16.0.0/12 mark|100000",
        "dport=1 mark|200000",
        "mark&200000=0 mark-100000",
        "mark&100000=100000 mark|10000",
        "mark&10000=10000 return",
    )
    groups = rule_groups(rules(*block, *deny()), MARKS)
    assert [(group.action, len(group.rules)) for group in groups] == [("Allow", 7), ("Deny", 2)]
    assert groups[0].main is groups[0].rules[5]


def test_other_mark_bits() -> None:
    written = rules("mark|1000000", "mark&1000000=1000000 return", "mark|4000000", "mark&4000000=4000000 drop")
    assert [g.action for g in rule_groups(written, Marks(0x1000000, 0x2000000))] == ["Allow", "Deny"]
    assert [g.action for g in rule_groups(written, MARKS)] == ["Deny"], "the accept bit is another"


@pytest.mark.parametrize("texts", [(), ("continue",), ("# a comment alone",)])
def test_a_policy_without_rules(texts: tuple[str, ...]) -> None:
    assert rule_groups(rules(*texts), MARKS) == ()


def test_a_last_verdict_needs_no_return() -> None:
    assert [g.action for g in rule_groups(rules("dport=1 mark|10000"), MARKS)] == ["Allow"]


def test_the_bits_of_an_endpoint() -> None:
    (texts,) = endpoint("cali-fw-cali1", [Tier("default", ["np/shop/web"])]).values()
    assert endpoint_marks(rules(*texts)) == MARKS
    grouped = [text.replace("filter-cali-po-np/shop/web", "filter-cali-go-abc") for text in texts]
    assert endpoint_marks(rules(*grouped)) == MARKS
    (bare,) = endpoint("cali-fw-cali1", [], profile="").values()
    assert endpoint_marks(rules(*bare)) == Marks(0, 0)
    (profile,) = endpoint("cali-fw-cali1", []).values()
    assert endpoint_marks(rules(*profile)) == Marks(0x10000, 0)
