"""Nodes through their agents: who is asked, and what an answer is worth when one of them fails."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from calico_debug.cli.agent_client import AgentClient
from calico_debug.cli.environment import Question
from calico_debug.cli.reach import MOST_NODES, PeerSource, Reach
from calico_debug.cli.reaching_tracer import ReachingTracer
from calico_debug.cli.tracer import EvidenceTracer
from calico_debug.errors import CalicoDebugError, EvidenceError, MissingEvidence
from calico_debug.explain.document import to_document
from calico_debug.model.bpf_objects import RawEntries
from tests.agent.serving import serving
from tests.recordings import DATA, Recording

if TYPE_CHECKING:
    from pathlib import Path

    from calico_debug.evidence.source import EvidenceSource, NetlinkDump, NodeEvidence
    from calico_debug.model.explanation import FlowExplanation
    from calico_debug.model.flow import Flow
    from calico_debug.state.cluster import ClusterState

RECORDING = Recording(DATA / "v3.32.1-nft.tar.xz")
ALLOWED = Question("client/client-5f8b", "svc/stars/backend")
SHORT, SECONDS = 0.5, 30.0
DENIED = Question("client/client-5f8b", "svc/management-ui/management-ui")


class OneNode:
    """A source with one node of another one; ``altered`` files are what an agent tells instead of the truth."""

    def __init__(self, source: EvidenceSource, name: str, altered: Mapping[str, bytes]) -> None:
        self._source, self._name, self._altered = source, name, altered
        self.origin = source.origin

    def nodes(self) -> Sequence[str]:
        return (self._name,)

    def node(self, name: str) -> NodeEvidence:
        if name != self._name:
            raise MissingEvidence(f"node {name} is not reachable from here, this is {self._name}: run there")
        return Altered(self._source.node(name), self._altered)

    def cluster_files(self) -> Sequence[str]:
        raise AssertionError("objects are the API server's")

    def read_cluster(self, file: str) -> bytes:
        raise AssertionError(f"{file} is the API server's")


class Altered:
    """A node with other contents of some files."""

    nftables = None

    def __init__(self, node: NodeEvidence, altered: Mapping[str, bytes]) -> None:
        self._node, self._altered = node, altered
        self.name, self.origin, self.taken_at = node.name, node.origin, node.taken_at

    def files(self) -> Sequence[str]:
        return self._node.files()

    def read(self, file: str) -> bytes:
        return self._altered[file] if file in self._altered else self._node.read(file)


class Objects:
    """The recording's objects as a cluster that is asked live."""

    origin, namespace = "the cluster", ""

    def files(self) -> Sequence[str]:
        return RECORDING.source.cluster_files()

    def read(self, file: str) -> bytes:
        return RECORDING.source.read_cluster(file)


