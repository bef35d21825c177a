from __future__ import annotations

from typing import Any

from calico_debug.cli.render.policies import LONGEST, lines

HITS = {"node": "n1", "count": 4, "unit": "packets", "rules": [{"index": 0, "action": "Allow", "count": 4}]}
POLICY = {"kind": "NetworkPolicy", "namespace": "shop", "name": "web", "tier": "default"}


def pod(*policies: dict[str, Any], **tier: Any) -> dict[str, Any]:
    tiers = [{"tier": "default", "order": 5, "defaultAction": "Deny", "policies": list(policies), **tier}]
    return {
        "kind": "PodPolicies",
        "pod": {"namespace": "shop", "name": "web"},
        "node": "n1",
        "ingress": {"tiers": tiers, "profiles": ["kns.shop"]},
        "egress": {"tiers": [], "profiles": ["kns.shop"]},
    }


def test_a_pod() -> None:
    rules = [{"index": 0, "text": "Allow TCP"}, {"index": 1, "text": "Deny"}]
    policy = {**POLICY, "order": 2, "rules": rules, "hits": HITS}
    assert list(lines(pod(policy), wide=False)) == [
        "pod shop/web on n1",
        "egress",
        "  no policy applies",
        "  where every tier passes: profiles kns.shop",
        "ingress",
        "  tier default, order 5, Deny at its end",
        "    NetworkPolicy shop/web  order 2  4 on n1",
        "  where every tier passes: profiles kns.shop",
        "counts are packets",
    ]
    wide = list(lines(pod(policy), wide=True))
    assert [line.strip() for line in wide if "rule" in line] == ["rule 0 (Allow TCP): 4", "rule 1 (Deny)"]


def test_marks() -> None:
    staged = {**POLICY, "stagedAction": "Set", "rules": []}
    doubtful = {**POLICY, "certain": False, "doubt": "no labels", "rules": []}
    made = list(lines(pod(staged, doubtful, onlyStaged=True), wide=True))
    assert "  tier default, order 5, passes, as all is staged" in made
    assert "    NetworkPolicy shop/web (staged: Set)  no order" in made
    assert "    NetworkPolicy shop/web (perhaps)      no order" in made
    assert "        not certain: no labels" in made


def endpoints(number: int) -> dict[str, Any]:
    found = [{"kind": "Pod", "namespace": "shop", "name": f"p{n}", "node": "n1"} for n in range(number)]
    return {"kind": "PolicyEndpoints", "policy": POLICY, "types": ["ingress"], "selector": "all()", "endpoints": found}


def test_long_lists_are_cut_unless_wide() -> None:
    document = {**endpoints(LONGEST + 5), "hits": []}
    short = list(lines(document, wide=False))
    assert short[-1] == "  and 5 more, which -o wide shows"
    assert len(list(lines(document, wide=True))) == LONGEST + 7


def test_nothing_selected_and_counts() -> None:
    made = list(lines({**endpoints(0), "hits": [{**HITS, "direction": "ingress"}]}, wide=True))
    assert made == [
        "NetworkPolicy shop/web, tier default, ingress",
        "  selector all()",
        "  selects no endpoint",
        "  n1  ingress  4",
        "      rule 0 (Allow): 4",
        "counts are packets",
    ]


def test_lists_of_policies() -> None:
    policies = [{**POLICY, "types": ["ingress", "egress"], "endpoints": 0, "perhaps": 3, "problem": "odd"}]
    document = {"kind": "PolicyList", "tiers": [{"tier": "t", "defaultAction": "Pass", "policies": policies}]}
    assert list(lines(document, wide=True)) == [
        "tier t, Pass at its end",
        "  NetworkPolicy shop/web  no order  ingress and egress  0 endpoints, perhaps 3 more",
        "      not understood: odd",
    ]
    assert list(lines({"kind": "PolicyList", "tiers": []}, wide=False)) == ["no policies"]
