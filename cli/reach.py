"""Evidence of a flow's nodes, wherever they are: this one's kernel, the others through their agents."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from calico_debug.activity import say
from calico_debug.agent.peers import Peer, agents_namespace, find_peers
from calico_debug.agent.publication import PublishedAgent, published
from calico_debug.cli.agent_client import AgentClient, BusyError, Token, Trust, find_token
from calico_debug.cli.agent_source import AgentSource
from calico_debug.cli.transports import PodConnection, TlsConnection
from calico_debug.errors import EvidenceError, MissingEvidence
from calico_debug.explain.reach import node_not_read, version_finding

if TYPE_CHECKING:
    from calico_debug.agent.cluster import ClusterReader, LiveCluster
    from calico_debug.cli.environment import Place
    from calico_debug.evidence.source import EvidenceSource, NodeEvidence
    from calico_debug.model.explanation import Finding

Answer = TypeVar("Answer")

MOST_NODES = 16
"""Nodes of one flow that are asked: a service may have backends on every node of a cluster."""
RETRY_SECONDS = 30.0
"""How long a node whose agent failed is left alone: of many flows, later ones may find it back."""
PAUSES = (0.2, 0.5, 1.0, 2.0)
"""Seconds until an agent that answers others is asked again."""
REMEDY = "look at the agent's pod and its log, or run on that node"


class PeerSource(AgentSource):
    """The agent of one node. After its first failure it is asked no more: everything fails the same way at once."""

    def __init__(self, node: str, agent: AgentClient) -> None:
        """Nothing is asked yet."""
        super().__init__(agent)
        self._node = node
        self.failure: EvidenceError | None = None

    def begin(self) -> NodeEvidence:
        """The node. Raises `EvidenceError` when the agent cannot be asked, or is that of another node."""
        try:
            return self.node(self._node)
        except MissingEvidence as error:
            raise EvidenceError(f"{self.origin} is that of another node ({error}): check its NODENAME") from None

    def json(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """See `AgentSource`."""
        return self._patiently(lambda: AgentSource.json(self, path, body))

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        """See `AgentSource`."""
        return self._patiently(lambda: AgentSource.ask(self, path, body))

    def _patiently(self, question: Callable[[], Answer]) -> Answer:
        if self.failure is not None:
            raise self.failure
        try:
            for pause in PAUSES:
                try:
                    return question()
                except BusyError:
                    time.sleep(pause)
            return question()
        except MissingEvidence:
            raise
        except EvidenceError as error:
            self.failure = error
            raise


class Agents(Protocol):
    """Finds the agents of other nodes."""

    def agent(self, node: str) -> PeerSource:
        """The agent of a node, not asked anything yet. Raises `EvidenceError` saying why there is none."""


class PodAgents:
    """The agents' pods, reached through the API server with the user's own rights; implements `Agents`."""

    def __init__(self, cluster: LiveCluster, namespace: str) -> None:
        """``namespace`` is that of the agents. Nothing is asked yet."""
        self._cluster = cluster
        self._namespace = namespace

    def agent(self, node: str) -> PeerSource:
        """See `Agents`."""
        peer = self._peers.get(node)
        if peer is None:
            raise EvidenceError(
                f"namespace {self._namespace} has no agent on {node}: install daemonset/ there, name the agents' "
                "namespace with --agents, or run on that node"
            )
        words = f"{peer.namespace}/{peer.pod} on {node}"
        if peer.problem:
            raise EvidenceError(f"agent {words} cannot be asked, {peer.problem}: {REMEDY}")
        connection = PodConnection(self._cluster.server, peer)
        return PeerSource(node, AgentClient(words, connection=connection, remedy=REMEDY))

    @cached_property
    def _peers(self) -> Mapping[str, Peer]:
        return find_peers(self._cluster.server, self._namespace)


class PublishedAgents:
    """The agents as they say where they are, reached over TLS with the token of this pod; implements `Agents`."""

    def __init__(self, cluster: LiveCluster, namespace: str, token: Token | None) -> None:
        """``namespace`` is that of the agents. Nothing is asked yet."""
        self._cluster = cluster
        self._namespace = namespace
        self._token = token

    def agent(self, node: str) -> PeerSource:
        """See `Agents`."""
        found = self._published.get(node)
        if found is None:
            raise EvidenceError(
                f"no agent on {node} has said in namespace {self._namespace} where it is: look at its pod and its log, "
                "or run on that node"
            )
        connection = TlsConnection(found.url, Trust(pem=found.certificate))
        return PeerSource(node, AgentClient(found.url, token=self._token, connection=connection, remedy=REMEDY))

    @cached_property
    def _published(self) -> Mapping[str, PublishedAgent]:
        return published(self._cluster.server, self._namespace)


def find_agents(place: Place, cluster: LiveCluster, variables: Mapping[str, str]) -> Agents:
    """The agents of a cluster: as published in a pod, else through the API server. Raises `UsageError`."""
    namespace = agents_namespace(place.agents, variables)
    if cluster.of_pod:
        return PublishedAgents(cluster, namespace, find_token(place.agent_token_file, variables))
    return PodAgents(cluster, namespace)


class Reach:
    """A cluster's objects and those of its nodes that were asked for; implements `EvidenceSource` and `Reaching`."""

    def __init__(self, local: EvidenceSource | None, cluster: ClusterReader, agents: Agents) -> None:
        """``local`` is this node's evidence, where this is one. Nobody is asked before `open`."""
        self._local = local
        self._cluster = cluster
        self._agents = agents
        self._nodes: dict[str, NodeEvidence] = {}
        self._peers: dict[str, PeerSource] = {}
        self._absent: dict[str, str] = {}
        self._failed_at: dict[str, float] = {}
        self._stranger = ""
        self.missed: dict[str, None] = {}
        """Nodes that a walk came to and that were not opened, in order."""
        if local is not None:
            self._nodes.update((name, local.node(name)) for name in local.nodes())

    @property
    def origin(self) -> str:
        """See `EvidenceSource`."""
        return self._cluster.origin if self._local is None else self._local.origin

    @property
    def here(self) -> Sequence[str]:
        """The node that this command runs on, if it is one."""
        return () if self._local is None else tuple(self._local.nodes())

    def leave(self) -> None:
        """Take this machine for no node of the cluster."""
        (self._stranger,) = self.here
        self._local = None
        self._nodes.clear()

    def nodes(self) -> Sequence[str]:
        """See `EvidenceSource`: those that were opened."""
        return tuple(self._nodes)

    def node(self, name: str) -> NodeEvidence:
        """See `EvidenceSource`."""
        if name not in self._nodes:
            raise MissingEvidence(f"there is no evidence of node {name}: {self.absence(name) or 'run there'}")
        return self._nodes[name]

    def cluster_files(self) -> Sequence[str]:
        """See `EvidenceSource`."""
        return self._cluster.files()

    def read_cluster(self, file: str) -> bytes:
        """See `EvidenceSource`."""
        return self._cluster.read(file)

    def absence(self, node: str) -> str:
        """See `Reaching`. A node that nobody asked for so far is remembered as `missed`."""
        if node not in self._absent and node not in self._nodes:
            self.missed.setdefault(node)
        return self._absent.get(node, "")

    # --------------------------------------------------------------------------------------------------------- peers

    def open(self, names: Sequence[str]) -> Sequence[str]:
        """Those of ``names`` whose evidence can be read; of the others `absence` says why not."""
        self.missed.clear()
        for name in [name for name, at in self._failed_at.items() if time.monotonic() - at > RETRY_SECONDS]:
            del self._failed_at[name], self._absent[name]
        self._connect([name for name in names[:MOST_NODES] if name not in self._nodes and name not in self._failed_at])
        for name in names[MOST_NODES:]:
            self._absent.setdefault(name, f"no more than {MOST_NODES} nodes of a flow are asked")
        return tuple(name for name in names[:MOST_NODES] if name in self._nodes)

    def drop_failed(self, error: EvidenceError | None = None) -> bool:
        """Give up nodes whose agent failed since they were opened, or told what ``error`` is about; whether there were
        any. An error about evidence says where that is from.
        """
        failed = {name: peer.failure for name, peer in self._peers.items() if peer.failure is not None}
        if error is not None and not failed:
            failed = {name: error for name in self._peers if self._nodes[name].origin in str(error)}
        for name, why in failed.items():
            del self._nodes[name], self._peers[name]
            self._fail(name, str(why))
        return bool(failed)

    def is_remote(self, name: str) -> bool:
        """Whether a node is read through its agent."""
        return name in self._peers

    def connect(self, name: str) -> PeerSource:
        """A connection of its own to the agent of a node. Raises `EvidenceError`."""
        return self._agents.agent(name)

    def findings(self, names: Sequence[str]) -> list[Finding]:
        """What is to be known of the agents of nodes: those that did not answer, and those of another version."""
        found = [node_not_read(name, self._absent[name]) for name in names if name in self._absent]
        versions = [version_finding(name, self._peers[name].version) for name in names if name in self._peers]
        return [*found, *(finding for finding in versions if finding is not None)]

    def _connect(self, names: Sequence[str]) -> None:
        """Begin with agents all at once: to start a relay in a pod takes its time."""
        say(f"asking the agents of {', '.join(names)}")
        begun: list[tuple[str, PeerSource, Thread, list[NodeEvidence | EvidenceError]]] = []
        for name in names:
            try:
                agent = self._agents.agent(name)
            except EvidenceError as error:
                self._fail(name, str(error))
                continue
            found: list[NodeEvidence | EvidenceError] = []
            # Nothing waits for these threads when the command is interrupted.
            thread = Thread(target=_begin, args=(agent, found), daemon=True)
            thread.start()
            begun.append((name, agent, thread, found))
        for name, agent, thread, found in begun:
            thread.join()
            (node,) = found
            if isinstance(node, EvidenceError):
                self._fail(name, str(node))
            else:
                self._absent.pop(name, None)
                self._nodes[name], self._peers[name] = node, agent

    def _fail(self, name: str, why: str) -> None:
        hint = f"; if this machine, {self._stranger}, is that node, say --node {name}" if self._stranger else ""
        self._absent[name] = f"{why}{hint}"
        self._failed_at[name] = time.monotonic()


def _begin(agent: PeerSource, found: list[NodeEvidence | EvidenceError]) -> None:
    try:
        found.append(agent.begin())
    except EvidenceError as error:
        found.append(error)
    except Exception as error:  # noqa: BLE001 - a thread's error would be printed as a traceback, and be missing here
        found.append(EvidenceError(f"{agent.origin}: unexpected {type(error).__name__}; this is a defect, report it"))
