from __future__ import annotations

from typing import Any

import pytest

from calico_debug.intent.decide import FlowDecision
from calico_debug.intent.model import PolicyFlow, PolicyKey
from calico_debug.model.cluster import PolicyObject
from tests.intent.clusters import flow, host, intent, policy

ALLOW, DENY = {"action": "Allow"}, {"action": "Deny"}
EDGE = {"selector": "role == 'edge'"}


def gnp(name: str, **spec: Any) -> PolicyObject:
    return policy("GlobalNetworkPolicy", name, **{"types": ["Ingress"], **spec})


def hosts(*policies: PolicyObject, **more: Any) -> Any:
    return intent(*policies, host_endpoints=(host("h", "n2", **{"role": "edge", **more}),))


def told(decision: FlowDecision) -> tuple[str, list[tuple[str, str, str, str]]]:
    return decision.verdict, [
        (str(stage.endpoint), stage.direction, stage.traffic, stage.verdict) for stage in decision.stages
    ]


def test_both_pods_must_allow() -> None:
    made = intent(gnp("web", selector="app == 'web'", ingress=[]), gnp("db", selector="app == 'db'", ingress=[ALLOW]))
    denied = made.decide(flow("cli", "web"))
    assert told(denied) == (
        "denied",
        [("bank/cli", "egress", "normal", "allowed"), ("shop/web", "ingress", "normal", "denied")],
    )
    assert denied.decisive is denied.stages[1]
    assert made.decide(flow("cli", "db")).verdict == "allowed"


def test_a_denial_goes_before_what_is_not_determined() -> None:
    open_rule = {"action": "Allow", "destination": {"ports": [80]}}
    doubtful = gnp("cli", selector="app == 'cli'", types=["Egress"], egress=[open_rule])
    made = intent(doubtful, gnp("web", selector="app == 'web'"))
    decision = made.decide(flow("cli", "web", None))
    assert [stage.verdict for stage in decision.stages] == ["undetermined", "denied"]
    assert (decision.verdict, decision.decisive) == ("denied", decision.stages[1])
    assert made.decide(flow("cli", "db", None)).verdict == "undetermined"


def test_outside_and_nowhere() -> None:
    made = intent(gnp("web", selector="app == 'web'"))
    assert told(made.decide(flow("192.0.2.1", "web"))) == ("denied", [("shop/web", "ingress", "normal", "denied")])
    assert told(made.decide(flow("web", "192.0.2.1"))) == ("allowed", [("shop/web", "egress", "normal", "allowed")])
    assert told(made.decide(flow("192.0.2.1", "192.0.2.2"))) == ("allowed", [])


def test_a_nodes_traffic_to_its_own_pods() -> None:
    made = intent(gnp("all", ingress=[]))
    own = made.decide(flow("172.30.0.1", "web"))
    assert (own.verdict, own.decisive.reason if own.decisive else "") == ("allowed", "host-to-own-pod")
    assert made.decide(flow("172.30.0.2", "web")).verdict == "denied"


def test_a_pod_and_its_own_node() -> None:
    decision = intent().decide(flow("web", "172.30.0.1"))
    assert (decision.verdict, decision.decisive.reason if decision.decisive else "") == ("undetermined", "host-default")
    assert "DefaultEndpointToHostAction" in decision.decisive.doubts[0] if decision.decisive else False
    assert intent().decide(flow("web", "172.30.0.2")).verdict == "allowed"


def test_host_endpoints_deny_what_comes_to_their_node() -> None:
    made = hosts()
    decision = made.decide(flow("web", "172.30.0.2"))
    assert told(decision) == (
        "denied",
        [("shop/web", "egress", "normal", "allowed"), ("host endpoint h", "ingress", "normal", "denied")],
    )
    assert decision.decisive is not None
    assert decision.decisive.reason == "no-profile"
    assert decision.assumptions == ("traffic passes host endpoint h by interface eth0",)


@pytest.mark.parametrize(
    ("port", "protocol", "reason"), [(22, 6, "failsafe"), (22, 17, "no-profile"), (80, 6, "no-profile")]
)
def test_failsafe_ports(port: int, protocol: int, reason: str) -> None:
    decision = hosts().decide(flow("192.0.2.1", "172.30.0.2", port, protocol))
    assert decision.decisive is not None
    assert decision.decisive.reason == reason


def test_forwarded_traffic() -> None:
    forward = {**EDGE, "applyOnForward": True}
    assert told(hosts().decide(flow("web", "db")))[0] == "allowed"
    assert told(hosts(gnp("n", **EDGE, ingress=[DENY])).decide(flow("web", "db")))[0] == "allowed"
    denied = hosts(gnp("f", **forward, ingress=[{"action": "Deny", "protocol": "TCP"}])).decide(flow("web", "db"))
    assert told(denied) == (
        "denied",
        [
            ("shop/web", "egress", "normal", "allowed"),
            ("host endpoint h", "ingress", "forward", "denied"),
            ("shop/db", "ingress", "normal", "allowed"),
        ],
    )
    leaving = hosts(gnp("f", **forward, types=["Egress"], egress=[DENY])).decide(flow("db", "web"))
    assert told(leaving)[1][1] == ("host endpoint h", "egress", "forward", "denied")
    passed = hosts(gnp("f", **forward, ingress=[{"action": "Pass"}])).decide(flow("web", "db"))
    assert told(passed)[0] == "allowed"


