"""Packets as JSON; tests/cli/render/test_packets.py has those of `observe`."""

from __future__ import annotations

from dataclasses import replace

from calico_debug.explain.packet_document import losses_document, predicted_document, summary_document
from calico_debug.model.explanation import Decision, PolicyRef, RuleRef
from calico_debug.model.packet_event import Losses
from tests.cli.samples import SAMPLES

DENIAL = SAMPLES["denied_end_of_tier"]


def test_what_is_predicted() -> None:
    policy = PolicyRef("NetworkPolicy", "web", "red")
    decision = Decision("node1", "nftables", "rule", "ingress", "platform", policy, RuleRef("Deny", 0))
    assert predicted_document(replace(DENIAL, decision=decision)) == {
        "verdict": "denied",
        "node": "node1",
        "tier": "platform",
        "reason": "rule",
        "policy": {"kind": "NetworkPolicy", "name": "web", "namespace": "red"},
        "rule": 0,
    }
    everywhere = replace(decision, policy=replace(policy, namespace=""), rule=RuleRef("Deny"))
    found = predicted_document(replace(DENIAL, decision=everywhere))
    assert (found["policy"], "rule" in found) == ({"kind": "NetworkPolicy", "name": "web"}, False)
    assert predicted_document(replace(DENIAL, decision=None)) == {"verdict": "denied"}


def test_losses_are_always_there() -> None:
    assert losses_document(Losses(9, 1, 2, 3, 4)) == {"noRoom": 1, "rateLimited": 2, "passedOver": 4, "notIp": 3}
    assert summary_document(None, None, (0, 0), Losses(), "", "node1") == {
        "apiVersion": "calico-debug/v1",
        "kind": "PacketObservation",
        "node": "node1",
        "events": 0,
        "packets": 0,
        "endedBy": "interrupt",
        "losses": losses_document(Losses()),
    }
