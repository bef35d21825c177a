"""Requests to one agent (docs/agent.md): over its Unix socket, or over TLS with a verified certificate and a token.

    client = AgentClient(published.url, trust=Trust(pem=published.certificate), token=file_token(PATH))
    client.json("/v1/nodes")

An `AgentClient` keeps one connection open and belongs to one thread at a time.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from calico_debug.errors import CalicoDebugError, EvidenceError, MissingEvidence, UsageError

SECONDS = 60.0
"""Longest silence of an agent: its requests have 30 s."""
LARGEST_ANSWER = 1 << 30
"""Bytes of the largest file that is taken; a full ruleset is a few hundred MiB as JSON."""
LARGEST_ERROR = 64 << 10
LARGEST_TOKEN = 64 << 10

TOKEN_FILE = Path("/var/run/secrets/calico-debug/token")
"""Where the manifests mount a token for agents into the agents' own pods."""
TOKEN_VARIABLE = "CALICO_DEBUG_AGENT_TOKEN"  # noqa: S105 - its name

ERRORS: Mapping[str, type[CalicoDebugError]] = {"usage": UsageError, "missing": MissingEvidence}
"""What the reason of an error stands for here; others are `EvidenceError`."""
REFUSED = frozenset({"unauthenticated", "forbidden", "unchecked"})
"""Reasons that are about the caller: these errors name the agent."""

Token = Callable[[], str]
"""Gives the token of each request: files are read anew, since what is mounted into a pod is replaced in time."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose certificates are believed: those of ``file`` (PEM), or of ``pem``, its text; of neither, the system's.

    Every one of them may be an authority or the agent's own certificate. The agent's must be for ``name``, when that is
    given, else for the host of its URL; one that an agent made itself is for its node's name and address.
    """

    file: str | None = None
    pem: str | None = None
    name: str | None = None

    def context(self) -> ssl.SSLContext:
        """For connections. Raises `UsageError`."""
        try:
            context = ssl.create_default_context(cafile=self.file, cadata=self.pem)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(
                f"--agent-ca {self.file or 'of the agent'} cannot be used ({reason}): give a file of certificates, PEM"
            ) from None
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # An agent's own certificate signs itself, and is trusted without being an authority.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context


def file_token(path: str | Path) -> Token:
    """A token that is read from a file for every request. It raises `EvidenceError`."""

    def read() -> str:
        try:
            with open(path, encoding="ascii") as file:  # noqa: PTH123
                found = file.read(LARGEST_TOKEN).strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise EvidenceError(
                f"cannot read the token in {path}: {reason}; name another with --agent-token-file"
            ) from None
        return _sendable(found, str(path))

    return read


def find_token(file: str | None, variables: Mapping[str, str]) -> Token | None:
    """The token that was named, else of the environment, else what is mounted into an agent's pod; None without any."""
    if file is not None:
        return file_token(file)
    if text := variables.get(TOKEN_VARIABLE, "").strip():
        return lambda: _sendable(text, TOKEN_VARIABLE)
    return file_token(TOKEN_FILE) if TOKEN_FILE.exists() else None


