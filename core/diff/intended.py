"""What the API's objects alone decide for flows by names, in one state of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.diff.model import FlowText, decider
from calico_debug.errors import CalicoDebugError
from calico_debug.intent.decide import Intent
from calico_debug.intent.flows import policy_flows
from calico_debug.matrix.reasons import of_intent
from calico_debug.state.resolve import Resolver

if TYPE_CHECKING:
    from calico_debug.state.cluster import ClusterState

NO_BACKENDS = "no-endpoints"
UNRESOLVED = "unresolved"


@dataclass(frozen=True, slots=True)
class Intended:
    """What is decided. ``verdict`` is also `NO_BACKENDS`, or `UNRESOLVED` where an end is not there; ``key`` has who
    decides, too.
    """

    verdict: str
    key: tuple[object, ...]


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
            return Intended(UNRESOLVED, (UNRESOLVED, str(error)))
        if not flows:
            return Intended(NO_BACKENDS, (NO_BACKENDS,))
        found = set()
        for one in flows:
            stages = self._intent.decide(one.flow, one.via).stages
            reason = of_intent(stages, self._intent.matching, one.flow)
            found.add((reason.verdict, tuple(map(decider, reason.decisions))))
        verdicts = {verdict for verdict, _ in found}
        return Intended(verdicts.pop() if len(verdicts) == 1 else "undetermined", (frozenset(found),))
