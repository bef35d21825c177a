"""An agent in this process, on a loopback port and a Unix socket, with evidence and metrics of the test's choice."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from calico_debug.agent.application import Application
from calico_debug.agent.guard import GuardedSource
from calico_debug.agent.routes import Work, routes
from calico_debug.agent.server import THREADS, Listeners
from calico_debug.agent.settings import Address

if TYPE_CHECKING:
    from pathlib import Path

    from calico_debug.agent.certificate import Certificate
    from calico_debug.agent.routing import Request, Route
    from calico_debug.evidence.source import EvidenceSource

SECONDS = 10.0


@dataclass
class Agent:
    """What a client needs to know, and the listeners."""

    port: int
    path: str
    listeners: Listeners
    secure: int = 0
    """The port of TLS."""

    def ask(self, path: str, body: object = None, *, method: str = "") -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method or ("GET" if data is None else "POST"), path, data)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, dict(response.getheaders()), content

    def json(self, path: str, body: object = None) -> Any:
        return json.loads(self.ask(path, body)[2])

    def connect(self) -> socket.socket:
        """A plain connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)


def work_over(source: EvidenceSource) -> Work:
    """What routes answer from, without metrics."""

    def guarded(request: Request) -> EvidenceSource:
        return GuardedSource(source, request.check)

    return Work(guarded, lambda: b"page\n", lambda: [("calico_debug_x", {"a": "b"}, 3)], lambda: "")


@contextmanager
def serving(
    folder: Path,
    source: EvidenceSource | None = None,
    *,
    work: Work | None = None,
    table: Callable[[], list[Route]] | None = None,
    certificate: Certificate | None = None,
    guard: Callable[[Application], Any] = lambda application: application,
    **limits: Any,
) -> Iterator[Agent]:
    """An agent that answers from ``source`` or ``work``, or only the routes of ``table``; stopped at the end.

    With a ``certificate`` also over TLS, behind ``guard``.
    """
    found = table() if table is not None else routes(work or work_over(source))  # type: ignore[arg-type]
    listeners = Listeners()
    application = Application(found, **limits)
    path = str(folder / "agent.sock")
    port = listeners.tcp(Address("127.0.0.1", 0), application)
    secure = listeners.tcp(Address("127.0.0.1", 0), guard(application), THREADS, certificate) if certificate else 0
    listeners.unix(path, application)
    started = threading.Event()
    thread = threading.Thread(target=listeners.run, args=(started.set,))
    thread.start()
    try:
        assert started.wait(SECONDS)
        yield Agent(port, path, listeners, secure)
    finally:
        listeners.stop()
        thread.join(SECONDS)
        assert not thread.is_alive(), "the agent did not stop"
