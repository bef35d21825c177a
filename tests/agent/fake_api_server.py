"""An API server made of a table, over HTTP on loopback: what real ones do only when they are in trouble."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import yaml


@dataclass(frozen=True)
class Answer:
    """``promised`` is the Content-Length when it is not the body's, so that the answer breaks off. A ``chunked`` answer
    has none.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    promised: int | None = None
    chunked: bool = False


Route = Answer | list[Answer] | Callable[[dict[str, str]], Answer]
"""One answer for ever; or one after the other, the last for ever; or from the query."""


def document(content: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(content).encode())


def failure(status: int, message: str, **headers: str) -> Answer:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": status}
    return Answer(status, json.dumps(body).encode(), headers)


def listed(kind: str, *items: Any, api: str = "v1", following: str = "", remaining: int = 0) -> Answer:
    """A list as a server sends it: items of its own kinds carry no kind."""
    metadata = {"resourceVersion": "7"} | (
        {"continue": following, "remainingItemCount": remaining} if following else {}
    )
    return document({"kind": f"{kind}List", "apiVersion": api, "metadata": metadata, "items": list(items)})


def groups(**versions: list[str]) -> Answer:
    """The answer to /apis; a group's name is written with two underscores for each dot."""
    found = [
        {"name": name.replace("__", "."), "versions": [{"groupVersion": "", "version": one} for one in served]}
        for name, served in versions.items()
    ]
    return document({"kind": "APIGroupList", "apiVersion": "v1", "groups": found})


def resources(*names: str, verbs: tuple[str, ...] = ("get", "list")) -> Answer:
    """The answer to /apis/GROUP/VERSION."""
    return document({"kind": "APIResourceList", "resources": [{"name": name, "verbs": list(verbs)} for name in names]})


def named(name: str, namespace: str = "") -> dict[str, Any]:
    return {"metadata": {"name": name} | ({"namespace": namespace} if namespace else {})}


class FakeApiServer:
    """Answers from ``routes`` by path, else 404. ``asked`` is every request: (path, query, headers)."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self.routes = dict(routes)
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self._served: defaultdict[str, int] = defaultdict(int)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.asked]

    def _answer(self, path: str, query: dict[str, str]) -> Answer:
        route = self.routes.get(path)
        if route is None:
            return failure(404, "the server could not find the requested resource")
        if isinstance(route, list):
            self._served[path] += 1
            return route[min(self._served[path], len(route)) - 1]
        return route(query) if callable(route) else route

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # head and body in one segment: nobody waits for an acknowledgement

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
                fake.asked.append((parts.path, query, {name.lower(): value for name, value in self.headers.items()}))
                answer = fake._answer(parts.path, query)
                self.send_response(answer.status)
                length = len(answer.body) if answer.promised is None else answer.promised
                framing = {"Transfer-Encoding": "chunked"} if answer.chunked else {"Content-Length": str(length)}
                for name, value in {**framing, **answer.headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                body = b"%x\r\n%b\r\n0\r\n\r\n" % (length, answer.body) if answer.chunked else answer.body
                self.wfile.write(body)
                if answer.promised is not None:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Nothing is printed."""

        return Handler


def kubeconfig(directory: Path, server: str, **user: Any) -> Path:
    """A kubeconfig for a server, with one context, "test"."""
    path = directory / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": "test",
                "clusters": [{"name": "test", "cluster": {"server": server}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "users": [{"name": "test", "user": user}],
            }
        )
    )
    return path