class Sockets:
    """Implements `Agents`, by path. ``asked`` are nodes, in order; of those ``silent`` nothing is waited for long."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self.places = dict(places)
        self.asked: list[str] = []
        self.silent: set[str] = set()

    def replace(self, node: str, place: str) -> None:
        """Somebody else answers for a node."""
        self.places[node] = place
        self.silent.add(node)

    def agent(self, node: str) -> PeerSource:
        self.asked.append(node)
        if node not in self.places:
            raise EvidenceError(f"namespace x has no agent on {node}: install it there")
        client = AgentClient(self.places[node], remedy="look at it")
        client._connection.timeout = SHORT if node in self.silent else SECONDS
        return PeerSource(node, client)


@contextmanager
def agents(folder: Path, altered: Mapping[str, Mapping[str, bytes]] | None = None) -> Iterator[Sockets]:
    """An agent for each node of the recording."""
    with ExitStack() as stack:
        places = {}
        for name in RECORDING.source.nodes():
            (folder / name).mkdir()
            source = OneNode(RECORDING.source, name, (altered or {}).get(name, {}))
            places[name] = stack.enter_context(serving(folder / name, source)).path
        yield Sockets(places)


def ask(sockets: Sockets, question: Question) -> FlowExplanation:
    return ReachingTracer(Reach(None, Objects(), sockets)).trace(question)


def codes(explanation: FlowExplanation) -> Mapping[str, str]:
    return {finding.code: finding.message for finding in explanation.findings if finding.severity != "info"}


@pytest.mark.parametrize("question", [ALLOWED, DENIED, replace(DENIED, wanted="allowed")])
def test_through_agents_the_answer_is_the_bundles(tmp_path: Path, question: Question) -> None:
    with agents(tmp_path) as sockets:
        through = ask(sockets, question)
    assert to_document(through) == to_document(EvidenceTracer(RECORDING.source).trace(question))
    assert sorted(sockets.asked) == ["node1", "node2"]


def test_nodes_beside_the_flow_are_not_asked(tmp_path: Path) -> None:
    """Both ends on one node."""
    one = next((a, b) for a in pods() for b in pods() if a != b and a[2] == b[2] and not a[0].startswith("kube-"))
    with agents(tmp_path) as sockets:
        ask(sockets, Question("/".join(one[0][:2]), f"{'/'.join(one[1][:2])}:80"))
    assert sockets.asked == [one[0][2]]


def pods() -> list[tuple[str, str, str]]:
    from calico_debug.state.cluster import load_cluster

    found = load_cluster(RECORDING.source).pods
    return [(pod.namespace, pod.name, pod.node) for pod in found if pod.addresses and not pod.host_network]


def test_an_agent_is_asked_once_for_many_flows(tmp_path: Path) -> None:
    with agents(tmp_path) as sockets:
        tracer = ReachingTracer(Reach(None, Objects(), sockets))
        verdicts = [tracer.trace(question).verdict for question in (ALLOWED, DENIED, ALLOWED)]
    assert verdicts[0] == verdicts[2]
    assert sorted(sockets.asked) == ["node1", "node2"]


@pytest.mark.parametrize("gone", ["node1", "node2"])
@pytest.mark.parametrize("question", [ALLOWED, DENIED])
def test_without_one_agent_the_answer_is_the_other_nodes(tmp_path: Path, gone: str, question: Question) -> None:
    with agents(tmp_path) as sockets:
        del sockets.places[gone]
        found = ask(sockets, question)
    why = f"namespace x has no agent on {gone}: install it there"
    assert codes(found)["node-not-read"] == f"{gone}: {why}"
    assert found.verdict == ("denied" if (question, gone) == (DENIED, "node2") else "undetermined")
    if found.verdict == "undetermined":
        assert found.decision is not None
        assert why in found.decision.detail


def test_an_agent_that_ends_in_the_middle_leaves_half_an_answer(tmp_path: Path) -> None:
    """It tells its node, and is gone at the next question."""
    hello = b'{"live": false, "takenAt": "", "version": "0.1.0"}'
    with agents(tmp_path) as sockets, stranger(tmp_path, [http(hello)]) as place:
        sockets.replace("node2", place)
        found = ask(sockets, DENIED)
    assert found.verdict == "denied"
    assert codes(found)["node-not-read"].startswith("node2: no answer from agent ")


def test_a_slow_agent_is_waited_for_once(tmp_path: Path) -> None:
    with agents(tmp_path) as sockets, stranger(tmp_path, []) as place:
        sockets.replace("node2", place)
        found = ask(sockets, DENIED)
    assert found.verdict == "denied"
    assert "timed out" in codes(found)["node-not-read"]
    assert sockets.asked.count("node2") == 1


def test_another_nodes_agent_is_not_believed(tmp_path: Path) -> None:
    with agents(tmp_path) as sockets:
        sockets.places["node2"] = sockets.places["node1"]
        found = ask(sockets, DENIED)
    assert "that of another node (node node2 is not reachable from here, this is node1" in codes(found)["node-not-read"]


def test_an_agent_of_another_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calico_debug.agent.evidence_routes.__version__", "9.9.9")
    with agents(tmp_path) as sockets:
        found = ask(sockets, DENIED)
    assert found.verdict == "denied"
    assert "is of version 9.9.9, this command of " in codes(found)["agent-version"]


GARBAGE = (
    b"",
    b"\xff\xfe\x00",
    b"[]",
    b"{}",
    b"null",
    b"[" * 5000,
    b'[{"x": 1}]',
    b'{"nftables": [{"rule": {}}]}',
    b"x" * 99,
)


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize(
    "file", ["nft-ruleset.json", "ip-route-all.json", "ip-addr.json", "ip-link.json", "ip-rule.json"]
)
def test_lies_end_in_an_answer_or_in_one_line(tmp_path: Path, file: str, garbage: bytes) -> None:
    with agents(tmp_path, {"node2": {file: garbage}}) as sockets:
        try:
            said = ask(sockets, ALLOWED).verdict
        except CalicoDebugError as error:
            said = str(error)
    assert said
    assert "\n" not in said


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        *(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(one), one) for one in GARBAGE),
    ],
)
def test_strangers_are_not_believed(tmp_path: Path, answer: bytes) -> None:
    with agents(tmp_path) as sockets, stranger(tmp_path, [answer] * 9) as place:
        sockets.replace("node2", place)
        found = ask(sockets, DENIED)
    assert found.verdict == "denied"
    assert "node-not-read" in codes(found)


def test_a_node_on_the_way_is_asked_when_the_walk_comes_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a node that no object of the flow's ends names."""

    def first_only(flow: Flow, _: ClusterState) -> Sequence[str]:
        return (flow.source.node or "",)

    monkeypatch.setattr("calico_debug.cli.reaching_tracer.flow_nodes", first_only)
    with agents(tmp_path) as sockets:
        through = ask(sockets, DENIED)
    assert to_document(through) == to_document(EvidenceTracer(RECORDING.source).trace(DENIED))
    assert sockets.asked == ["node1", "node2"]


