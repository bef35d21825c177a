"""Evidence through an agent (docs/agent.md): the same interface as a bundle's or the node's own, over HTTP."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from calico_debug.activity import say
from calico_debug.cli.agent_client import AgentClient
from calico_debug.errors import EvidenceError
from calico_debug.evidence import wire
from calico_debug.evidence.bpf import KernelMaps
from calico_debug.evidence.source import NetlinkDump, NodeEvidence
from calico_debug.model.bpf_objects import MapInfo, RawEntries
from calico_debug.model.conntrack import Tuple

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from calico_debug.agent.cluster import ClusterReader


class AgentSource:
    """An agent as a source of evidence; implements `EvidenceSource`. One connection, kept open."""

    def __init__(self, agent: AgentClient, cluster: ClusterReader | None = None) -> None:
        """Nothing is sent yet. Objects are those of ``cluster``, else what the agent can read of its own."""
        self._cluster = cluster
        self._agent = agent
        self._nodes: dict[str, NodeEvidence] = {}
        self.version = ""
        """That of the agent, once a node was asked for."""

    @property
    def origin(self) -> str:
        """See `EvidenceSource`."""
        return self._agent.origin

    @property
    def client(self) -> AgentClient:
        """The agent itself, for what is no evidence."""
        return self._agent

    def nodes(self) -> Sequence[str]:
        """See `EvidenceSource`."""
        return _texts(self.json("/v1/nodes")["nodes"])

    def node(self, name: str) -> NodeEvidence:
        """See `EvidenceSource`."""
        if name not in self._nodes:
            told = self.json(f"/v1/nodes/{quote(name, safe='')}")
            self.version = str(told.get("version", ""))
            kind = LiveAgentNode if told.get("live") else AgentNode
            self._nodes[name] = kind(self, name, str(told.get("takenAt", "")))
        return self._nodes[name]

    def cluster_files(self) -> Sequence[str]:
        """See `EvidenceSource`."""
        return self._cluster.files() if self._cluster is not None else _texts(self.json("/v1/cluster")["files"])

    def read_cluster(self, file: str) -> bytes:
        """See `EvidenceSource`."""
        if self._cluster is not None:
            return self._cluster.read(file)
        return self.ask(f"/v1/cluster/{quote(file, safe='')}")

    def json(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """See `AgentClient.json`."""
        say(f"asking {self.origin}")
        return self._agent.json(path, body)

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        """See `AgentClient.ask`."""
        say(f"asking {self.origin}")
        return self._agent.ask(path, body)

    def opened(self, path: str, body: Mapping[str, Any] | None = None) -> HTTPResponse:
        """See `AgentClient.opened`."""
        return self._agent.opened(path, body)

    def close(self) -> None:
        """See `AgentClient.close`."""
        self._agent.close()


class AgentNode:
    """A node as files; implements `NodeEvidence`."""

    def __init__(self, source: AgentSource, name: str, taken_at: str) -> None:
        """``taken_at`` as the agent says."""
        self._source = source
        self._name = name
        self._taken_at = taken_at
        self._path = f"/v1/nodes/{quote(name, safe='')}"

    @property
    def name(self) -> str:
        """See `NodeEvidence`."""
        return self._name

    @property
    def origin(self) -> str:
        """See `NodeEvidence`."""
        return f"node {self._name} ({self._source.origin})"

    @property
    def taken_at(self) -> str:
        """See `NodeEvidence`."""
        return self._taken_at

    @property
    def nftables(self) -> NetlinkDump | None:
        """See `NodeEvidence`."""
        return None

    def files(self) -> Sequence[str]:
        """See `NodeEvidence`."""
        return self._files

    @cached_property
    def _files(self) -> Sequence[str]:
        return _texts(self._source.json(f"{self._path}/files")["files"])

    def read(self, file: str) -> bytes:
        """See `NodeEvidence`."""
        return self._source.ask(f"{self._path}/files/{quote(file)}")


class LiveAgentNode(AgentNode):
    """A node whose agent also puts single questions to its kernel; implements `PointLookups` and `LiveMaps`."""

    @property
    def nftables(self) -> NetlinkDump | None:
        """See `NodeEvidence`."""
        return self._netlink

    def _netlink(self, message_type: int, flags: int, family: int, attributes: bytes) -> Iterable[bytes]:
        question = {"type": message_type, "flags": flags, "family": family, "attributes": attributes.hex()}
        return wire.unpack_messages(self._source.ask(f"{self._path}/netlink", question))

    def find_connection(self, wanted: Tuple) -> bytes:
        """See `PointLookups`."""
        return self._source.ask(f"{self._path}/connection", wire.tuple_document(wanted))

    def read_sysctl(self, key: str) -> str | None:
        """See `PointLookups`."""
        value = self._source.json(f"{self._path}/sysctl/{quote(key)}").get("value")
        return value if isinstance(value, str) else None

    @property
    def kernel_maps(self) -> KernelMaps:
        """See `LiveMaps`."""
        return AgentMaps(self._source, f"{self._path}/maps")


class AgentMaps:
    """The maps of a node's kernel; implements `KernelMaps`."""

    def __init__(self, source: AgentSource, path: str) -> None:
        """``path`` is that of the node's maps."""
        self._source = source
        self._path = path

    def lookup(self, info: MapInfo, key: bytes) -> bytes | None:
        """See `KernelMaps`."""
        value = self._source.json(f"{self._path}/{info.id}/lookup", {"key": key.hex()}).get("value")
        try:
            return bytes.fromhex(value) if isinstance(value, str) else None
        except ValueError:
            raise EvidenceError(f"{self._source.origin} sent a value of map {info.name} that is not one") from None

    def batches(self, info: MapInfo) -> Iterator[RawEntries]:
        """See `KernelMaps`. All of them are fetched first: the one connection is needed for other questions."""
        data = io.BytesIO(self._source.ask(f"{self._path}/{info.id}/entries"))
        return wire.unpack_batches(data.read)

    def close(self) -> None:
        """See `KernelMaps`. Nothing is held here; the agent opens maps for each request."""


def _texts(value: object) -> Sequence[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise EvidenceError("the agent sent a list that is none; is it an agent of calico-debug?")
    return tuple(value)
