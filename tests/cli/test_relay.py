"""The standard streams joined to an agent's socket."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from tests.agent.serving import serving
from tests.evidence.memory import MemoryNode, MemorySource

PROGRAM = Path(sys.executable).with_name("calico-debug")
SECONDS = 30
REQUEST = b"GET /v1/nodes HTTP/1.1\r\nHost: agent\r\n\r\n"


def relay(path: str, sent: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([PROGRAM, "agent-relay", "--socket", path], input=sent, capture_output=True, timeout=SECONDS)


def test_an_agent_answers_through_it(tmp_path: Path) -> None:
    big = "x" * 3_000_000
    with serving(tmp_path, MemorySource({}, {"n1": MemoryNode({"big": big})})) as agent:
        command = [PROGRAM, "agent-relay", "--socket", agent.path]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for path, wanted in (("/v1/nodes", 17), ("/v1/nodes/n1/files/big", len(big))):
                process.stdin.write(b"GET %s HTTP/1.1\r\nHost: agent\r\n\r\n" % path.encode())
                process.stdin.flush()
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += process.stdout.read(1)
                assert b"200 OK" in head
                assert len(process.stdout.read(wanted)) == wanted
            process.stdin.close()
            assert process.wait(SECONDS) == 0


def test_it_ends_when_the_agent_does(tmp_path: Path) -> None:
    path = str(tmp_path / "agent.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        with subprocess.Popen(
            [PROGRAM, "agent-relay", "--socket", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            connection, _ = server.accept()
            connection.sendall(b"bye")
            connection.close()
            assert process.stdout is not None
            assert process.stdout.read() == b"bye"
            assert process.wait(SECONDS) == 0


def test_the_end_of_its_input_ends_it(tmp_path: Path) -> None:
    with serving(tmp_path, MemorySource({}, {"n1": MemoryNode({})})) as agent:
        assert relay(agent.path, b"").returncode == 0


def test_without_an_agent_it_is_one_line(tmp_path: Path) -> None:
    done = relay(str(tmp_path / "none"), REQUEST)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"calico-debug: error: no agent at ")
    assert len(done.stderr.splitlines()) == 1
