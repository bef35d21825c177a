"""Advice: when it is given, and what it says beside the edit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from calico_debug.advice.flips import Flips
from calico_debug.advice.words import Advisor, flips_text
from calico_debug.explain.engine import Engine
from calico_debug.state.resolve import Resolver
from tests.drift.altered import altered

if TYPE_CHECKING:
    from calico_debug.advice.advise import Wanted
    from calico_debug.model.explanation import FlowExplanation
    from calico_debug.model.flow import Flow
    from tests.drift.altered import Change

CLIENT = "client/client-5f8b"
STAGED = "stagednetworkpolicies.crd.projectcalico.org.json"


class World:
    def __init__(self, changes: dict[str, Change] | None = None) -> None:
        self.engine = Engine(altered("v3.32.1-nft", changes or {}))
        self.advisor = Advisor(self.engine.cluster)

    def ask(self, source: str, destination: str) -> tuple[Flow, FlowExplanation]:
        flow = Resolver(self.engine.cluster, self.engine.states).resolve(source, destination)
        return flow, self.engine.explain(flow)

    def advice(self, source: str, destination: str, wanted: Wanted = "allowed") -> list[Any]:
        return list(self.advisor.advice(*self.ask(source, destination), wanted))


def test_the_edit_with_what_it_changes_and_a_staged_manifest() -> None:
    (one,) = World().advice(CLIENT, "svc/management-ui/management-ui")
    assert one.message == (
        "add to client/platform.client-egress an egress rule: Allow TCP to namespace management-ui, port 9001 "
        "(no other flow between pods changes; the manifest stages it: flow logs tell what it would do)"
    )
    assert one.manifest["kind"] == "StagedNetworkPolicy"
    assert one.manifest["spec"]["egress"][-1]["destination"]["ports"] == [9001]


def test_without_staged_kinds_in_the_api_the_manifest_enforces() -> None:
    world = World()
    world.engine.cluster.__dict__["files"] = world.engine.cluster.files - {STAGED}
    (one,) = world.advice(CLIENT, "svc/management-ui/management-ui")
    assert one.manifest["kind"] == "NetworkPolicy"
    assert "stages" not in one.message


def test_only_what_was_asked_for() -> None:
    world = World()
    assert not world.advice(CLIENT, "svc/stars/frontend")
    assert world.advice(CLIENT, "svc/stars/frontend", "denied")
    assert not world.advice(CLIENT, "svc/management-ui/management-ui", "denied")


def test_a_node_that_is_programmed_otherwise_is_no_case_for_an_edit() -> None:
    def allow(items: list[dict[str, Any]]) -> None:
        for item in items:
            if item["metadata"]["name"] == "platform.client-egress":
                item["spec"]["egress"].append({"action": "Allow"})

    world = World({"networkpolicies.crd.projectcalico.org.json": allow})
    (one,) = world.advice(CLIENT, "svc/management-ui/management-ui")
    assert one.manifest is None
    assert one.message.startswith("the policies of the API would allow this flow: calico-debug drift")


def test_other_denials_are_not_policys() -> None:
    world = World()
    flow, explanation = world.ask(CLIENT, "svc/management-ui/management-ui")
    assert explanation.decision is not None
    routed = replace(explanation, decision=replace(explanation.decision, reason="no-route"), backends=())
    assert not world.advisor.advice(flow, routed, "allowed")


def test_without_policies_there_is_no_advice() -> None:
    world = World()
    world.engine.cluster.policies = lambda _kind=None: []  # type: ignore[method-assign]
    assert not world.advice(CLIENT, "svc/management-ui/management-ui")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (Flips(0), "no other flow between pods changes"),
        (Flips(1, (("a/b", "c/d"),)), "changes 1 other flow between pods: a/b -> c/d"),
        (Flips(3, (("a/b", "c/d"), ("a/b", "c/e"))), "changes 3 other flows between pods: a/b -> c/d, a/b -> c/e, …"),
        (Flips(None), "what else changes was not worked out: too many pods"),
    ],
)
def test_flips_in_words(change: Flips, text: str) -> None:
    assert flips_text(change) == text
