"""Policies that select nothing, and policies that only log."""

from __future__ import annotations

from typing import Any

import pytest

from calico_debug.doctor.examine import Report
from tests.doctor.patients import codes, report, seen, why
from tests.explain.world import Node, objects, policy_object

ONE = Node(1, pods=[1])
LOG, ALLOW = {"action": "Log"}, {"action": "Allow", "protocol": "TCP"}
TIERS = [
    {"metadata": {"name": "default"}, "spec": {"defaultAction": "Deny"}},
    {"metadata": {"name": "soft"}, "spec": {"defaultAction": "Pass", "order": 5}},
]
HOST = {"metadata": {"name": "h", "labels": {"kind": "node"}}, "spec": {"node": "n1", "interfaceName": "*"}}


def found(*policies: Any, staged: bool = False, hosts: bool = True, **more: Any) -> Report:
    kind = "stagedglobalnetworkpolicies" if staged else "globalnetworkpolicies"
    lists = {f"{kind}_crd_projectcalico_org": list(policies), "tiers_crd_projectcalico_org": TIERS, **more}
    if hosts:
        lists["hostendpoints_crd_projectcalico_org"] = [HOST]
    return report(ONE, cluster=objects([ONE], **lists))


def policy(name: str = "p", selector: str = "all()", rules: Any = (LOG,), tier: str = "default", **more: Any) -> Any:
    return policy_object(name, tier, selector=selector, ingress=list(rules), types=["Ingress"], **more)


def test_a_selector_that_nothing_has() -> None:
    made = found(policy(selector="app == 'nobody'"))
    assert codes(made) == [("warning", "policy-selects-nothing")]
    assert seen(made, "policy-selects-nothing") == ["GlobalNetworkPolicy p selects none of 1 pods and 1 host endpoints"]


@pytest.mark.parametrize("selector", ["all()", "kind == 'node'", "projectcalico.org/namespace == 'shop'"])
def test_selectors_that_something_has(selector: str) -> None:
    assert codes(found(policy(selector=selector, rules=[ALLOW]))) == []


def test_what_is_staged_or_may_select_hosts_that_are_not_known_is_noted() -> None:
    assert codes(found(policy(selector="app == 'nobody'"), staged=True)) == [("info", "policy-selects-nothing")]
    made = found(policy(selector="app == 'nobody'"), hosts=False)
    assert codes(made) == [("info", "policy-selects-nothing")]
    assert "host endpoints are not in evidence" in seen(made, "policy-selects-nothing")[0]


def test_a_policy_before_translation_is_for_hosts_alone() -> None:
    made = found(
        policy(selector="projectcalico.org/namespace == 'shop'", preDNAT=True, applyOnForward=True, rules=[ALLOW])
    )
    assert codes(made) == [("warning", "policy-selects-nothing")]


def test_a_selector_that_is_not_understood() -> None:
    made = found(policy(selector="app ~ 1"))
    assert codes(made) == []
    assert "what GlobalNetworkPolicy p selects" in why(made, "selection")[0]


def test_a_policy_that_only_logs() -> None:
    made = found(policy(), hosts=True)
    assert codes(made) == [("warning", "policy-log-only")]
    assert seen(made, "policy-log-only")[0].startswith(
        "GlobalNetworkPolicy p, ingress: its rules only log, and tier default has no other for "
    )


@pytest.mark.parametrize(
    "policies",
    [
        [policy(rules=[LOG, ALLOW])],
        [policy(rules=[LOG, {"action": "Pass"}])],
        [policy(tier="soft")],  # the end of the tier passes
        [policy(), policy("q", rules=[ALLOW])],  # another policy of the tier allows something
        [policy(rules=[])],  # meant to deny
    ],
)
def test_policies_that_do_not_only_log(policies: list[Any]) -> None:
    assert codes(found(*policies)) == []


def test_without_pods_nothing_is_judged() -> None:
    cluster = objects([ONE], globalnetworkpolicies_crd_projectcalico_org=[policy()])
    made = report(ONE, cluster={name: text for name, text in cluster.items() if name != "pods.json"})
    assert codes(made) == []
    assert why(made, "selection") == ["what policies select is not known: record cluster/pods.json"]
