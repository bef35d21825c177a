"""The agent as a WSGI application: finds the route, checks the body, bounds the work, turns errors into answers."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from http import HTTPStatus
from itertools import chain
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from waitress.channel import ClientDisconnected

from calico_debug.agent.guard import Guard, OutOfTime, RequestEnded
from calico_debug.agent.routing import JSON, Answer, Request, Route, find, problems
from calico_debug.errors import CalicoDebugError, MissingEvidence, UsageError
from calico_debug.model.explanation import API_VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger("calico_debug.agent")

LARGEST_BODY = 64 << 10
"""Bytes of the largest request; questions are a few hundred."""
REQUEST_SECONDS = 30.0
"""Time for the answer to a request, until its last piece is made."""
CONCURRENT = 4
"""Requests that are worked on at once; light ones come on top."""

PIECE = 1 << 20
"""Bytes of an answer that are handed to its connection at once."""

MOST_FIELDS = 50
WORDS = {"true": True, "false": False}

DISCONNECTED = "waitress.client_disconnected"

REASONS: tuple[tuple[type[Exception], int, str], ...] = (
    (UsageError, 400, "usage"),
    (MissingEvidence, 404, "missing"),
    (CalicoDebugError, 500, "evidence"),
    (OutOfTime, 504, "timeout"),
    (MemoryError, 503, "busy"),
)
"""What an exception is to the client: status and reason, the first that fits."""

StartResponse = Callable[..., Any]


class Application:
    """Implements WSGI."""

    def __init__(
        self, routes: Sequence[Route], *, concurrent: int = CONCURRENT, seconds: float = REQUEST_SECONDS
    ) -> None:
        """Answer ``routes``; ``concurrent`` and ``seconds`` bound the work."""
        self._routes = routes
        self._slots = BoundedSemaphore(concurrent)
        self._large = BoundedSemaphore(1)
        self._seconds = seconds

    def __call__(self, environment: Mapping[str, Any], start: StartResponse) -> Iterable[bytes]:
        """One request."""
        method = environment["REQUEST_METHOD"]
        path = path_of(environment)
        found = find(self._routes, method, path)
        if isinstance(found, set):
            if found:
                methods = ", ".join(sorted(found))
                refusal = failure(405, "unknown-path", f"{path[:200]} answers {methods}")
                # To HEAD an answer has no body, or what follows on the connection would be taken for the next one.
                return send(start, Answer([], JSON, 405) if method == "HEAD" else refusal, ("Allow", methods))
            if method == "HEAD":
                return send(start, Answer([], JSON, 404))
            return send(start, failure(404, "unknown-path", f"there is no {path[:200]}: see /v1/openapi.json"))
        route, parameters = found
        closing = ExitStack()
        wanted = () if route.light else (self._slots, self._large) if route.large else (self._slots,)
        for slot in wanted:
            if not slot.acquire(blocking=False):
                closing.close()
                return send(start, failure(503, "busy", "other requests are being answered: try again in a second"))
            closing.callback(slot.release)
        try:
            check = Guard(environment.get(DISCONNECTED, _never), route.seconds or self._seconds)
            query, accept = _query(environment, route), environment.get("HTTP_ACCEPT", "")
            request = Request(parameters, _body(environment, route), check, closing, query, accept)
            answer = route.handler(request)
            whole = answer.body[0] if isinstance(answer.body, list) else None
            pieces = _slices(whole) if whole is not None else iter(answer.body)
            first = next(pieces, b"")
        except RequestEnded as ended:
            closing.close()
            raise ClientDisconnected from ended
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a line and the agent goes on
            closing.close()
            return send(start, failed(error, path))
        headers = _headers(answer.content)
        if whole is not None:
            headers.append(("Content-Length", str(len(whole))))
        start(_status(answer.status), headers)
        return _Body(chain([first], pieces), _nothing if whole is not None else check, closing.close, path)


class _Body:
    """The pieces of an answer; the request's slot is given back when it is closed, which WSGI does in every case."""

    def __init__(
        self, pieces: Iterable[bytes], check: Callable[[], None], close: Callable[[], None], path: str
    ) -> None:
        self._pieces, self._check, self._close, self._path = pieces, check, close, path

    def __iter__(self) -> Iterator[bytes]:
        """The pieces. When making one fails the connection is closed: the client sees that the end is missing."""
        try:
            for piece in self._pieces:
                yield piece
                self._check()
        except Exception as error:
            if not isinstance(error, RequestEnded | ClientDisconnected):
                log.warning("%s: the answer ends early: %s", self._path, error)
            raise ClientDisconnected from error

    def close(self) -> None:
        """Called once by the server."""
        self._close()


