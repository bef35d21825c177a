"""The real way from a question to its explanation: evidence, resolution of names, engine."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from calico_debug.cli.environment import Place, Question
from calico_debug.errors import EvidenceError
from calico_debug.explain.engine import Engine
from calico_debug.explain.settled import explain_settled

if TYPE_CHECKING:
    from calico_debug.advice.words import Advisor
    from calico_debug.agent.cluster import ClusterReader
    from calico_debug.evidence.source import EvidenceSource
    from calico_debug.model.explanation import Advice, FlowExplanation
    from calico_debug.model.flow import Flow
    from calico_debug.model.observation import Wanted
    from calico_debug.state.resolve import Resolver


class EvidenceTracer:
    """Answers questions from one source of evidence; keep it for many questions, it remembers what it read."""

    def __init__(self, source: EvidenceSource, namespace: str | None = None) -> None:
        """``namespace`` is that of names without one."""
        self._engine = Engine(source)
        self._advisor: Advisor | None = None
        self._namespace = namespace

    def trace(self, question: Question) -> FlowExplanation:
        """The explanation. Raises `calico_debug.errors.CalicoDebugError`."""

        def resolve(resolver: Resolver) -> Flow:
            return resolver.resolve(
                question.source,
                question.destination,
                protocol=question.protocol,
                namespace=self._namespace,
                via=question.via,
            )

        self._engine, flow, explanation = explain_settled(self._engine, resolve)
        if question.wanted is None:
            return explanation
        return replace(explanation, advice=self._advice(flow, explanation, question.wanted))

    def _advice(self, flow: Flow, explanation: FlowExplanation, wanted: str) -> tuple[Advice, ...]:
        from calico_debug.advice.words import Advisor

        if self._advisor is None:
            self._advisor = Advisor(self._engine.cluster)
        return self._advisor.advice(flow, explanation, "denied" if wanted == "denied" else "allowed")

    def witness(self, explanation: FlowExplanation, wanted: Wanted) -> FlowExplanation:
        """The explanation with what counters and packets of the live node say. Raises `EvidenceError`."""
        from calico_debug.agent.evidence import LiveNode
        from calico_debug.agent.gather import gather
        from calico_debug.explain.witnesses import with_witnesses

        source = self._engine.source
        node = next((each for name in source.nodes() if isinstance(each := source.node(name), LiveNode)), None)
        if node is None:
            raise EvidenceError(f"{source.origin} has no live node to watch: run on the node, without --bundle")
        return with_witnesses(explanation, gather(node, explanation, wanted, self._engine.rule_names(node.name)))


def open_tracer(place: Place, platform: str) -> EvidenceTracer:
    """A tracer for a bundle or, without one, for this node and its cluster. Raises `CalicoDebugError`."""
    return EvidenceTracer(*open_place(place, platform))


def open_place(place: Place, platform: str) -> tuple[EvidenceSource, str | None]:
    """The evidence of a place, and the namespace of names without one: as typed, else of the cluster's context.

    Raises `CalicoDebugError`.
    """
    cluster = find_cluster(place)
    namespace = place.namespace or (cluster.namespace if cluster is not None else "")
    return _open(place, platform, cluster), namespace or None


def open_source(place: Place, platform: str) -> EvidenceSource:
    """The evidence of a place. Only the live one imports the agent. Raises `CalicoDebugError`."""
    return _open(place, platform, find_cluster(place))


def find_cluster(place: Place) -> ClusterReader | None:
    """The cluster that belongs to a live place, None when nothing says which.

    Raises `CalicoDebugError` when the user names a cluster that cannot be used; one that was merely found is no reason
    to fail, addresses work without.
    """
    named = place.kubeconfig is not None or place.context is not None
    if place.bundle is not None or (place.agent is not None and not named):
        return None
    from calico_debug.agent.cluster import LiveCluster, UnusableCluster
    from calico_debug.agent.kubeconfig import find_access

    try:
        access = find_access(place.kubeconfig, place.context)
        cluster = LiveCluster(access) if access is not None else None
        if named and cluster is not None:
            cluster.check()
    except EvidenceError as error:
        if named:
            raise
        return UnusableCluster(str(error))
    return cluster


def _open(place: Place, platform: str, cluster: ClusterReader | None) -> EvidenceSource:
    if place.bundle is not None:
        from calico_debug.evidence.bundle import open_bundle

        return open_bundle(place.bundle)
    if place.agent is not None:
        from calico_debug.cli.agent_client import AgentClient, Trust, find_token
        from calico_debug.cli.agent_source import AgentSource

        token = find_token(place.agent_token_file, os.environ)
        return AgentSource(AgentClient(place.agent, trust=Trust(place.agent_ca), token=token), cluster)
    if platform != "linux" and cluster is None:
        raise EvidenceError(
            f"only a Linux node can be read live, and this system is {platform}: name a recording with --bundle"
        )
    try:
        from calico_debug.agent.evidence import ClusterSource, LiveSource
    except ImportError as error:
        raise EvidenceError(
            f"reading this node live needs {error.name or error}: install calico-debug[agent], or name a recording "
            "with --bundle"
        ) from error
    if platform != "linux" and cluster is not None:
        return ClusterSource(cluster)
    return LiveSource(place.node or "", cluster)
