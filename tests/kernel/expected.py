"""Which policy and rule decide about a pod's traffic, evaluated from the model alone: what explanations must say.

Built on tests.lab.meaning, which knows nothing of nftables; verdicts are checked against the kernel there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from calico_debug.model.explanation import PolicyRef
from tests.lab import meaning
from tests.lab.endpoint_shape import endpoint_tiers
from tests.lab.model import Pod

if TYPE_CHECKING:
    from tests.lab.meaning import Packet
    from tests.lab.model import Direction, Model, Policy
    from tests.lab.topology import Topology
    from tests.lab.traffic import Flow


@dataclass(frozen=True, slots=True)
class Answer:
    """What one tier does: ``policy``, ``index`` and ``action`` when a rule answers."""

    direction: Direction
    tier: str
    outcome: str
    policy: PolicyRef | None = None
    index: int | None = None
    action: str = ""


@dataclass(slots=True)
class Expected:
    """Every tier in the order in which they are met, and how it ends."""

    tiers: list[Answer] = field(default_factory=list)
    verdict: str = "allowed"
    reason: str = "profile"
    direction: str = ""

    @property
    def decider(self) -> Answer | None:
        return self.tiers[-1] if self.reason in ("rule", "end-of-tier") else None


def expected(topology: Topology, model: Model, flow: Flow, source_port: int) -> Expected:
    """A flow between two pods, without services."""
    source, target = topology.places[flow.source], topology.places[topology.owner(flow.destination) or ""]
    assert isinstance(source, Pod)
    assert isinstance(target, Pod)
    own = source_port if flow.port is not None else 0
    packet = meaning.Packet(source.address(flow.version), flow.destination, flow.protocol, own, flow.port or 0)
    found = Expected()
    endpoint(topology, model, source, "egress", packet, found)
    if found.verdict == "allowed":
        endpoint(topology, model, target, "ingress", packet, found)
    return found


def endpoint(topology: Topology, model: Model, pod: Pod, direction: Direction, packet: Packet, found: Expected) -> None:
    """What one pod's policies do, added to ``found``."""
    denied = "rejected" if model.felix.deny_action == "Reject" else "denied"
    found.direction = direction
    for tier in endpoint_tiers(model, pod.all_labels(), lambda p: not (p.pre_dnat or p.do_not_track)):
        if not tier.of(direction):
            continue
        name = tier.tier.name
        live = [policy for policy in tier.of(direction) if not policy.staged]
        answer = next(filter(None, (_answer(topology, model, policy, direction, packet) for policy in live)), None)
        if answer is not None:
            outcome = {"Allow": "allowed", "Deny": denied, "Pass": "passed"}[answer.action]
            found.tiers.append(Answer(direction, name, outcome, answer.policy, answer.index, answer.action))
            if outcome != "passed":
                found.verdict, found.reason = outcome, "rule"
                return
        elif live and tier.tier.default_action != "Pass":
            found.tiers.append(Answer(direction, name, denied))
            found.verdict, found.reason = denied, "end-of-tier"
            return
        else:
            found.tiers.append(Answer(direction, name, "passed"))
    assert any(profile.startswith("kns.") for profile in pod.profiles)
    found.reason = "profile"


def _answer(topology: Topology, model: Model, policy: Policy, direction: Direction, packet: Packet) -> Answer | None:
    for index, rule in enumerate(policy.rules(direction) or ()):
        if rule.action != "Log" and meaning._matches(topology, model, rule, packet):
            ref = PolicyRef(policy.kind, policy.name, policy.namespace)
            return Answer(direction, policy.tier, "", ref, index, rule.action)
    return None