def _slices(whole: bytes) -> Iterator[bytes]:
    """Pieces of a long answer, so that a slow client does not have all of it copied into its connection's buffer."""
    return (whole[start : start + PIECE] for start in range(0, len(whole), PIECE))


def _never() -> bool:
    return False


def _nothing() -> None:
    return None


def _body(environment: Mapping[str, Any], route: Route) -> Mapping[str, Any]:
    if route.body is None:
        return {}
    data = environment["wsgi.input"].read(LARGEST_BODY + 1)
    if len(data) > LARGEST_BODY:
        raise UsageError(f"the body is larger than {LARGEST_BODY} bytes")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise UsageError("the body is not JSON") from None
    if trouble := problems(body, route.body):
        raise UsageError(trouble)
    assert isinstance(body, dict)
    return body


def _query(environment: Mapping[str, Any], route: Route) -> Mapping[str, Any]:
    """What stands behind the path; numbers and truth as such. Paths that take nothing there ignore it."""
    if route.query is None:
        return {}
    try:
        given = parse_qsl(
            environment.get("QUERY_STRING", ""), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict"
        )
    except ValueError:
        raise UsageError("what stands behind the path's ? cannot be read: write name=value&name=value") from None
    kinds = {name: schema["type"] for name, schema in route.query["properties"].items()}
    query: dict[str, Any] = {}
    for name, text in given:
        kind = kinds.get(name)
        if kind == "integer" and text.isascii() and text.isdigit():
            query[name] = int(text[:20])
        else:
            query[name] = WORDS.get(text, text) if kind == "boolean" else text
    if trouble := problems(query, route.query):
        raise UsageError(trouble)
    return query


def failed(error: Exception, path: str) -> Answer:
    """What a client is told of an exception. What nobody foresaw is logged."""
    for kind, status, reason in REASONS:
        if isinstance(error, kind):
            return failure(status, reason, str(error) or "out of memory: ask for less, or try again")
    log.error("%s: unexpected %s", path, type(error).__name__, exc_info=error)
    return failure(500, "internal", f"unexpected {type(error).__name__}: this is a defect, see the agent's log")


def path_of(environment: Mapping[str, Any]) -> str:
    """The path of a request, as routes have it."""
    return str(environment["PATH_INFO"].encode("latin-1").decode("utf-8", "replace"))


def failure(status: int, reason: str, message: str) -> Answer:
    """An error as a document."""
    document = {"apiVersion": API_VERSION, "kind": "Error", "reason": reason, "message": " ".join(message.split())}
    return Answer([json.dumps(document).encode()], JSON, status)


def send(start: StartResponse, answer: Answer, *more: tuple[str, str]) -> Iterable[bytes]:
    """A whole answer, with ``more`` headers."""
    body = b"".join(answer.body)
    headers = [*_headers(answer.content), ("Content-Length", str(len(body))), *more]
    if answer.status == 503:
        headers.append(("Retry-After", "1"))
    start(_status(answer.status), headers)
    return [body]


def _headers(content: str) -> list[tuple[str, str]]:
    return [("Content-Type", content), ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]


def _status(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"