def test_no_more_nodes_are_asked_than_is_said() -> None:
    sockets = Sockets({})
    reach = Reach(None, Objects(), sockets)
    names = [f"n{number}" for number in range(MOST_NODES + 3)]
    assert reach.open(names) == ()
    assert sockets.asked == names[:MOST_NODES]
    assert "no more than 16 nodes" in reach.absence(names[-1])
    with pytest.raises(MissingEvidence, match="there is no evidence of node n0: namespace x has no agent"):
        reach.node("n0")


def http(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@contextmanager
def stranger(folder: Path, answers: Sequence[bytes]) -> Iterator[str]:
    """A socket where each connection gets the next of the answers to its first request; later ones get silence."""
    path = str(folder / "stranger.sock")
    ended = threading.Event()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()

        def speak() -> None:
            kept = []
            for answer in [*answers, None]:
                connection, _ = server.accept()
                if ended.is_set():
                    connection.close()
                    break
                connection.recv(65536)
                if answer is None:
                    kept.append(connection)
                    continue
                connection.sendall(answer)
                connection.close()
            ended.wait(10)
            for one in kept:
                one.close()

        thread = threading.Thread(target=speak)
        thread.start()
        try:
            yield path
        finally:
            ended.set()
            with socket.socket(socket.AF_UNIX) as last:
                last.connect(path)
            thread.join(10)


class LyingKernel(Altered):
    """A node whose kernel answers single questions with whatever it is given."""

    def __init__(self, node: NodeEvidence, lie: bytes) -> None:
        super().__init__(node, {})
        self._lie = lie

    @property
    def nftables(self) -> NetlinkDump:  # type: ignore[override]
        return lambda *_: [self._lie, self._lie]

    def find_connection(self, _: object) -> bytes:
        return self._lie

    def read_sysctl(self, _: str) -> str:
        return self._lie.decode("latin-1")

    @property
    def kernel_maps(self) -> LyingKernel:
        return self

    def lookup(self, *_: object) -> bytes:
        return self._lie

    def batches(self, _: object) -> Iterator[RawEntries]:
        yield RawEntries(self._lie, self._lie, len(self._lie), 1)


class LyingSource(OneNode):
    """With such a node."""

    def __init__(self, source: EvidenceSource, name: str, lie: bytes) -> None:
        super().__init__(source, name, {})
        self._lie = lie

    def node(self, name: str) -> NodeEvidence:
        return LyingKernel(self._source.node(name), self._lie)


TABLE = bytes.fromhex("0200000b0b000100") + b"calico\0\0"
"""An nfgenmsg and the name of a table."""
LIES = (
    b"",
    b"\x00",
    b"\xff" * 40,
    bytes(range(256)),
    TABLE,
    TABLE + b"\xff" * 8,
    TABLE + b"\x05\x00\x03\x00\x01",
    b"tcp 6 x",
)


@pytest.mark.parametrize("lie", LIES)
def test_lies_of_a_kernel_end_in_an_answer_or_in_one_line(tmp_path: Path, lie: bytes) -> None:
    with agents(tmp_path) as sockets, serving(tmp_path, LyingSource(RECORDING.source, "node2", lie)) as liar:
        sockets.places["node2"] = liar.path
        try:
            said = ask(sockets, ALLOWED).verdict
        except CalicoDebugError as error:
            said = str(error)
    assert said
    assert "\n" not in said


def test_of_many_flows_a_later_one_finds_a_node_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with agents(tmp_path) as sockets:
        place = sockets.places.pop("node2")
        tracer = ReachingTracer(Reach(None, Objects(), sockets))
        assert "node-not-read" in codes(tracer.trace(DENIED))
        sockets.places["node2"] = place
        assert "node-not-read" in codes(tracer.trace(DENIED)), "it is left alone for a while"
        monkeypatch.setattr("calico_debug.cli.reach.RETRY_SECONDS", 0)
        assert codes(tracer.trace(DENIED)) == {}
    assert sockets.asked == ["node1", "node2", "node2"]


def test_a_node_beyond_the_limit_of_one_flow_is_asked_for_another() -> None:
    sockets = Sockets({})
    reach = Reach(None, Objects(), sockets)
    names = [f"n{number}" for number in range(MOST_NODES + 1)]
    reach.open(names)
    reach.open(names[-1:])
    assert sockets.asked[-1] == names[-1]
    assert "has no agent" in reach.absence(names[-1])


def test_an_agent_that_is_busy_is_asked_again(tmp_path: Path) -> None:
    busy = json.dumps({"reason": "busy", "message": "others are answered"}).encode()
    refusal = b"HTTP/1.1 503 Busy\r\nContent-Length: %d\r\n\r\n%s" % (len(busy), busy)
    hello = b'{"live": false, "takenAt": "", "version": "0.1.0"}'
    with stranger(tmp_path, [refusal, refusal, http(hello)]) as place:
        peer = PeerSource("n1", AgentClient(place))
        assert peer.begin().name == "n1"
        assert peer.failure is None
    (tmp_path / "again").mkdir()
    with stranger(tmp_path / "again", [refusal] * 9) as place:
        peer = PeerSource("n1", AgentClient(place))
        with pytest.raises(EvidenceError, match="others are answered"):
            peer.begin()
        assert peer.failure is not None