def test_what_sees_the_address_that_was_asked_for() -> None:
    early = {**EDGE, "applyOnForward": True, "preDNAT": True}
    made = hosts(gnp("p", **early, ingress=[{**DENY, "protocol": "TCP", "destination": {"ports": [30080]}}]))
    base = flow("192.0.2.1", "db", 8080)
    asked = PolicyFlow(base.source, base.destination, 6, 1, 8080, None, (flow("db", "172.30.0.2").destination, 30080))
    assert told(made.decide(asked))[1][0] == ("host endpoint h", "ingress", "pre-dnat", "denied")
    assert made.decide(base).verdict == "allowed"
    # by another node, whose host endpoint does not exist
    assert told(made.decide(asked, via="n1"))[0] == "denied"
    untracked = hosts(gnp("p", **EDGE, applyOnForward=True, doNotTrack=True, ingress=[DENY]))
    assert told(untracked.decide(base))[1][0] == ("host endpoint h", "ingress", "untracked", "denied")


def test_what_is_accepted_early_is_not_asked_again() -> None:
    """Untracked and pre-DNAT policy accept for good; what nobody of them speaks of goes on."""
    for flag in ("preDNAT", "doNotTrack"):
        early = gnp("p", **EDGE, applyOnForward=True, ingress=[{**ALLOW, "protocol": "TCP"}], **{flag: True})
        made = hosts(early, gnp("n", **EDGE, applyOnForward=True, ingress=[DENY]))
        stages = told(made.decide(flow("192.0.2.1", "172.30.0.2")))
        assert (stages[0], len(stages[1])) == ("allowed", 1)
        assert made.decide(flow("192.0.2.1", "172.30.0.2", 53, 17)).verdict == "denied"
        # A pod behind the host endpoint is still asked for its own policy
        assert told(made.decide(flow("192.0.2.1", "db")))[1][-1] == ("shop/db", "ingress", "normal", "allowed")


def test_wildcards_need_no_assumption() -> None:
    made = intent(host_endpoints=(host("h", "n2", "*"),))
    assert made.decide(flow("web", "172.30.0.2")).assumptions == ()


def test_a_nodes_own_traffic() -> None:
    made = intent(gnp("out", **EDGE, types=["Egress"], egress=[DENY]), host_endpoints=(host("h", role="edge"),))
    assert told(made.decide(flow("172.30.0.2", "192.0.2.1")))[1] == [("host endpoint h", "egress", "normal", "denied")]


def test_staged_policies_enforced() -> None:
    staged = policy("StagedGlobalNetworkPolicy", "s", types=["Ingress"], ingress=[DENY])
    made = intent(staged, gnp("s", ingress=[ALLOW]))
    key = PolicyKey("StagedGlobalNetworkPolicy", "", "s")
    asked = flow("cli", "web")
    assert made.decide(asked).verdict == "allowed"
    for which in ({key}, "all"):
        decision = made.decide(asked, enforce_staged=which)
        assert decision.verdict == "denied"
        assert decision.decisive is not None
        assert decision.decisive.policy is not None
        assert str(decision.decisive.policy.key) == "GlobalNetworkPolicy s"
    assert made.decide(asked, enforce_staged={key._replace(name="other")}).verdict == "allowed"
    assert made.with_staged({key}) is made.with_staged({key})


def test_doubt_of_the_source() -> None:
    made = intent(gnp("web", selector="app == 'web'", ingress=[{**ALLOW, "source": {"nets": ["192.0.2.0/24"]}}]))
    base = flow("192.0.2.1", "web")
    assert made.decide(base).verdict == "allowed"
    doubtful = PolicyFlow(base.source, base.destination, 6, 1, 80, source_doubt="may be masqueraded")
    decision = made.decide(doubtful)
    assert decision.verdict == "undetermined"
    assert decision.decisive is not None
    assert decision.decisive.doubts == ("may be masqueraded",)


def test_both_families() -> None:
    rule = {**ALLOW, "source": {"nets": ["fd00::/64"]}}
    made = intent(gnp("web", selector="app == 'web'", ingress=[rule]))
    assert made.decide(flow("fd00::3", "fd00::1")).verdict == "allowed"
    assert made.decide(flow("cli", "web")).verdict == "denied"


def test_profiles_of_host_endpoints() -> None:
    allowing = host("h")
    object.__setattr__(allowing, "profiles", ("projectcalico-default-allow",))
    assert intent(host_endpoints=(allowing,)).decide(flow("web", "172.30.0.2")).verdict == "allowed"
    object.__setattr__(allowing, "profiles", ("mine",))
    decision = intent(host_endpoints=(allowing,)).decide(flow("web", "172.30.0.2"))
    assert decision.verdict == "undetermined"
    assert decision.decisive is not None
    assert decision.decisive.doubts == ("what profile mine allows is not in evidence",)


def test_lists_that_could_not_be_read() -> None:
    problem = "pods may not be listed"
    decision = intent(problems=(problem,)).decide(flow("cli", "web"))
    assert decision.assumptions == (f"there is nothing that matters in what could not be read: {problem}",)
