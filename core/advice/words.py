"""Advice for an explanation: what to edit, what else that changes, and the manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from calico_debug.advice.advise import Wanted, propose
from calico_debug.advice.manifest import STAGED, manifest
from calico_debug.errors import EvidenceError
from calico_debug.intent.decide import Intent
from calico_debug.intent.flows import policy_flows
from calico_debug.model.explanation import Advice

if TYPE_CHECKING:
    from calico_debug.advice.edits import Edit
    from calico_debug.advice.flips import Flips
    from calico_debug.model.explanation import FlowExplanation
    from calico_debug.model.flow import Flow
    from calico_debug.state.cluster import ClusterState

BY_POLICY: Final = frozenset({"rule", "end-of-tier", "no-profile"})
"""Reasons of decisions that an edit of a policy can change."""

STAGED_FILES: Final = {
    "NetworkPolicy": "stagednetworkpolicies",
    "GlobalNetworkPolicy": "stagedglobalnetworkpolicies",
    "KubernetesNetworkPolicy": "stagedkubernetesnetworkpolicies",
}
"""Lists that a cluster has when its API has the staged kind."""


class Advisor:
    """Advises on many flows of one cluster."""

    def __init__(self, cluster: ClusterState) -> None:
        """Nothing is evaluated before it is asked for."""
        self._cluster = cluster
        self._intent: Intent | None = None

    def advice(self, flow: Flow, explanation: FlowExplanation, wanted: Wanted) -> tuple[Advice, ...]:
        """What would give the flow the wanted verdict; nothing if it has it, or if no edit of a policy would.

        Raises nothing: objects that are missing or damaged leave no advice.
        """
        if not self._is_asked_for(explanation, wanted):
            return ()
        try:
            if self._intent is None:
                self._intent = Intent(self._cluster.cluster)
            flows = policy_flows(flow, self._cluster)
        except EvidenceError:
            return ()
        decisions = [self._intent.decide(asked.flow, asked.via) for asked in flows]
        if not decisions or any(decision.verdict == "undetermined" for decision in decisions):
            return ()
        if all(decision.verdict == wanted for decision in decisions):
            return (Advice(_DRIFT[wanted]),)
        proposal = propose(self._intent, flows, wanted)
        if proposal is None:
            return ()
        return tuple(self._told(edit, change) for edit, change in zip(proposal.edits, proposal.flips, strict=True))

    def _is_asked_for(self, explanation: FlowExplanation, wanted: Wanted) -> bool:
        if not self._cluster.policies():
            return False
        if wanted == "denied":
            return explanation.verdict == "allowed"
        decisions = [explanation.decision, *(backend.decision for backend in explanation.backends)]
        refused = explanation.verdict in ("denied", "rejected")
        return refused and any(one is not None and one.reason in BY_POLICY for one in decisions)

    def _told(self, edit: Edit, change: Flips) -> Advice:
        kind = edit.policy.kind
        staged = kind in STAGED and any(file.startswith(f"{STAGED_FILES[kind]}.") for file in self._cluster.files)
        document = manifest(edit.policy, staged=staged)
        how = "; the manifest stages it: flow logs tell what it would do" if staged and document else ""
        return Advice(f"{edit.text} ({flips_text(change)}{how})", document)


_DRIFT: Final = {
    "allowed": "the policies of the API would allow this flow: calico-debug drift shows what the node has otherwise",
    "denied": "the policies of the API would deny this flow: calico-debug drift shows what the node has otherwise",
}


def flips_text(change: Flips) -> str:
    """What else an edit changes, in words."""
    if change.count is None:
        return "what else changes was not worked out: too many pods"
    if not change.count:
        return "no other flow between pods changes"
    examples = ", ".join(f"{source} -> {destination}" for source, destination in change.examples)
    more = ", …" if change.count > len(change.examples) else ""
    flows = "flow" if change.count == 1 else "flows"
    return f"changes {change.count} other {flows} between pods: {examples}{more}"
