"""Programs in pods over WebSockets, as kubelet and the API server run them for `kubectl exec`; and lists, over HTTP."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

V4 = "v4.channel.k8s.io"
STDIN, STDOUT, STDERR, STATUS = range(4)
PIECE = 1 << 15
SECONDS = 10.0
CLOSE_SECONDS = 0.2
"""For clients that went without a word."""

Command = Callable[[str, Sequence[str]], Sequence[str]]
"""From a pod's name and the words that are to run there to what is run in its stead."""


@dataclass
class ExecServer:
    """What was asked of it. ``lists`` are answers by path; in pods of ``forbidden`` nothing may be run."""

    url: str = ""
    port: int = 0
    lists: dict[str, Any] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)
    asked: list[tuple[str, Headers]] = field(default_factory=list)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)


@contextmanager
def exec_server(
    command: Command, lists: Mapping[str, Any] | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[ExecServer]:
    """A server on loopback, over HTTP or TLS, that ends with what it runs."""
    made = ExecServer(lists=dict(lists or {}))

    def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        parts = urlsplit(connection.request.path)
        words = command(_pod(parts.path), parse_qs(parts.query)["command"])
        _run(connection, words, made.running)

    def decide(_: ServerConnection, request: Request) -> Response | None:
        made.asked.append((request.path, request.headers))
        path = urlsplit(request.path).path
        if "upgrade" not in request.headers:
            return _answer(HTTPStatus.OK, made.lists[path]) if path in made.lists else _failure(HTTPStatus.NOT_FOUND)
        return _failure(HTTPStatus.FORBIDDEN) if _pod(path) in made.forbidden else None

    options: dict[str, Any] = {"ssl": tls, "subprotocols": [V4], "compression": None, "close_timeout": CLOSE_SECONDS}
    with serve(handle, "127.0.0.1", 0, process_request=decide, **options) as server:
        made.port = server.socket.getsockname()[1]
        made.url = f"{'https' if tls else 'http'}://127.0.0.1:{made.port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            for process in made.running:
                process.kill()
            server.shutdown()
            thread.join(SECONDS)


def _pod(path: str) -> str:
    """The API server's /api/v1/namespaces/NS/pods/POD/exec, or kubelet's /exec/NS/POD/CONTAINER."""
    words = path.strip("/").split("/")
    return words[2] if words[0] == "exec" else words[5]


def _run(connection: ServerConnection, words: Sequence[str], running: list[subprocess.Popen[bytes]]) -> None:
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    running.append(process)
    assert process.stdin
    assert process.stdout
    assert process.stderr
    writers = [
        threading.Thread(target=_copy, args=(connection, STDOUT, process.stdout)),
        threading.Thread(target=_copy, args=(connection, STDERR, process.stderr)),
    ]
    for writer in writers:
        writer.start()
    waiter = threading.Thread(target=_end, args=(connection, process, writers))
    waiter.start()
    with suppress(ConnectionClosed, OSError):
        for message in connection:
            assert isinstance(message, bytes)
            assert message[0] == STDIN
            process.stdin.write(message[1:])
    with suppress(OSError):
        process.stdin.close()
    waiter.join(SECONDS)


def _copy(connection: ServerConnection, channel: int, stream: Any) -> None:
    with suppress(ConnectionClosed):
        while data := stream.read(PIECE):
            connection.send(bytes([channel]) + data)


def _end(connection: ServerConnection, process: subprocess.Popen[bytes], writers: Sequence[threading.Thread]) -> None:
    """The last message is the status, as in staging/src/k8s.io/kubelet/pkg/cri/streaming/remotecommand/exec.go."""
    code = process.wait()
    for writer in writers:
        writer.join(SECONDS)
    status: dict[str, Any] = {"metadata": {}, "status": "Success"}
    if code:
        causes = [{"reason": "ExitCode", "message": str(code)}]
        status = {
            "metadata": {},
            "status": "Failure",
            "message": f"command terminated with non-zero exit code: {code}",
            "reason": "NonZeroExitCode",
            "details": {"causes": causes},
        }
    with suppress(ConnectionClosed):
        connection.send(bytes([STATUS]) + json.dumps(status).encode())
    connection.close()


def _answer(status: HTTPStatus, document: object) -> Response:
    body = json.dumps(document).encode()
    headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"})
    return Response(status.value, status.phrase, headers, body)


def _failure(status: HTTPStatus) -> Response:
    message = {403: "pods/exec is forbidden", 404: "the server could not find the requested resource"}[status]
    return _answer(status, {"kind": "Status", "status": "Failure", "message": message, "code": status.value})
