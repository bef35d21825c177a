"""The objects that did it, and that nothing is blamed on objects that did not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from calico_debug.diff import culprits
from calico_debug.diff.changes import changes
from calico_debug.diff.culprits import Culprits
from calico_debug.diff.model import Answer, Cause, FlowText
from calico_debug.matrix.model import Reason
from calico_debug.model.cluster import Cluster
from calico_debug.model.explanation import Decision
from calico_debug.state.cluster import ClusterState
from calico_debug.state.held import HeldCluster
from tests.evidence.memory import MemorySource
from tests.intent.clusters import NAMESPACES, PODS, cluster, pod, policy

FLOW = FlowText("pod/shop/web", "pod/shop/db:80", "tcp")
OTHER = FlowText("pod/bank/cli", "pod/shop/db:80", "tcp")
ALLOWED, DENIED = (Answer(Reason(v, (Decision("", "", "rule", "ingress"),)), "nftables") for v in ("allowed", "denied"))


def deny(name: str, order: float = 1, **more: Any) -> Any:
    return policy(
        "GlobalNetworkPolicy",
        name,
        **{"types": ["Ingress"], "selector": "app == 'db'", "ingress": [{"action": "Deny"}], "order": order, **more},
    )


def between(before: Cluster, after: Cluster) -> Culprits:
    like = ClusterState(MemorySource({}))
    states = HeldCluster(before, like), HeldCluster(after, like)
    return Culprits(*states, changes(before, after))


def blamed(cause: Cause) -> list[list[str]]:
    assert cause.kind == "objects", cause
    return [[str(change) for change in some] for some in cause.objects]


def test_one_of_many() -> None:
    noise = [deny(f"noise-{number}", selector="app == 'none'") for number in range(30)]
    found = between(cluster(), cluster(*noise[:15], deny("lock"), *noise[15:]))
    assert blamed(found.cause(FLOW, ALLOWED, DENIED)) == [["added GlobalNetworkPolicy lock"]]


def test_what_was_taken_away() -> None:
    found = between(cluster(deny("lock"), deny("noise", selector="app == 'none'")), cluster())
    assert blamed(found.cause(FLOW, DENIED, ALLOWED)) == [["removed GlobalNetworkPolicy lock"]]


def test_two_together() -> None:
    """A label that a new policy selects by: neither does it alone."""
    locked = (PODS[0], pod("shop/db", 2, "n2", app="db", locked="yes"), PODS[2])
    found = between(cluster(), cluster(deny("lock", selector="locked == 'yes'"), pods=locked))
    assert blamed(found.cause(FLOW, ALLOWED, DENIED)) == [
        ["added GlobalNetworkPolicy lock", "changed Pod shop/db (labels locked)"]
    ]


def test_each_does_it_alone() -> None:
    found = between(cluster(), cluster(deny("one"), deny("two", 2), deny("noise", selector="app == 'none'")))
    assert sorted(blamed(found.cause(FLOW, ALLOWED, DENIED))) == [
        ["added GlobalNetworkPolicy one"],
        ["added GlobalNetworkPolicy two"],
    ]


def test_other_flows_have_other_culprits() -> None:
    """With the same answers before and after, so nothing can be taken over from the first flow unseen."""
    web = [{"action": "Deny", "source": {"selector": "app == 'web'"}}]
    bank = [{"action": "Deny", "source": {"selector": "app == 'cli'"}}]
    new = [
        deny("web", ingress=[*web, {"action": "Allow"}]),
        deny("early.bank", tier="early", ingress=[*bank, {"action": "Pass"}]),
    ]
    found = between(cluster(), cluster(*new))
    assert blamed(found.cause(FLOW, ALLOWED, DENIED)) == [["added GlobalNetworkPolicy web"]]
    assert blamed(found.cause(OTHER, ALLOWED, DENIED)) == [["added GlobalNetworkPolicy early.bank"]]
    assert blamed(found.cause(FLOW, ALLOWED, DENIED)) == [["added GlobalNetworkPolicy web"]]


def test_labels_of_a_namespace() -> None:
    rule = [{"action": "Deny", "source": {"namespaceSelector": "team == 'a'"}}]
    before = cluster(deny("teams", ingress=[*rule, {"action": "Allow"}]))
    after = replace(before, namespaces={**NAMESPACES, "bank": {"team": "a"}})
    assert blamed(between(before, after).cause(OTHER, ALLOWED, DENIED)) == [["changed Namespace bank (labels team)"]]


def test_who_decides() -> None:
    before, after = cluster(deny("old")), cluster(deny("old"), deny("earlier", 0))
    found = between(before, after)
    cause = found.cause(FLOW, DENIED, replace(DENIED, reason=Reason("denied", (Decision("", "", "end-of-tier"),))))
    assert blamed(cause) == [["added GlobalNetworkPolicy earlier"]]


def test_objects_are_not_blamed_for_what_nodes_do() -> None:
    noise = between(cluster(), cluster(deny("noise", selector="app == 'none'")))
    assert noise.cause(FLOW, ALLOWED, DENIED) == Cause(
        "programmed", message="by the objects it is allowed still: the second state drifted"
    )
    assert noise.cause(FLOW, DENIED, ALLOWED) == Cause(
        "programmed", message="by the objects it was allowed before: the first state had drifted"
    )
    rejected = replace(DENIED, reason=Reason("rejected", DENIED.reason.decisions))
    assert noise.cause(FLOW, DENIED, rejected) == Cause("programmed", message="by the objects it is allowed in both")
    ebpf = replace(DENIED, dataplane="ebpf")
    assert noise.cause(FLOW, ALLOWED, ebpf) == Cause("dataplane", message="nftables became ebpf")
    astray = Answer(Reason("denied", (Decision("", "", "no-route"),)), "nftables")
    assert noise.cause(FLOW, ALLOWED, astray) == Cause("path", message="decided by no-route")


def test_what_the_objects_do_not_settle() -> None:
    odd = policy("GlobalNetworkPolicy", "odd", selector="((", types=["Ingress"], ingress=[{"action": "Deny"}])
    found = between(cluster(odd), cluster(odd, deny("noise", selector="app == 'none'")))
    assert found.cause(FLOW, ALLOWED, DENIED).kind == "not-found"
    assert found.cause(FlowText("pod/shop/none", "pod/shop/db:80"), ALLOWED, DENIED).kind == "not-found"


def test_tries_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(culprits, "MOST_STATES", 2)
    noise = [deny(f"noise-{number}", selector="app == 'none'") for number in range(30)]
    cause = between(cluster(), cluster(*noise, deny("lock"))).cause(FLOW, ALLOWED, DENIED)
    assert cause.kind == "not-found"
    assert "2 tries were not enough" in cause.message


def test_states_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(culprits, "MOST_KEPT", 3)
    noise = [deny(f"noise-{number}", selector="app == 'none'") for number in range(30)]
    found = between(cluster(), cluster(*noise, deny("lock")))
    assert blamed(found.cause(FLOW, ALLOWED, DENIED)) == [["added GlobalNetworkPolicy lock"]]
    assert len(found._states) <= 4
