"""What the API's objects alone decide for flows by names, in one state of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.diff.model import FlowText
from calico_debug.errors import CalicoDebugError
from calico_debug.intent.decide import Intent
from calico_debug.intent.flows import policy_flows
from calico_debug.matrix.reasons import of_intent
from calico_debug.state.resolve import Resolver

if TYPE_CHECKING:
    from calico_debug.matrix.model import Reason
    from calico_debug.state.cluster import ClusterState

NO_BACKENDS = "no-endpoints"
UNRESOLVED = "unresolved"


@dataclass(frozen=True, slots=True)
class Intended:
    """What is decided. ``verdict`` is also `NO_BACKENDS`, or `UNRESOLVED` where an end is not there, and ``error`` why.

    ``reasons`` are those of each flow that policy sees: of a service one for each backend, the same ones once.
    """

    verdict: str
    reasons: tuple[Reason, ...] = ()
    error: CalicoDebugError | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Verdict and who decides: what is equal for what is decided alike."""
        return self.verdict, frozenset(reason.key for reason in self.reasons), str(self.error or "")


class Intentions:
    """Asks one state about many flows."""

    def __init__(self, cluster: ClusterState, namespace: str | None = None) -> None:
        """``namespace`` is that of names without one."""
        self._cluster = cluster
        self._resolver = Resolver(cluster, {})
        self._intent = Intent(cluster.cluster)
        self._namespace = namespace
        self._known: dict[FlowText, Intended] = {}

    @property
    def intent(self) -> Intent:
        """What the objects mean."""
        return self._intent

    def of(self, flow: FlowText) -> Intended:
        """What is decided; of a service with several backends that differ nothing is."""
        if flow not in self._known:
            self._known[flow] = self._decide(flow)
        return self._known[flow]

    def _decide(self, flow: FlowText) -> Intended:
        try:
            asked = flow.resolved(self._resolver, self._namespace)
            flows = policy_flows(asked, self._cluster)
        except CalicoDebugError as error:
            return Intended(UNRESOLVED, error=error)
        if not flows:
            return Intended(NO_BACKENDS)
        found: dict[object, Reason] = {}
        for one in flows:
            stages = self._intent.decide(one.flow, one.via).stages
            reason = of_intent(stages, self._intent.matching, one.flow)
            found.setdefault(reason.key, reason)
        verdicts = {reason.verdict for reason in found.values()}
        return Intended(verdicts.pop() if len(verdicts) == 1 else "undetermined", tuple(found.values()))
