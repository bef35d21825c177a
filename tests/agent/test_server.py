"""Clients that are slow, rude or gone, and how the agent starts and stops."""

from __future__ import annotations

import http.client
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from calico_debug.agent import server
from calico_debug.agent.application import LARGEST_BODY
from calico_debug.agent.routing import BYTES, Answer, Request, Route
from calico_debug.agent.server import Listeners
from calico_debug.agent.settings import Address
from calico_debug.errors import EvidenceError
from tests.agent.serving import SECONDS, serving


class Slow:
    """Routes that hold still until told to go on, and that never end by themselves."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()
        self.ended = threading.Event()

    def hold(self, _request: Request) -> Answer:
        self.entered.release()
        assert self.go.wait(SECONDS)
        return Answer([b"held"], BYTES)

    def endless(self, request: Request) -> Answer:
        def pieces() -> Iterator[bytes]:
            try:
                for _ in range(1 << 20):
                    yield bytes(1 << 16)
            finally:
                self.ended.set()

        request.closing.callback(self.ended.set)
        return Answer(pieces(), BYTES)

    def working(self, request: Request) -> Answer:
        """Works, and looks now and then whether somebody waits."""
        self.entered.release()
        pause = threading.Event()
        try:
            for _ in range(int(SECONDS / 0.01)):
                request.check()
                pause.wait(0.01)
        finally:
            self.ended.set()
        return Answer([b"done"], BYTES)

    def quick(self, _request: Request) -> Answer:
        return Answer([b"quick"], BYTES)

    def table(self) -> list[Route]:
        return [
            Route("GET", "/hold", "hold", "", "", self.hold, BYTES),
            Route("GET", "/endless", "endless", "", "", self.endless, BYTES),
            Route("GET", "/working", "working", "", "", self.working, BYTES),
            Route("GET", "/quick", "quick", "", "", self.quick, BYTES),
            Route("GET", "/large", "large", "", "", self.hold, BYTES, large=True),
            Route("GET", "/light", "light", "", "", self.quick, BYTES, light=True),
        ]


def test_only_so_many_requests_are_worked_on_and_light_ones_come_on_top(tmp_path: Path) -> None:
    slow = Slow()
    with serving(tmp_path, table=slow.table, concurrent=2) as agent:
        holding = [agent.connect() for _ in range(2)]
        for connection in holding:
            connection.sendall(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        for _ in holding:
            assert slow.entered.acquire(timeout=SECONDS)
        status, headers, _ = agent.ask("/quick")
        assert (status, headers["Retry-After"]) == (503, "1")
        assert agent.ask("/light")[::2] == (200, b"quick")
        slow.go.set()
        for connection in holding:
            assert b"200 OK" in connection.recv(4096)
            connection.close()
        assert agent.ask("/quick")[::2] == (200, b"quick")


def test_large_answers_are_made_one_at_a_time(tmp_path: Path) -> None:
    slow = Slow()
    with serving(tmp_path, table=slow.table, concurrent=2) as agent:
        connection = agent.connect()
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        assert slow.entered.acquire(timeout=SECONDS)
        for _ in range(3):
            assert agent.ask("/large")[0] == 503
            assert agent.ask("/quick")[0] == 200
        slow.go.set()
        assert b"200 OK" in connection.recv(4096)
        connection.close()
        assert agent.ask("/large")[0] == 200


def test_work_ends_when_its_client_goes(tmp_path: Path) -> None:
    slow = Slow()
    with serving(tmp_path, table=slow.table, concurrent=1) as agent:
        connection = agent.connect()
        connection.sendall(b"GET /working HTTP/1.1\r\nHost: a\r\n\r\n")
        assert slow.entered.acquire(timeout=SECONDS)
        connection.close()
        assert slow.ended.wait(SECONDS / 2), "the work went on for nobody"


def test_a_long_answer_ends_when_its_client_goes(tmp_path: Path) -> None:
    slow = Slow()
    with serving(tmp_path, table=slow.table, concurrent=1) as agent:
        connection = agent.connect()
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(1 << 16)
        connection.close()
        assert slow.ended.wait(SECONDS)


def test_the_time_of_a_request_ends(tmp_path: Path) -> None:
    slow = Slow()
    with serving(tmp_path, table=slow.table, seconds=0.05) as agent:
        assert agent.ask("/working")[0] == 504
        assert slow.ended.is_set()


def test_an_answer_that_nobody_takes_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "EXCHANGE_SECONDS", 0.2)
    slow = Slow()
    with serving(tmp_path, table=slow.table, concurrent=1) as agent:
        connection = agent.connect()
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        assert slow.ended.wait(SECONDS), "a client that does not read kept a thread"
        connection.close()


def test_a_request_that_comes_drop_by_drop_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.2)
    slow = Slow()
    with serving(tmp_path, table=slow.table) as agent:
        connection = agent.connect()
        connection.settimeout(0.05)
        connection.sendall(b"GET /quick HT")
        closed = False
        for _ in range(200):
            try:
                connection.sendall(b"T")
                closed = connection.recv(10) == b""
            except TimeoutError:
                continue
            except OSError:
                closed = True
            if closed:
                break
        assert closed
        assert agent.ask("/quick")[::2] == (200, b"quick")


def test_silent_connections_leave_room_for_others(tmp_path: Path) -> None:
    slow = Slow()
    with serving(tmp_path, table=slow.table) as agent:
        silent = [agent.connect() for _ in range(40)]
        assert agent.ask("/quick")[::2] == (200, b"quick")
        for connection in silent:
            connection.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /quick HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (server.LARGEST_HEADER + 1) + b"\r\n\r\n", b"431"),
        (b"POST /quick HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n", b"413"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET /quick HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"GET /quick HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
    ],
)
def test_requests_that_are_none_are_refused(tmp_path: Path, sent: bytes, status: bytes) -> None:
    with serving(tmp_path, table=Slow().table) as agent:
        connection = agent.connect()
        connection.sendall(sent)
        answer = connection.recv(4096)
        connection.close()
        assert answer.split()[1] == status, answer
        assert b"Traceback" not in answer
        assert agent.ask("/quick")[0] == 200


def test_other_methods_leave_the_connection_usable(tmp_path: Path) -> None:
    with serving(tmp_path, table=Slow().table) as agent:
        connection = http.client.HTTPConnection("127.0.0.1", agent.port, timeout=SECONDS)
        for method, path, status in (("HEAD", "/quick", 405), ("HEAD", "/x", 404), ("DELETE", "/quick", 405)):
            connection.request(method, path)
            response = connection.getresponse()
            response.read()
            assert (response.status, response.getheader("Allow")) == (status, "GET" if status == 405 else None)
            connection.request("GET", "/quick")
            assert connection.getresponse().read() == b"quick"
        connection.close()


def test_a_chunked_body_is_bounded(tmp_path: Path) -> None:
    with serving(tmp_path, table=Slow().table) as agent:
        connection = agent.connect()
        connection.sendall(b"POST /quick HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        answer = b""
        chunk = b"4000\r\n" + bytes(0x4000) + b"\r\n"
        try:
            for _ in range(4 * LARGEST_BODY // 0x4000):
                connection.sendall(chunk)
            answer = connection.recv(4096)
        except OSError:
            answer = b"HTTP/1.1 413 closed"
        connection.close()
        assert b" 413 " in answer


def test_the_socket_is_its_owners_alone(tmp_path: Path) -> None:
    with serving(tmp_path, table=Slow().table) as agent:
        assert stat.S_IMODE(Path(agent.path).stat().st_mode) == 0o600
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.connect(agent.path)
        connection.request("GET", "/quick")
        assert connection.getresponse().read() == b"quick"
        connection.close()
        with pytest.raises(EvidenceError, match="another agent listens"):
            Listeners().unix(agent.path, None)  # type: ignore[arg-type]
    assert not Path(agent.path).exists()


def test_a_dead_agents_socket_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    left = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(left))
    with serving(tmp_path, table=Slow().table) as agent:
        assert agent.ask("/quick")[0] == 200
    left.write_text("kept")
    with pytest.raises(EvidenceError, match="no socket"):
        Listeners().unix(str(left), None)  # type: ignore[arg-type]
    assert left.read_text() == "kept"


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with serving(tmp_path, table=Slow().table) as agent, pytest.raises(EvidenceError, match="cannot listen on 127"):
        Listeners().tcp(Address("127.0.0.1", agent.port), None)  # type: ignore[arg-type]


def test_stopping_lets_an_answer_end_and_takes_no_more(tmp_path: Path) -> None:
    slow = Slow()
    with serving(tmp_path, table=slow.table) as agent:
        connection = agent.connect()
        connection.sendall(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        assert slow.entered.acquire(timeout=SECONDS)
        agent.listeners.stop()
        slow.go.set()
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
        assert answer.endswith(b"held")
        connection.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the agent runs on Linux")
def test_sigterm_ends_the_process_cleanly(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    program = Path(sys.executable).with_name("calico-debug")
    arguments = [program, "agent", "--socket", path, "--metrics", "127.0.0.1:0", "--node", "n1"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = [process.stderr.readline() for _ in range(2)]
            assert "listening on" in lines[0], lines
            assert "metrics on" in lines[1], lines
            assert path.exists()
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert (process.returncode, out) == (0, ""), err
    assert "Traceback" not in err
    assert not path.exists()
