"""Who a caller is and what it may ask: TokenReview and SubjectAccessReview of the API server, remembered briefly."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from threading import BoundedSemaphore, Lock
from typing import Any, Protocol

from calico_debug.agent.apiserver import Refusal
from calico_debug.agent.routing import OBSERVER, READER
from calico_debug.errors import EvidenceError

log = logging.getLogger("calico_debug.agent")

AUDIENCE = "calico-debug"
"""Audience of tokens for agents: those for the API server, which every pod has, are none."""
ALLOWED_SECONDS = 30.0
DENIED_SECONDS = 5.0
"""How long answers of the API server hold."""
REMEMBERED = 1024
"""Answers that are remembered of each kind; the one not used for longest is forgotten first."""
REVIEWS = 4
"""Questions to the API server at once."""
WAIT_SECONDS = 5.0
"""How long a request waits for its turn to be reviewed."""
REFUSALS = 20
"""Tokens of one address that the API server may refuse before further ones are not shown to it."""
REFUSED_SECONDS = 60.0
"""How long then; tokens that it has accepted are not affected."""
LARGEST_TOKEN = 8 << 10
LEEWAY_SECONDS = 60.0
"""How far this node's clock may be off before a token counts as expired without asking."""

OF_ALL = frozenset({403, 429, 500, 502, 503, 504})
"""Statuses of the API server that are not about the one question."""

PREFIX = "/calico-debug"
"""Stands before an agent's path in rules (nonResourceURLs), so that they can mean nothing else."""
METRICS = "/metrics"
"""The one path without it: roles for Prometheus have a rule for it already."""

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
ROLE = "ClusterRole calico-debug (daemonset/base/rbac.yaml)"


class Server(Protocol):
    """What is needed of `calico_debug.agent.apiserver.ApiServer`."""

    def send(self, method: str, path: str, document: Mapping[str, Any]) -> Any:
        """Raises `Refusal` and `EvidenceError`."""


class DeniedError(Exception):
    """Why a request is not answered. ``status`` is 401, 403 or 503."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        """``reason`` as in an error's document."""
        super().__init__(message)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Caller:
    """Who the API server says it is. ``attributes`` are the fields of a SubjectAccessReview."""

    name: str
    attributes: Mapping[str, Any]
    expires: float
    """Seconds since the epoch; infinity when the token does not say."""


@dataclass(slots=True)
class Memory:
    """Answers by their questions, for some time and not too many."""

    clock: Callable[[], float]
    _held: OrderedDict[Hashable, tuple[float, Any]] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def get(self, key: Hashable) -> Any:
        """What holds, else None."""
        with self._lock:
            until, answer = self._held.get(key, (0.0, None))
            if answer is None or until <= self.clock():
                self._held.pop(key, None)
                return None
            self._held.move_to_end(key)
            return answer

    def put(self, key: Hashable, answer: Any, seconds: float) -> None:
        """Remember an answer."""
        with self._lock:
            self._held[key] = (self.clock() + seconds, answer)
            self._held.move_to_end(key)
            if len(self._held) > REMEMBERED:
                self._held.popitem(last=False)


