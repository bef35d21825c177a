from __future__ import annotations

from collections.abc import Sequence

import pytest

from calico_debug.intent.applies import Applicability, AppliedTier
from calico_debug.intent.model import Direction, PolicyKey
from calico_debug.model.cluster import PolicyObject, Tier
from tests.intent.clusters import PODS, TIERS, cluster, host, policy

TYPES = {"types": ["Ingress", "Egress"]}


def gnp(name: str, tier: str = "default", order: float | None = None, **spec: object) -> PolicyObject:
    return policy("GlobalNetworkPolicy", name, tier=tier, order=order, **{**TYPES, **spec})


def names(tiers: Sequence[AppliedTier]) -> list[tuple[str, list[str]]]:
    return [(tier.name, [applied.policy.key.name for applied in tier.policies]) for tier in tiers]


def of(
    applicability: Applicability, name: str = "web", direction: Direction = "ingress"
) -> list[tuple[str, list[str]]]:
    found = next(one for one in applicability.endpoints if one.name == name)
    return names(applicability.tiers_of(found, direction))


def test_order_of_tiers_and_policies() -> None:
    applicability = Applicability(
        cluster(
            gnp("late"),
            gnp("second", order=2),
            gnp("first", order=1.5),
            gnp("x", "passing"),
            gnp("y", "early"),
            gnp("unmade", "nobody-made-this"),
        )
    )
    assert of(applicability) == [
        ("early", ["y"]),
        ("passing", ["x"]),
        ("default", ["first", "second", "late"]),
        ("nobody-made-this", ["unmade"]),
    ]
    last = applicability.tiers_of(applicability.endpoints[0], "ingress")[-1]
    assert (last.order, last.default_action) == (None, "Deny")


def test_ties_are_broken_by_name_then_namespace_then_kind() -> None:
    knp = policy("KubernetesNetworkPolicy", "b", "shop", podSelector={}, policyTypes=["Ingress"])
    np = policy("NetworkPolicy", "b", "shop", order=1000, **TYPES)
    staged = policy("StagedNetworkPolicy", "b", "shop", order=1000, **TYPES)
    applicability = Applicability(
        cluster(staged, np, knp, gnp("c", order=1000), gnp("b", order=1000), gnp("a", order=1000))
    )
    (tier,) = applicability.tiers_of(applicability.endpoints[0], "ingress")
    assert [(applied.policy.key.name, applied.policy.key.kind) for applied in tier.policies] == [
        ("a", "GlobalNetworkPolicy"),
        ("b", "GlobalNetworkPolicy"),
        ("b", "KubernetesNetworkPolicy"),
        ("b", "NetworkPolicy"),
        ("b", "StagedNetworkPolicy"),
        ("c", "GlobalNetworkPolicy"),
    ]


def test_equal_tiers_are_sorted_by_name() -> None:
    tiers = (Tier("b", 5.0), Tier("a", 5.0), Tier("none", None), Tier("default", 1e6))
    applicability = Applicability(cluster(gnp("p", "b"), gnp("q", "a"), gnp("r", "none"), gnp("s"), tiers=tiers))
    assert [name for name, _ in of(applicability)] == ["a", "b", "default", "none"]


def test_directions_and_selection() -> None:
    applicability = Applicability(
        cluster(
            gnp("in", selector="app == 'web'", types=["Ingress"]),
            policy("NetworkPolicy", "own", "shop", types=["Egress"]),
            gnp("team", namespaceSelector="team == 'b'"),
            gnp("account", serviceAccountSelector="projectcalico.org/name == 'web'"),
        )
    )
    assert of(applicability) == [("default", ["account", "in"])]
    assert of(applicability, direction="egress") == [("default", ["account", "own"])]
    assert of(applicability, "cli") == [("default", ["team"])]
    selected = {p.key.name: [e.name for e, _ in applicability.selected_by(p)] for p in applicability.policies}
    assert selected == {"in": ["web"], "own": ["web", "db"], "team": ["cli"], "account": ["web"]}


