"""The document of an endpoint's policy."""

from __future__ import annotations

from calico_debug.explain.listing.policy_view import (
    BPF_UNIT,
    EndpointView,
    PolicyView,
    RuleView,
    SetUse,
    TierView,
)
from calico_debug.model.explanation import Finding, PolicyRef

RULE = RuleView(
    "Allow", 2, "Allow TCP", "protocol tcp", 5, "00000000000000ff", (7, 8), (SetUse("source", "s", ("a",)),)
)
POLICY = PolicyView(PolicyRef("NetworkPolicy", "web", "shop"), (RULE,), "cali-pi-x", "cali-gi-y")


def test_what_is_not_known_is_left_out_and_what_is_not_counted_is_null() -> None:
    assert RuleView("Deny").to_dict() == {"action": "Deny", "hits": None}
    assert RuleView("Deny", absent="nothing gets to it").to_dict()["absent"] == "nothing gets to it"
    assert SetUse("source", "s").to_dict() == {"side": "source", "set": "s"}
    assert SetUse("source", "s", ()).to_dict() == {"side": "source", "set": "s", "members": []}
    assert PolicyView(PolicyRef("Profile", "kns.a")).to_dict() == {
        "policy": {"kind": "Profile", "name": "kns.a"},
        "rules": [],
    }


def test_everything_that_is_known_is_told() -> None:
    view = EndpointView(
        "n1",
        "ebpf",
        "cali1",
        "pod",
        "egress",
        4,
        "program 7",
        BPF_UNIT,
        "stage",
        ("shop", "a"),
        (TierView("default", (POLICY,), RuleView("Deny", hits=1)),),
        end=RuleView("Deny"),
        findings=(Finding("c", "warning", "m"),),
        problem="why",
    )
    assert view.to_dict() == {
        "apiVersion": "calico-debug/v1",
        "kind": "EndpointPolicy",
        "node": "n1",
        "dataplane": "ebpf",
        "endpoint": "pod",
        "interface": "cali1",
        "pod": {"namespace": "shop", "name": "a"},
        "direction": "egress",
        "ipVersion": 4,
        "stage": "stage",
        "place": "program 7",
        "problem": "why",
        "hitUnit": BPF_UNIT,
        "tiers": [
            {
                "tier": "default",
                "policies": [
                    {
                        "policy": {"kind": "NetworkPolicy", "namespace": "shop", "name": "web"},
                        "chain": "cali-pi-x",
                        "group": "cali-gi-y",
                        "rules": [
                            {
                                "index": 2,
                                "action": "Allow",
                                "hits": 5,
                                "text": "Allow TCP",
                                "programmed": "protocol tcp",
                                "ruleId": "00000000000000ff",
                                "handles": [7, 8],
                                "ipSets": [{"side": "source", "set": "s", "members": ["a"]}],
                            }
                        ],
                    }
                ],
                "end": {"action": "Deny", "hits": 1},
            }
        ],
        "profiles": [],
        "end": {"action": "Deny", "hits": None},
        "findings": [{"code": "c", "severity": "warning", "message": "m"}],
    }
    assert list(view.policies) == [POLICY]
