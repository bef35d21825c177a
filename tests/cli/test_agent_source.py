"""Evidence through an agent is the evidence that the agent has."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from calico_debug.cli.agent_client import AgentClient
from calico_debug.cli.agent_source import AgentSource
from calico_debug.cli.environment import Place, Question
from calico_debug.cli.tracer import EvidenceTracer, open_source
from calico_debug.errors import EvidenceError, MissingEvidence, UsageError
from calico_debug.evidence.bpf import LiveMaps
from calico_debug.evidence.source import PointLookups
from calico_debug.explain.document import to_document
from calico_debug.model.bpf_objects import MapInfo, RawEntries
from calico_debug.model.conntrack import Tuple
from tests.agent.serving import serving
from tests.agent.test_evidence_routes import Netlink
from tests.evidence.memory import MemoryNode, MemorySource
from tests.recordings import Recording, recordings

if TYPE_CHECKING:
    from pathlib import Path

    from calico_debug.evidence.bpf import KernelMaps

KEPT = [found[0] for ending in ("1-nft", "-iptables", "1-bpf") if (found := recordings(ending))]


@pytest.mark.parametrize("recording", KEPT, ids=lambda recording: recording.name)
def test_a_trace_through_an_agent_is_the_same(recording: Recording, tmp_path: Path) -> None:
    question = Question("client/client-5f8b", "svc/management-ui/management-ui")
    direct = EvidenceTracer(recording.source).trace(question)
    with serving(tmp_path, recording.source) as agent:
        through = EvidenceTracer(AgentSource(AgentClient(agent.path))).trace(question)
        over_tcp = EvidenceTracer(AgentSource(AgentClient(f"http://127.0.0.1:{agent.port}"))).trace(question)
    assert to_document(through) == to_document(over_tcp) == to_document(direct)


class LiveNode(MemoryNode):
    """Answers single questions, too."""

    def __init__(self) -> None:
        super().__init__(
            {"bpf/map-show.json": '[{"id":7,"type":"hash","name":"cali_x","bytes_key":4,"bytes_value":8}]'}
        )
        self.nftables = Netlink()
        self.wanted: list[Tuple] = []
        self.looked_up: list[tuple[int, bytes]] = []

    def find_connection(self, wanted: Tuple) -> bytes:
        self.wanted.append(wanted)
        return b"a connection\n"

    def read_sysctl(self, key: str) -> str | None:
        return {"net.ipv4.conf.vxlan/calico.rp_filter": "1"}.get(key)

    @property
    def kernel_maps(self) -> KernelMaps:
        return self

    def lookup(self, info: MapInfo, key: bytes) -> bytes | None:
        self.looked_up.append((info.value_size, key))
        return b"\x01" * 8 if key == bytes(4) else None

    def batches(self, info: MapInfo) -> Iterator[RawEntries]:  # noqa: ARG002
        yield RawEntries(bytes(8), bytes(16), 2)
        yield RawEntries(b"abcd", bytes(32), 1, 4)

    def close(self) -> None:
        pass


def test_single_questions_reach_the_node(tmp_path: Path) -> None:
    live = LiveNode()
    with serving(tmp_path, MemorySource({}, {"n1": live})) as agent:
        node = AgentSource(AgentClient(agent.path)).node("n1")
        assert isinstance(node, PointLookups)
        assert isinstance(node, LiveMaps)
        assert node.nftables is not None
        assert list(node.nftables(7, 0x300, 2, b"\x01")) == [b"one", b"", b"three"]
        tuples = [
            Tuple(6, ip_address("10.0.0.1"), ip_address("10.0.0.2"), 1, 80),
            Tuple(58, ip_address("fd00::1"), ip_address("fd00::2"), icmp=(128, 0, 9), zone=3),
        ]
        for one in tuples:
            assert node.find_connection(one) == b"a connection\n"
        assert live.wanted == tuples
        assert node.read_sysctl("net.ipv4.conf.vxlan/calico.rp_filter") == "1"
        assert node.read_sysctl("net.nothing") is None
        # The kernel's sizes count, whatever the client says.
        info = MapInfo(7, "cali_x", "hash", 4, 4000)
        assert node.kernel_maps.lookup(info, bytes(4)) == b"\x01" * 8
        assert node.kernel_maps.lookup(info, b"\xff" * 4) is None
        assert live.looked_up == [(8, bytes(4)), (8, b"\xff" * 4)]
        assert list(node.kernel_maps.batches(info)) == list(live.batches(info))
        with pytest.raises(UsageError, match="does not fit"):
            node.kernel_maps.lookup(info, bytes(5))
        with pytest.raises(MissingEvidence, match="no map 8"):
            node.kernel_maps.lookup(MapInfo(8, "x", "hash", 4, 4), bytes(4))


def test_errors_keep_their_kind_and_words(tmp_path: Path) -> None:
    with serving(tmp_path, MemorySource({"pods.json": "{}"}, {"n1": MemoryNode({"a b/ü.txt": "x"})})) as agent:
        source = AgentSource(AgentClient(agent.path))
        assert source.node("n1").read("a b/ü.txt") == b"x"
        with pytest.raises(MissingEvidence, match="nothing of n1 is not there: record it"):
            source.node("n1").read("nothing")
        with pytest.raises(MissingEvidence, match=r"cluster/x\.json"):
            source.read_cluster("x.json")


def test_a_connection_that_was_closed_meanwhile_is_opened_again(tmp_path: Path) -> None:
    with serving(tmp_path, MemorySource({}, {"n1": MemoryNode({})})) as agent:
        source = AgentSource(AgentClient(agent.path))
        assert source.nodes() == ("n1",)
        for channel in agent.listeners._channels():
            channel.will_close = True
        assert source.nodes() == ("n1",)


@pytest.mark.parametrize(
    "place", ["", "https://127.0.0.1", "http://127.0.0.1", "http://a:b", "http://u@h:1", "ftp://h:1"]
)
def test_places_that_are_none(place: str) -> None:
    with pytest.raises(UsageError, match="--agent"):
        AgentClient(place)


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="start it with `calico-debug agent`"):
        AgentSource(AgentClient(str(tmp_path / "none.sock"))).nodes()


@contextmanager
def somebody(answer: bytes) -> Iterator[str]:
    """A server that says ``answer`` to the first request and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak() -> None:
            connection, _ = server.accept()
            connection.recv(65536)
            connection.sendall(answer)
            connection.close()

        thread = threading.Thread(target=speak)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join(10)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnope",
        b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{",
        b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"nodes": 1}',
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
)
def test_whatever_a_stranger_says_is_one_line_for_the_user(answer: bytes) -> None:
    with somebody(answer) as place, pytest.raises(EvidenceError, match="agent"):
        AgentSource(AgentClient(place)).nodes()


def test_the_tracer_takes_an_agent(tmp_path: Path) -> None:
    source = open_source(Place(agent=str(tmp_path / "a.sock")), "darwin")
    assert source.origin == f"agent {tmp_path / 'a.sock'}"


def test_a_cluster_that_the_user_names_goes_before_the_agents(tmp_path: Path) -> None:
    class Cluster:
        origin, namespace = "cluster x", "ns"

        def files(self) -> list[str]:
            return ["pods.json"]

        def read(self, file: str) -> bytes:
            return f"mine, {file}".encode()

    with serving(tmp_path, MemorySource({"services.json": "theirs"}, {"n1": MemoryNode({})})) as agent:
        theirs, mine = AgentSource(AgentClient(agent.path)), AgentSource(AgentClient(agent.path), Cluster())
        assert (theirs.cluster_files(), theirs.read_cluster("services.json")) == (("services.json",), b"theirs")
        assert (mine.cluster_files(), mine.read_cluster("pods.json")) == (["pods.json"], b"mine, pods.json")
        assert mine.nodes() == ("n1",)
