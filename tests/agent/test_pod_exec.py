"""A program in a pod as one stream, against a server that speaks what kubelet does."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from calico_debug.agent.apiserver import ApiServer
from calico_debug.agent.kubeconfig import find_access
from calico_debug.agent.peers import Peer
from calico_debug.agent.pod_exec import PIECE, run_in_pod
from calico_debug.errors import EvidenceError
from tests.agent.exec_server import exec_server
from tests.agent.fake_api_server import kubeconfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from calico_debug.agent.pod_exec import PodStream
    from tests.agent.exec_server import ExecServer

PEER = Peer("n1", "ns", "pod", "10.0.0.1")
SECONDS = 30.0
COPY = """
import sys
while data := sys.stdin.buffer.read1(9000):
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
"""
PROGRAMS = {
    "copy": COPY,
    "fail": "import sys; sys.stderr.write('first\\nno agent at x\\n'); sys.exit(3)",
    "end": "print('bye')",
    "wait": "import sys; print('up', flush=True); sys.stdin.buffer.read()",
}


def command(_: str, words: Sequence[str]) -> Sequence[str]:
    return [sys.executable, "-c", PROGRAMS[words[0]]]


@pytest.fixture
def server() -> Iterator[ExecServer]:
    with exec_server(command) as made:
        yield made


@pytest.fixture
def api(server: ExecServer, tmp_path: Path) -> ApiServer:
    access = find_access(str(kubeconfig(tmp_path, server.url, token="secret")))
    assert access is not None
    return ApiServer(access)


def start(api: ApiServer, word: str, peer: Peer = PEER) -> PodStream:
    stream = run_in_pod(api, peer, "agent", [word])
    stream.settimeout(SECONDS)
    return stream


def test_bytes_go_both_ways(api: ApiServer, server: ExecServer) -> None:
    stream = start(api, "copy")
    sent = bytes(range(256)) * ((3 * PIECE) // 256) + b"end"
    reader = stream.makefile("rb")
    stream.sendall(sent)
    assert reader.read(len(sent)) == sent
    stream.sendall(memoryview(b"more"))
    assert reader.read(4) == b"more"
    reader.close()
    stream.close()
    path, headers = server.asked[0]
    assert path.startswith("/api/v1/namespaces/ns/pods/pod/exec?command=copy&container=agent&stdin=true")
    assert headers["authorization"] == "Bearer secret"
    assert headers["sec-websocket-protocol"] == "v4.channel.k8s.io"
    assert server.running[0].wait(SECONDS) == 0, "the end of its input ends the program"


def test_a_reader_outlives_the_stream(api: ApiServer) -> None:
    """http.client closes the connection before it reads an answer that ends with it."""
    stream = start(api, "end")
    reader = stream.makefile("rb")
    stream.close()
    assert reader.read() == b"bye\n"
    reader.close()


def test_what_the_program_said_is_the_error(api: ApiServer) -> None:
    with pytest.raises(EvidenceError, match=r"fail in pod ns/pod failed: no agent at x$"):
        start(api, "fail").makefile("rb").read()


def test_silence_is_a_timeout(api: ApiServer) -> None:
    stream = start(api, "wait")
    reader = stream.makefile("rb")
    assert reader.read(3) == b"up\n"
    stream.settimeout(0.1)
    with pytest.raises(TimeoutError):
        reader.read(1)
    stream.close()


def test_a_program_that_is_killed_is_named(api: ApiServer, server: ExecServer) -> None:
    reader = start(api, "wait").makefile("rb")
    assert reader.read(3) == b"up\n"
    server.running[0].kill()
    with pytest.raises(EvidenceError, match="wait in pod ns/pod failed: command terminated with non-zero exit code"):
        reader.read(1)


def test_refusals_say_what_to_grant(api: ApiServer, server: ExecServer) -> None:
    server.forbidden.add("pod")
    with pytest.raises(
        EvidenceError, match=r"\(pods/exec is forbidden\): grant get and create on pods/exec in namespace ns"
    ):
        start(api, "copy")


def test_a_server_without_websockets_is_one_line(tmp_path: Path) -> None:
    access = find_access(str(kubeconfig(tmp_path, "http://127.0.0.1:9")))
    assert access is not None
    with pytest.raises(EvidenceError, match=r"cannot run copy in pod ns/pod through http://127\.0\.0\.1:9 ") as error:
        start(ApiServer(access), "copy")
    assert "\n" not in str(error.value)
