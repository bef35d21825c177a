"""A WSGI application behind a check of tokens: everything outside the Unix socket goes through it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from calico_debug.agent.application import StartResponse, failure, path_of, send
from calico_debug.agent.reviews import DeniedError
from calico_debug.agent.routing import JSON, Answer

if TYPE_CHECKING:
    from calico_debug.agent.application import Application
    from calico_debug.agent.reviews import Reviewer

SCHEME = "bearer"


class Authorised:
    """Implements WSGI. Nothing of the application is said to somebody who may not ask: not even which paths exist."""

    def __init__(self, application: Application, reviewer: Reviewer, unchecked: Collection[str] = ()) -> None:
        """``unchecked`` are paths that everybody may ask for: those of probes, which have no token."""
        self._application = application
        self._reviewer = reviewer
        self._unchecked = frozenset(unchecked)

    def __call__(self, environment: Mapping[str, Any], start: StartResponse) -> Iterable[bytes]:
        """One request."""
        method, path = environment["REQUEST_METHOD"], path_of(environment)
        if path not in self._unchecked:
            try:
                self._reviewer.check(token_of(environment), method, path, environment.get("REMOTE_ADDR", ""))
            except DeniedError as denied:
                refusal = failure(denied.status, denied.reason, str(denied))
                more = [("WWW-Authenticate", "Bearer")] if denied.status == 401 else []
                return send(start, Answer([], JSON, denied.status) if method == "HEAD" else refusal, *more)
        return self._application(environment, start)


def token_of(environment: Mapping[str, Any]) -> str:
    """The bearer token of a request, "" when there is none (RFC 6750)."""
    scheme, _, token = environment.get("HTTP_AUTHORIZATION", "").partition(" ")
    return token.strip() if scheme.lower() == SCHEME else ""
