"""What the kernel is told to look for, from a recorded cluster."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from calico_debug.capture.aim import Aim, find_aim
from calico_debug.errors import EvidenceError, UsageError
from calico_debug.explain.engine import Engine
from calico_debug.model.explanation import Decision, FlowExplanation, PolicyRef
from calico_debug.model.packet_event import everything_of
from calico_debug.model.subject import Subject
from tests.recordings import recordings

POD = "client/client-5f8b"
ADDRESS = ip_address("10.244.1.30")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(recordings("3.32.1-nft")[0].source)


def aim(engine: Engine, subject: Subject, node: str = "node1") -> Aim:
    return find_aim(engine, subject, node)


def test_all_drops(engine: Engine) -> None:
    assert aim(engine, Subject(drops=True)) == Aim(None, "all drops")


def test_a_flow_with_its_prediction(engine: Engine) -> None:
    found = aim(engine, Subject(POD, "svc/management-ui/management-ui"))
    assert found.explanation is not None
    assert found.explanation.verdict == "denied"
    assert found.ends is not None
    assert [str(one.destination) for one in found.ends] == ["10.96.20.3", "10.244.2.32"]
    assert found.text == "tcp 10.244.1.30 -> 10.96.20.3:80 or 10.244.2.32:9001"


def test_a_prediction_made_elsewhere(engine: Engine) -> None:
    """As over all nodes of the flow, where ``engine`` has one of them."""
    flow = Subject(POD, "svc/management-ui/management-ui")
    known = aim(engine, flow).explanation
    assert known is not None
    allowed = replace(known, verdict="allowed")
    assert find_aim(engine, flow, "node1", lambda: allowed).explanation is allowed

    def fails() -> FlowExplanation:
        raise EvidenceError("no agent answers")

    found = find_aim(engine, flow, "node1", fails)
    assert (found.explanation, found.notes) == (None, ("no prediction: no agent answers",))
    assert found.ends is not None
    assert [str(one.destination) for one in found.ends] == ["10.96.20.3"]


@pytest.mark.parametrize("name", [POD, f"pod/{POD}", str(ADDRESS)])
def test_a_pod(engine: Engine, name: str) -> None:
    found = aim(engine, Subject(pod=name))
    assert found.ends is not None
    assert everything_of(ADDRESS) in found.ends
    assert found.text.startswith(f"pod {POD} (10.244.1.30")
    assert found.notes == ()
    dropped = aim(engine, Subject(pod=name, drops=True))
    assert (dropped.ends, dropped.text) == (found.ends, f"drops of {found.text}")


def test_a_pod_of_another_node(engine: Engine) -> None:
    (note,) = aim(engine, Subject(pod=POD), "node2").notes
    assert note == f"{POD} is on node1: of its packets only those are seen that come by node2"


def test_a_name_in_a_namespace(engine: Engine) -> None:
    assert aim(engine, Subject(pod="client-5f8b", namespace="client")).ends == aim(engine, Subject(pod=POD)).ends


@pytest.mark.parametrize("name", ["svc/stars/backend", "node/node1", "external", "nobody/nobody"])
def test_what_is_no_pod(engine: Engine, name: str) -> None:
    with pytest.raises(UsageError):
        aim(engine, Subject(pod=name))


@pytest.mark.parametrize(
    "name",
    [
        "client/platform.client-egress",
        "networkpolicy/client/platform.client-egress",
        "NetworkPolicy/client/client-egress",
    ],
)
def test_a_policy(engine: Engine, name: str) -> None:
    found = aim(engine, Subject(policy=name))
    assert found.text == "NetworkPolicy client/platform.client-egress: client/client-5f8b on node1"
    assert found.ends is not None
    assert everything_of(ADDRESS) in found.ends
    assert found.policy is not None
    assert (found.policy.tier, found.policy.types) == ("platform", {"egress"})
    elsewhere = aim(engine, Subject(policy=name), "node2")
    assert elsewhere.ends == ()
    assert elsewhere.notes == ("NetworkPolicy client/platform.client-egress selects nothing on node2 now",)


@pytest.mark.parametrize("name", ["nothing", "globalnetworkpolicy/client/platform.client-egress", "client/"])
def test_no_such_policy(engine: Engine, name: str) -> None:
    with pytest.raises(UsageError, match="no policy is named"):
        aim(engine, Subject(policy=name))


def test_what_a_policy_decides(engine: Engine) -> None:
    policy = aim(engine, Subject(policy="client/platform.client-egress")).policy
    denied = aim(engine, Subject(POD, "svc/management-ui/management-ui")).explanation
    assert policy is not None
    assert denied is not None
    assert policy.decides(denied) == "decided at the end of the captured policy's tier"
    assert policy.decides(replace(denied, source=replace(denied.source, ip="10.244.1.31"))) == ""
    assert policy.decides(replace(denied, decision=None)) == ""
    ref = PolicyRef("NetworkPolicy", "platform.client-egress", "client")
    decision = Decision("node1", "nftables", "rule", "egress", "platform", ref)
    assert policy.decides(replace(denied, decision=decision)) == "decided by the captured policy"
    other = replace(decision, policy=replace(ref, kind="GlobalNetworkPolicy"))
    assert policy.decides(replace(denied, decision=other)) == ""