class AgentClient:
    """One agent, asked with one identity."""

    def __init__(self, place: str, *, trust: Trust | None = None, token: Token | None = None) -> None:
        """``place`` is the path of a socket, ``https://ADDR:PORT``, or ``http://ADDR:PORT`` for one that checks nobody.

        Nothing is sent yet. Raises `UsageError`.
        """
        self.place = place
        self._secure = place.startswith("https://")
        if not self._secure and trust is not None and trust != Trust():
            raise UsageError(f"--agent-ca is for agents over TLS, and --agent {place!r} is none: use https://ADDR:PORT")
        # What is sent without TLS can be read: a token goes only where it is needed.
        self._token = token if self._secure else None
        self._connection = _connection(place, trust or Trust())

    @property
    def origin(self) -> str:
        """The agent, for messages."""
        return f"agent {self.place}"

    def json(self, path: str, body: Mapping[str, Any] | None = None, *, method: str = "") -> dict[str, Any]:
        """An answer that is a JSON object. Raises what `ask` does."""
        data = self.ask(path, body, method=method)
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise EvidenceError(
                f"{self.origin} does not speak this language at {path}: is it an agent of calico-debug?"
            )
        return document

    def ask(self, path: str, body: Mapping[str, Any] | None = None, *, method: str = "") -> bytes:
        """A whole answer; with a body the request is a POST, unless ``method`` is given.

        Raises what the agent said, or `EvidenceError`.
        """
        with self.opened(path, body, method=method) as stream:
            try:
                data = stream.read(LARGEST_ANSWER + 1)
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                raise EvidenceError(f"{self.origin} broke off its answer to {path} ({error!r}); try again") from None
        if len(data) > LARGEST_ANSWER:
            self._connection.close()
            raise EvidenceError(
                f"{self.origin} sent more than {LARGEST_ANSWER >> 20} MiB at {path}: read it on the node"
            )
        return data

    def opened(self, path: str, body: Mapping[str, Any] | None = None, *, method: str = "") -> http.client.HTTPResponse:
        """An answer whose status is 200, to be read and closed. Raises as `ask`."""
        response = self._request(path, body, method)
        if response.status != http.client.OK:
            raise self._refusal(response, path)
        return response

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._connection.close()

    def _request(self, path: str, body: Mapping[str, Any] | None, method: str) -> http.client.HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token()}"
        for attempt in (1, 2):
            fresh = self._connection.sock is None
            try:
                self._connection.request(method or ("GET" if data is None else "POST"), path, data, headers)
                return self._connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                # An agent closes a connection that was idle; the next request finds out.
                if fresh or attempt == 2 or isinstance(error, TimeoutError):
                    raise self._unreachable(error) from None
        raise AssertionError("the loop returns or raises")

    def _unreachable(self, error: Exception) -> EvidenceError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return EvidenceError(
                f"{self.origin} cannot be trusted ({error.verify_message.rstrip('.')}): name its certificate, or the "
                "authority that signed it, with --agent-ca"
            )
        if isinstance(error, ssl.SSLError):
            return EvidenceError(
                f"{self.origin} does not speak TLS 1.3 ({error.reason or error}): check the address and the port of "
                "its --listen"
            )
        why = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
        return EvidenceError(f"no answer from {self.origin}: {why}; start it with `calico-debug agent`, as root")

    def _refusal(self, response: http.client.HTTPResponse, path: str) -> CalicoDebugError:
        try:
            document = json.loads(response.read(LARGEST_ERROR))
            reason, message = str(document["reason"]), str(document["message"])
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, RecursionError):
            self._connection.close()
            return EvidenceError(f"{self.origin} answered {response.status} at {path}: is it an agent of calico-debug?")
        if reason in REFUSED:
            return EvidenceError(f"{self.origin} refused: {message}")
        return ERRORS.get(reason, EvidenceError)(message)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _TlsConnection(http.client.HTTPSConnection):
    """Asks for a certificate of another name than the host's: what a port was forwarded to."""

    def __init__(self, host: str, port: int, trust: Trust) -> None:
        self._trusted, self._name = trust.context(), trust.name or host
        super().__init__(host, port, timeout=SECONDS, context=self._trusted)

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._trusted.wrap_socket(self.sock, server_hostname=self._name)


def _connection(place: str, trust: Trust) -> http.client.HTTPConnection:
    forms = "the path of its socket, https://ADDR:PORT, or http://ADDR:PORT"
    if "://" not in place:
        if not place:
            raise UsageError(f"--agent names no agent: give {forms}")
        return _UnixConnection(place)
    try:
        url = urlsplit(place)
        port = url.port
    except ValueError:
        raise UsageError(f"--agent {place!r} is none: give {forms}") from None
    known = url.scheme in ("http", "https")
    if not known or not url.hostname or not port or url.path not in ("", "/") or url.query or url.username:
        raise UsageError(f"--agent {place!r} is none: give {forms}")
    if url.scheme == "https":
        return _TlsConnection(url.hostname, port, trust)
    return http.client.HTTPConnection(url.hostname, port, timeout=SECONDS)


def _sendable(token: str, place: str) -> str:
    """A token that fits into a header. Raises `EvidenceError`."""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise EvidenceError(f"{place} has no token: write one there, made with `kubectl create token`")
    return token