def test_host_endpoints_have_policies_by_traffic() -> None:
    flags = {"applyOnForward": True, "types": ["Ingress"], "selector": "role == 'edge'"}
    applicability = Applicability(
        cluster(
            gnp("normal", selector="role == 'edge'"),
            gnp("forward", **flags),
            gnp("early", **{**flags, "preDNAT": True}),
            gnp("raw", **{**flags, "doNotTrack": True}),
            host_endpoints=(host("h", role="edge"),),
        )
    )
    endpoint = applicability.host_endpoint("h")
    assert endpoint is not None
    found = {traffic: names(applicability.tiers_of(endpoint, "ingress", traffic)) for traffic in TRAFFIC}
    assert found == {
        "normal": [("default", ["forward", "normal"])],
        "forward": [("default", ["forward"])],
        "pre-dnat": [("default", ["early"])],
        "untracked": [("default", ["raw"])],
    }


TRAFFIC = ("normal", "forward", "pre-dnat", "untracked")


def test_labels_that_evidence_does_not_have() -> None:
    policies = (
        gnp("team", namespaceSelector="team == 'a'"),
        gnp("name", namespaceSelector="projectcalico.org/name == 'shop'"),
    )
    applicability = Applicability(cluster(*policies, namespaces={}))
    (tier,) = applicability.tiers_of(applicability.endpoints[0], "ingress")
    doubts = {applied.policy.key.name: applied.doubt for applied in tier.policies}
    assert doubts == {"name": "", "team": "it selects by labels of namespaces, which evidence does not have"}
    team = applicability.policy(PolicyKey("GlobalNetworkPolicy", "", "team"))
    assert team is not None
    assert [certain for _, certain in applicability.selected_by(team)] == [False] * len(PODS)


def test_policies_that_are_not_understood_may_apply() -> None:
    applicability = Applicability(cluster(gnp("broken", selector="((")))
    (tier,) = applicability.tiers_of(applicability.endpoints[0], "ingress")
    assert not tier.policies[0].certain
    assert "selector" in tier.policies[0].doubt


def test_tiers_that_evidence_does_not_have() -> None:
    applicability = Applicability(cluster(gnp("p", "mine"), gnp("q"), tiers=()))
    doubts = [tier.policies[0].doubt for tier in applicability.tiers_of(applicability.endpoints[0], "ingress")]
    assert doubts == ["", "evidence does not have tier mine, so its place among the tiers is not known"]


def test_classes() -> None:
    pods = applicability_classes(cluster(gnp("p", selector="app in {'web', 'db'}")))
    assert pods == 3
    assert applicability_classes(cluster(gnp("p", selector="has(other)"))) == 1


def applicability_classes(given: object) -> int:
    applicability = Applicability(given)  # type: ignore[arg-type]
    return len({applicability.class_of(one) for one in applicability.endpoints})


STAGED = policy("StagedGlobalNetworkPolicy", "p", tier="early", order=3, selector="app == 'db'", **TYPES)
KEY = PolicyKey("StagedGlobalNetworkPolicy", "", "p")


@pytest.mark.parametrize("which", [{KEY}, "all"])
def test_staged_policies_enforced(which: set[PolicyKey]) -> None:
    before = Applicability(cluster(gnp("p"), STAGED))
    assert of(before, "db") == [("early", ["p"]), ("default", ["p"])]
    assert before.tiers_of(before.endpoints[1], "ingress")[0].enforced == ()
    after = Applicability(cluster(gnp("p"), STAGED), which)
    assert of(after, "db") == [("early", ["p"])]
    assert of(after, "web") == []
    assert [str(one.key) for one in after.policies] == ["GlobalNetworkPolicy p"]


@pytest.mark.parametrize(("action", "left"), [("Delete", ["StagedGlobalNetworkPolicy p"]), ("Ignore", None)])
def test_staged_actions(action: str, left: list[str] | None) -> None:
    staged = policy("StagedGlobalNetworkPolicy", "p", stagedAction=action)
    both = ["GlobalNetworkPolicy p", "StagedGlobalNetworkPolicy p"]
    assert [str(one.key) for one in Applicability(cluster(gnp("p"), staged)).policies] == both
    assert [str(one.key) for one in Applicability(cluster(gnp("p"), staged), {KEY}).policies] == (left or both)


def test_staged_policies_of_other_names_stay_staged() -> None:
    after = Applicability(cluster(STAGED), {PolicyKey("StagedGlobalNetworkPolicy", "", "other")})
    assert [one.staged for one in after.policies] == [True]


def test_tiers_of_evidence_go_before_those_built_in() -> None:
    own = (*TIERS, Tier("kube-admin", 5.0, "Deny"))
    applicability = Applicability(cluster(gnp("a", "early"), gnp("b", "kube-admin"), tiers=own))
    assert [name for name, _ in of(applicability)] == ["kube-admin", "early"]
