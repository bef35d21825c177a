"""Evidence through an agent (docs/agent.md): the same interface as a bundle's or the node's own, over HTTP."""

from __future__ import annotations

import http.client
import io
import json
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from calico_debug.errors import CalicoDebugError, EvidenceError, MissingEvidence, UsageError
from calico_debug.evidence import wire
from calico_debug.evidence.bpf import KernelMaps
from calico_debug.evidence.source import NetlinkDump, NodeEvidence
from calico_debug.model.bpf_objects import MapInfo, RawEntries
from calico_debug.model.conntrack import Tuple

if TYPE_CHECKING:
    from calico_debug.agent.cluster import ClusterReader

SECONDS = 60.0
"""Longest silence of an agent: its requests have 30 s."""
LARGEST_ANSWER = 1 << 30
"""Bytes of the largest file that is taken; a full ruleset is a few hundred MiB as JSON."""
LARGEST_ERROR = 64 << 10

ERRORS: Mapping[str, type[CalicoDebugError]] = {"usage": UsageError, "missing": MissingEvidence}
"""What the reason of an error stands for here; others are `EvidenceError`."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class AgentSource:
    """An agent as a source of evidence; implements `EvidenceSource`. One connection, kept open."""

    def __init__(self, place: str, cluster: ClusterReader | None = None) -> None:
        """``place`` is the path of a socket or ``http://ADDR:PORT``; nothing is sent yet. Raises `UsageError`.

        Objects are those of ``cluster``, else what the agent can read of its own.
        """
        self._cluster = cluster
        self._place = place
        self._connection = _connection(place)
        self._nodes: dict[str, NodeEvidence] = {}

    @property
    def origin(self) -> str:
        """See `EvidenceSource`."""
        return f"agent {self._place}"

    def nodes(self) -> Sequence[str]:
        """See `EvidenceSource`."""
        return _texts(self.json("/v1/nodes")["nodes"])

    def node(self, name: str) -> NodeEvidence:
        """See `EvidenceSource`."""
        if name not in self._nodes:
            told = self.json(f"/v1/nodes/{quote(name, safe='')}")
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

    # ---------------------------------------------------------------------------------------------------- requests

    def json(self, path: str, body: Mapping[str, Any] | None = None, *, method: str = "") -> dict[str, Any]:
        """An answer that is a JSON object. Raises what `ask` does."""
        data = self.ask(path, body, method=method)
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise EvidenceError(
                f"{self.origin} does not speak this language at {path}: is it an agent of calico-debug?"
            )
        return document

    def ask(self, path: str, body: Mapping[str, Any] | None = None, *, method: str = "") -> bytes:
        """A whole answer; with a body the request is a POST, unless ``method`` is given.

        Raises what the agent said, or `EvidenceError`.
        """
        with self.opened(path, body, method=method) as stream:
            try:
                data = stream.read(LARGEST_ANSWER + 1)
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                raise EvidenceError(f"{self.origin} broke off its answer to {path} ({error!r}); try again") from None
        if len(data) > LARGEST_ANSWER:
            self._connection.close()
            raise EvidenceError(
                f"{self.origin} sent more than {LARGEST_ANSWER >> 20} MiB at {path}: read it on the node"
            )
        return data

    def opened(self, path: str, body: Mapping[str, Any] | None = None, *, method: str = "") -> http.client.HTTPResponse:
        """An answer whose status is 200, to be read and closed. Raises as `ask`."""
        response = self._request(path, body, method)
        if response.status != http.client.OK:
            raise self._refusal(response, path)
        return response

    def _request(self, path: str, body: Mapping[str, Any] | None, method: str = "") -> http.client.HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        for attempt in (1, 2):
            fresh = self._connection.sock is None
            try:
                self._connection.request(method or ("GET" if data is None else "POST"), path, data, headers)
                return self._connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                # An agent closes a connection that was idle; the next request finds out.
                if fresh or attempt == 2 or isinstance(error, TimeoutError):
                    raise self._unreachable(error) from None
        raise AssertionError("the loop returns or raises")

    def _unreachable(self, error: Exception) -> EvidenceError:
        why = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
        return EvidenceError(f"no answer from {self.origin}: {why}; start it with `calico-debug agent`, as root")

    def _refusal(self, response: http.client.HTTPResponse, path: str) -> CalicoDebugError:
        try:
            document = json.loads(response.read(LARGEST_ERROR))
            reason, message = str(document["reason"]), str(document["message"])
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, RecursionError):
            self._connection.close()
            return EvidenceError(f"{self.origin} answered {response.status} at {path}: is it an agent of calico-debug?")
        return ERRORS.get(reason, EvidenceError)(message)


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


def _connection(place: str) -> http.client.HTTPConnection:
    if "://" not in place:
        if not place:
            raise UsageError("--agent names no agent: give the path of its socket, or http://ADDR:PORT")
        return _UnixConnection(place)
    url = urlsplit(place)
    try:
        port = url.port
    except ValueError:
        port = None
    if url.scheme != "http" or not url.hostname or not port or url.path not in ("", "/") or url.query or url.username:
        raise UsageError(f"--agent {place!r} is neither the path of a socket nor http://ADDR:PORT")
    return http.client.HTTPConnection(url.hostname, port, timeout=SECONDS)


def _texts(value: object) -> Sequence[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise EvidenceError("the agent sent a list that is none; is it an agent of calico-debug?")
    return tuple(value)