class Reviewer:
    """Asks the API server. Whatever is not clearly allowed is denied."""

    def __init__(
        self,
        open_server: Callable[[], Server],
        audience: str = AUDIENCE,
        clock: Callable[[], float] = time.monotonic,
        wait: float = WAIT_SECONDS,
    ) -> None:
        """``open_server`` is called when it is needed, and again after something went wrong.

        ``wait`` is how many seconds a request waits when as many as are allowed are being checked.
        """
        self._open = open_server
        self._server: Server | None = None
        self._audience = audience
        self._wait = wait
        self._callers, self._rights = Memory(clock), Memory(clock)
        self._refusals, self._troubles = Memory(clock), Memory(clock)
        self._turns = BoundedSemaphore(REVIEWS)

    def check(self, token: str, method: str, path: str, address: str = "") -> Caller:
        """The caller, when it may ask for this path with this method. Raises `DeniedError`.

        ``address`` is where the request comes from: whoever tries tokens is not let through to the API server for ever.
        """
        caller = self._caller(token, address)
        verb, asked = method.lower(), path if path == METRICS else PREFIX + path
        if not self._allowed(caller, verb, asked):
            raise DeniedError(
                403,
                "forbidden",
                f"{caller.name} may not {verb} {asked[:200]}: bind ClusterRole {READER} to it ({OBSERVER} for "
                "what looks at packets), or another that has this nonResourceURL and verb",
            )
        return caller

    def _caller(self, token: str, address: str) -> Caller:
        expires = claims(token, self._audience, time.time())
        key = hashlib.sha256(token.encode()).digest()
        found = self._callers.get(key)
        if found is None:
            refusals = self._refusals.get(address) or 0
            if refusals >= REFUSALS:
                raise DeniedError(
                    401,
                    "unauthenticated",
                    f"{REFUSALS} tokens that came from {address} were refused: no other one is looked at for "
                    f"{REFUSED_SECONDS:g} s",
                )
            found = self._review(token, expires)
            if isinstance(found, str):
                self._refusals.put(address, refusals + 1, REFUSED_SECONDS)
            seconds = DENIED_SECONDS if isinstance(found, str) else min(ALLOWED_SECONDS, expires - time.time())
            self._callers.put(key, found, seconds)
        if isinstance(found, str):
            raise DeniedError(401, "unauthenticated", found)
        assert isinstance(found, Caller)
        return found

    def _review(self, token: str, expires: float) -> Caller | str:
        """The caller, or why it is none."""
        spec = {"token": token, "audiences": [self._audience]}
        status = self._ask(TOKEN_REVIEWS, "authentication.k8s.io/v1", "TokenReview", spec)
        user = status.get("user")
        name = user.get("username") if isinstance(user, dict) else None
        audiences = status.get("audiences")
        # A server that does not know audiences says nothing of them, and would accept a token made for something else.
        fits = isinstance(audiences, list) and self._audience in audiences
        if status.get("authenticated") is not True or not fits or not isinstance(name, str) or not name:
            said = " ".join(str(status.get("error") or "no more is said").split())[:300]
            return f"the API server does not accept this token for audience {self._audience} ({said}): get a new one"
        assert isinstance(user, dict)
        attributes = {key: user[key] for key in ("uid", "groups", "extra") if user.get(key)}
        return Caller(name, {"user": name, **attributes}, expires)

    def _allowed(self, caller: Caller, verb: str, path: str) -> bool:
        key = (json.dumps(caller.attributes, sort_keys=True), verb, path)
        found = self._rights.get(key)
        if found is None:
            spec = {**caller.attributes, "nonResourceAttributes": {"path": path, "verb": verb}}
            status = self._ask(ACCESS_REVIEWS, "authorization.k8s.io/v1", "SubjectAccessReview", spec)
            found = status.get("allowed") is True and status.get("denied") is not True
            self._rights.put(key, found, ALLOWED_SECONDS if found else DENIED_SECONDS)
            log.info("%s %s %s %r", caller.name, "may" if found else "may not", verb, path)
        return bool(found)

    def _ask(self, path: str, version: str, kind: str, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        """The status of a review. Raises `DeniedError` when there is none."""
        if (trouble := self._troubles.get(path)) is not None:
            raise DeniedError(503, "unchecked", trouble)
        if not self._turns.acquire(timeout=self._wait):
            raise DeniedError(503, "busy", "other callers are being checked: try again in a second")
        try:
            if self._server is None:
                self._server = self._open()
            answer = self._server.send("POST", path, {"apiVersion": version, "kind": kind, "spec": spec})
        except (Refusal, EvidenceError) as error:
            self._server = None
            trouble = f"callers cannot be checked: {error}"
            if isinstance(error, Refusal):
                trouble = (
                    f"the API server does not let this agent check callers ({error.status}: {error.message}): grant "
                    f"create on {path.rpartition('/')[2]}, as {ROLE} does"
                )
            # A server that is away takes seconds to be found so: not by every caller, with a thread for each. What it
            # says of one caller's question alone is nothing to others.
            if not isinstance(error, Refusal) or error.status in OF_ALL:
                self._troubles.put(path, trouble, DENIED_SECONDS)
            raise DeniedError(503, "unchecked", trouble) from None
        finally:
            self._turns.release()
        status = answer.get("status") if isinstance(answer, dict) else None
        if not isinstance(status, dict):
            raise DeniedError(503, "unchecked", f"the API server's answer to a {kind} has no status: try again")
        return status


def claims(token: str, audience: str, now: float) -> float:
    """When a token expires, by its own words. What these already refuse need not be asked. Raises `DeniedError`.

    Tokens with an audience of their own are those of service accounts: signed JSON (RFC 7519), whose signature the API
    server checks.
    """
    how = f"kubectl create token ACCOUNT --audience {audience}"
    if not token:
        raise DeniedError(401, "unauthenticated", f"no token: send one as Authorization: Bearer, made with `{how}`")
    parts = token.split(".")
    try:
        if len(token) > LARGEST_TOKEN or len(parts) != 3:
            raise ValueError
        said = json.loads(base64.b64decode(parts[1] + "=" * (-len(parts[1]) % 4), "-_", validate=True))
        audiences = said.get("aud")
        expires = float(said.get("exp", "inf"))
    except (ValueError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise DeniedError(
            401, "unauthenticated", f"this is no token of a service account: make one with `{how}`"
        ) from None
    if audience not in (audiences if isinstance(audiences, list) else [audiences]):
        raise DeniedError(401, "unauthenticated", f"this token is not for audience {audience}: make one with `{how}`")
    if not expires > now - LEEWAY_SECONDS:
        raise DeniedError(401, "unauthenticated", f"this token has expired: make one with `{how}`")
    return expires
