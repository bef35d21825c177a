"""From a question to its explanation where the flow's nodes are several machines."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from calico_debug.cli.reach import MOST_NODES, Reach, find_agents
from calico_debug.cli.remote_instruments import RemoteInstruments
from calico_debug.cli.tracer import EvidenceTracer
from calico_debug.errors import EvidenceError
from calico_debug.evidence.wire import OBSERVATION_SECONDS
from calico_debug.explain.engine import Engine
from calico_debug.explain.reach import observed_for_less
from calico_debug.explain.settled import explain_settled
from calico_debug.state.cluster import load_cluster
from calico_debug.state.flow_nodes import flow_nodes
from calico_debug.state.node import NodeState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from calico_debug.agent.cluster import LiveCluster
    from calico_debug.agent.gather import Post
    from calico_debug.agent.instruments import Instruments
    from calico_debug.cli.environment import Place
    from calico_debug.evidence.source import EvidenceSource
    from calico_debug.model.explanation import FlowExplanation
    from calico_debug.model.flow import Flow
    from calico_debug.model.observation import Wanted
    from calico_debug.state.resolve import Resolver

LINUX = "linux"
MOST_ENGINES = 8
"""Sets of nodes whose compiled rules are kept, of many flows."""


class ReachingTracer(EvidenceTracer):
    """Asks the agents of those nodes alone that a flow touches. A node whose agent fails is left out, and said."""

    def __init__(self, source: Reach, namespace: str | None = None, *, certain: bool = False) -> None:
        """``namespace`` is that of names without one.

        A machine that is none of the nodes that the cluster knows is left out, unless it is ``certain`` to be one.
        """
        cluster = load_cluster(source)
        known = {node.name for node in cluster.nodes} if source.here and not certain else set()
        if known.isdisjoint(source.here) and known:
            source.leave()
        super().__init__(source, namespace, cluster)
        self._reach = source
        self._resolver = self._engine.resolver
        self._states: dict[str, NodeState] = dict(self._engine.states)
        self._engines: OrderedDict[tuple[str, ...], Engine] = OrderedDict()

    def _explain(self, resolve: Callable[[Resolver], Flow]) -> tuple[Flow, FlowExplanation]:
        flow = resolve(self._resolver)
        wanted = list(self._nodes_of(flow))
        for _ in range(2 * MOST_NODES):
            names = self._reach.open(wanted)
            try:
                explanation = self._settled(names, flow)
            except EvidenceError as error:
                if not self._reach.drop_failed(error):
                    raise
                continue
            if self._reach.drop_failed():
                continue
            # The way may lead over nodes that are neither end.
            more = [name for name in self._reach.missed if name not in wanted]
            if not more:
                break
            wanted += more
        else:
            raise EvidenceError("agents of the flow's nodes come and go: trace again")
        findings = (*explanation.findings, *self._reach.findings(wanted))
        return flow, replace(explanation, findings=tuple(dict.fromkeys(findings)))

    def _settled(self, names: Sequence[str], flow: Flow) -> FlowExplanation:
        """The explanation from rules that belong together; they are those of the next question, too."""
        before = self._engine_over(names)
        self._engine, _, explanation = explain_settled(before, lambda _: flow)
        if self._engine is not before:
            self._states.update(self._engine.states)
            self._engines.clear()
            self._engines[tuple(names)] = self._engine
        return explanation

    def witness(self, explanation: FlowExplanation, wanted: Wanted) -> FlowExplanation:
        """See `EvidenceTracer`."""
        found = super().witness(explanation, wanted)
        asked = wanted.observe or 0.0
        short = [name for name in self._engine.states if asked > OBSERVATION_SECONDS and self._reach.is_remote(name)]
        findings = (*found.findings, *(observed_for_less(name, OBSERVATION_SECONDS, asked) for name in short))
        return replace(found, findings=findings)

    def _posts(self, explanation: FlowExplanation, wanted: Wanted) -> Sequence[Post]:
        """Every node of the flow that can be read: where it starts first. Raises `EvidenceError` when there is none."""
        from calico_debug.agent.gather import Post

        names = sorted(self._engine.states, key=lambda name: name != explanation.source.node)
        posts = []
        for name in names:
            namer = self._engine.rule_names(name)
            posts.append(Post(self._reach.node(name), explanation, wanted, namer, self._tools(name)))
        if not posts:
            raise EvidenceError("no node of the flow can be read, and nothing can be watched: see the findings without")
        return posts

    def _tools(self, name: str) -> Instruments:
        if self._reach.is_remote(name):
            return RemoteInstruments(name, partial(self._reach.connect, name))
        from calico_debug.agent.instruments import KernelInstruments

        return KernelInstruments()

    def _nodes_of(self, flow: Flow) -> Sequence[str]:
        """What the cluster's objects say; this node may know where an end is that they do not know."""
        found = flow_nodes(flow, self._engine.cluster)
        unplaced = any(
            end.node is None and end.service is None and not end.external
            for end in ((flow.destination,) if flow.via else (flow.source, flow.destination))
        )
        return tuple(dict.fromkeys((*found, *(self._reach.here if unplaced or not found else ()))))

    def _engine_over(self, names: Sequence[str]) -> Engine:
        """An engine over these nodes. What was read of a node, and of the cluster, is shared by all engines."""
        key = tuple(names)
        for gone in self._states.keys() - set(self._reach.nodes()):
            del self._states[gone]
            self._engines.clear()
        if key not in self._engines:
            for name in names:
                if name not in self._states:
                    self._states[name] = NodeState(self._reach.node(name))
            states = {name: self._states[name] for name in names}
            self._engines[key] = Engine(self._reach, self._engine.cluster, states)
            if len(self._engines) > MOST_ENGINES:
                self._engines.popitem(last=False)
        self._engines.move_to_end(key)
        return self._engines[key]


def open_reaching(place: Place, platform: str, cluster: LiveCluster) -> ReachingTracer:
    """A tracer over this node, if it is one of the cluster's, and the agents of the others.

    Raises `CalicoDebugError`.
    """
    agents = find_agents(place, cluster, os.environ)
    reach = Reach(_this_node(place, platform, cluster), cluster, agents)
    return ReachingTracer(reach, place.namespace or cluster.namespace or None, certain=place.node is not None)


def _this_node(place: Place, platform: str, cluster: LiveCluster) -> EvidenceSource | None:
    if platform != LINUX:
        return None
    try:
        from calico_debug.agent.evidence import LiveSource
    except ImportError:
        return None  # installed without what reading a node takes
    return LiveSource(place.node or "", cluster)
