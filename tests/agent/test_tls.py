"""Clients that are slow, rude or gone, over TLS; and that other listeners do not notice them."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from calico_debug.agent import server, tls
from calico_debug.agent.application import LARGEST_BODY
from calico_debug.agent.certificate import OwnCertificate
from tests.agent.serving import SECONDS, Agent, serving
from tests.agent.test_server import Slow

if TYPE_CHECKING:
    from pathlib import Path

CERTIFICATE = OwnCertificate(["n1", "127.0.0.1"])
QUICK = b"GET /quick HTTP/1.1\r\nHost: a\r\n\r\n"


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=CERTIFICATE.pem())
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


@contextmanager
def secured(folder: Path, slow: Slow | None = None, **limits: float) -> Iterator[Agent]:
    with serving(folder, table=(slow or Slow()).table, certificate=CERTIFICATE, **limits) as agent:
        yield agent


def connect(agent: Agent) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", agent.secure), timeout=SECONDS)
    return trusting().wrap_socket(plain, server_hostname="127.0.0.1")


def ask(agent: Agent, path: str = "/quick") -> tuple[int, bytes]:
    connection = http.client.HTTPSConnection("127.0.0.1", agent.secure, timeout=SECONDS, context=trusting())
    connection.request("GET", path)
    response = connection.getresponse()
    found = response.status, response.read()
    connection.close()
    return found


def ended(connection: socket.socket) -> bool:
    """Whether the other side ends the connection, in whichever way."""
    try:
        while connection.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_requests_over_tls(tmp_path: Path) -> None:
    with secured(tmp_path) as agent:
        assert ask(agent) == (200, b"quick")
        connection = connect(agent)
        assert connection.version() == "TLSv1.3"
        for _ in range(3):
            connection.sendall(QUICK)
            answer = b""
            while not answer.endswith(b"quick"):
                answer += connection.recv(4096)
        connection.close()


def test_long_answers_arrive_whole(tmp_path: Path) -> None:
    slow = Slow()
    with secured(tmp_path, slow) as agent:
        connection = connect(agent)
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        taken = 0
        while taken < 20 << 20:
            taken += len(connection.recv(1 << 16))
        connection.close()
        assert slow.ended.wait(SECONDS), "the answer went on for nobody"


def test_nothing_older_than_tls_1_3(tmp_path: Path) -> None:
    with secured(tmp_path) as agent:
        context = trusting()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        plain = socket.create_connection(("127.0.0.1", agent.secure), timeout=SECONDS)
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(plain, server_hostname="127.0.0.1")
        plain.close()
        assert ask(agent)[0] == 200


def test_work_ends_when_its_client_goes(tmp_path: Path) -> None:
    slow = Slow()
    with secured(tmp_path, slow, concurrent=1) as agent:
        connection = connect(agent)
        connection.sendall(b"GET /working HTTP/1.1\r\nHost: a\r\n\r\n")
        assert slow.entered.acquire(timeout=SECONDS)
        connection.close()
        assert slow.ended.wait(SECONDS / 2), "the work went on for nobody"
        assert ask(agent)[0] in (200, 503)


def test_a_client_that_closes_its_side_is_gone(tmp_path: Path) -> None:
    slow = Slow()
    with secured(tmp_path, slow, concurrent=1) as agent:
        connection = connect(agent)
        connection.sendall(b"GET /working HTTP/1.1\r\nHost: a\r\n\r\n")
        assert slow.entered.acquire(timeout=SECONDS)
        connection.shutdown(socket.SHUT_WR)
        assert slow.ended.wait(SECONDS / 2), "the work went on for nobody"
        connection.close()


def test_an_answer_that_nobody_takes_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "EXCHANGE_SECONDS", 0.2)
    slow = Slow()
    with secured(tmp_path, slow, concurrent=1) as agent:
        connection = connect(agent)
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        assert slow.ended.wait(SECONDS), "a client that does not read kept a thread"
        connection.close()


@pytest.mark.parametrize("start", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
def test_a_handshake_that_does_not_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_SECONDS", 0.2)
    with secured(tmp_path) as agent:
        plain = socket.create_connection(("127.0.0.1", agent.secure), timeout=SECONDS)
        plain.sendall(start)
        assert ended(plain)
        plain.close()
        assert ask(agent)[0] == 200


@pytest.mark.parametrize("garbage", [QUICK, b"\x00" * 5000, b"SSH-2.0-OpenSSH_9.2\r\n", b"\x16\x03\x01\xff\xff" * 4000])
def test_what_is_no_tls_is_ended_at_once(tmp_path: Path, garbage: bytes) -> None:
    with secured(tmp_path) as agent:
        plain = socket.create_connection(("127.0.0.1", agent.secure), timeout=tls.HANDSHAKE_SECONDS / 2)
        plain.sendall(garbage)
        assert ended(plain)
        plain.close()
        assert ask(agent)[0] == 200


def test_headers_that_come_drop_by_drop_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.3)
    with secured(tmp_path) as agent:
        connection = connect(agent)
        connection.settimeout(0.05)
        connection.sendall(b"GET /quick HTTP/1.1\r\nX: ")
        began = time.monotonic()
        closed = False
        while not closed and time.monotonic() - began < SECONDS:
            try:
                connection.sendall(b"x")
                closed = connection.recv(10) == b""
            except TimeoutError:
                continue
            except OSError:
                closed = True
        assert closed
        connection.close()
        assert ask(agent)[0] == 200


def test_a_body_that_does_not_come_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.2)
    with secured(tmp_path) as agent:
        connection = connect(agent)
        connection.sendall(b"POST /quick HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n{")
        assert ended(connection)
        connection.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /quick HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (server.LARGEST_HEADER + 1) + b"\r\n\r\n", b"431"),
        (b"POST /quick HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (LARGEST_BODY + 1), b"413"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
    ],
)
def test_requests_that_are_none_are_refused(tmp_path: Path, sent: bytes, status: bytes) -> None:
    with secured(tmp_path) as agent:
        connection = connect(agent)
        connection.sendall(sent)
        assert connection.recv(12).split()[1] == status
        connection.close()


def test_garbage_behind_a_request_harms_nobody(tmp_path: Path) -> None:
    with secured(tmp_path) as agent:
        connection = connect(agent)
        connection.sendall(QUICK * 3 + b"\x00\xff garbage\r\n\r\n" * 20)
        answers = b""
        while piece := connection.recv(1 << 16):
            answers += piece
        assert answers.count(b"200 OK") == 3
        assert b"400 Bad Request" in answers
        connection.close()
        assert ask(agent)[0] == 200


def test_floods_close_one_listener_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that say nothing, three times as many as are allowed."""
    monkeypatch.setattr(server, "CONNECTIONS", 10)
    monkeypatch.setattr(tls, "HANDSHAKE_SECONDS", 1.0)
    with secured(tmp_path) as agent:
        silent = [socket.create_connection(("127.0.0.1", agent.secure), timeout=SECONDS) for _ in range(30)]
        for _ in range(3):
            began = time.monotonic()
            assert agent.ask("/quick")[::2] == (200, b"quick")
            assert time.monotonic() - began < 1.0
        taken = [one for one in agent.listeners._servers if one.active_channels]
        assert all(len(one.active_channels) <= 10 for one in taken)
        # And when the silent ones have had their time, others get in.
        assert ask(agent)[0] == 200
        for connection in silent:
            connection.close()


def test_stopping_lets_an_answer_end(tmp_path: Path) -> None:
    slow = Slow()
    with secured(tmp_path, slow) as agent:
        connection = connect(agent)
        connection.sendall(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        assert slow.entered.acquire(timeout=SECONDS)
        agent.listeners.stop()
        slow.go.set()
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
        assert answer.endswith(b"held")
        connection.close()


def test_no_thread_and_no_descriptor_stays(tmp_path: Path) -> None:
    from pathlib import Path as Paths

    def descriptors() -> int:
        return len(list(Paths("/proc/self/fd").iterdir()))

    with secured(tmp_path) as agent:
        assert ask(agent)[0] == 200
    threads, before = threading.active_count(), descriptors()
    with secured(tmp_path) as agent:
        for _ in range(20):
            assert ask(agent)[0] == 200
        socket.create_connection(("127.0.0.1", agent.secure)).close()
    assert (threading.active_count(), descriptors()) == (threads, before)


def test_answers_are_documents(tmp_path: Path) -> None:
    with secured(tmp_path) as agent:
        status, body = ask(agent, "/x")
        assert (status, json.loads(body)["reason"]) == (404, "unknown-path")
