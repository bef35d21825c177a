"""The client against servers that are none, and one that answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs

import pytest

from calico_debug.cli import prometheus
from calico_debug.cli.prometheus import Prometheus
from calico_debug.errors import EvidenceError, UsageError


@contextmanager
def server(status: int, body: bytes, **headers: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """A server on loopback that answers all alike, and what it was asked: path, query, authorisation."""
    asked: list[tuple[str, str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"])).decode()
            query = parse_qs(data)["query"][0]
            asked.append((self.path, query, self.headers.get("Authorization", "")))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=running.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{running.server_address[1]}", asked
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def test_a_question_and_its_answer() -> None:
    with server(200, json.dumps({"status": "success"}).encode()) as (place, asked):
        found = Prometheus(f"http://user:pass@{place}/prefix/")
        assert found.origin == f"http://{place}/prefix"
        assert found.ask('sum(x{a="b"})') == {"status": "success"}
    assert asked == [("/prefix/api/v1/query", 'sum(x{a="b"})', "Basic dXNlcjpwYXNz")]


def test_an_error_of_prometheus_comes_as_it_is() -> None:
    with server(400, b'{"status": "error", "error": "bad"}') as (place, _):
        assert Prometheus(f"http://{place}").ask("x")["error"] == "bad"


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (404, b"not found"), (200, b""), (200, b"[" * 100_000)])
def test_what_is_no_answer(status: int, body: bytes) -> None:
    with server(status, body) as (place, _), pytest.raises(EvidenceError, match="does not speak"):
        Prometheus(f"http://{place}").ask("x")


def test_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "LARGEST", 1 << 10)
    with server(200, b"x" * 5000) as (place, _), pytest.raises(EvidenceError, match="sent more than"):
        Prometheus(f"http://{place}").ask("x")


def test_it_goes_nowhere_else() -> None:
    """A redirection could take a password elsewhere."""
    with server(302, b"", Location="http://127.0.0.1:9/") as (place, asked), pytest.raises(EvidenceError):
        Prometheus(f"http://user:pass@{place}").ask("x")
    assert len(asked) >= 1


@pytest.mark.parametrize("url", ["", "host", "ftp://host", "http://", "http://host/?a=b", "http://[::1"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(UsageError, match="no address of a Prometheus"):
        Prometheus(url)
