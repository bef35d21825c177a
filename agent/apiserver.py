"""Bounded requests to one API server. Connections, TLS, proxies, credentials and plugins are the client library's."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from calico_debug import __version__
from calico_debug.agent.kubeconfig import ClusterAccess
from calico_debug.errors import EvidenceError

if TYPE_CHECKING:
    from kubernetes.client import Configuration
    from urllib3 import BaseHTTPResponse
    from websocket import WebSocket

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
"""Longest silence of a server that is to answer."""

ANSWER_SECONDS = 120.0
"""Longest time for one answer, however steadily it trickles."""

ANSWER_BYTES = 768 << 20
"""Largest answer: the largest file of a bundle."""

CHUNK = 1 << 16
ATTEMPTS = 3
PAUSES = (0.2, 1.0)
"""Seconds before each further attempt, unless the server asks for more."""

LONGEST_PAUSE = 5.0
TRANSIENT = frozenset({429, 500, 502, 503, 504})
"""Answers after which the same question may be asked again."""

ANSWERED = frozenset({200, 201})
UNAUTHORIZED = 401

HEADERS = {"accept": "application/json", "accept-encoding": "gzip"}
"""A list of pods is twenty times shorter when it is compressed, and never arrives later."""


class UnusableServerError(EvidenceError):
    """The server cannot be asked anything: not reached, not trusted, or it does not accept the credentials."""


class SilentServerError(EvidenceError):
    """The server did not answer one question in time; it may answer others."""


class Refusal(Exception):  # noqa: N818 - the server's answer, not a failure of ours
    """An answer other than 200 and 201. ``message`` is the server's own."""

    def __init__(self, status: int, message: str) -> None:
        """As in ``kind: Status``."""
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class ApiServer:
    """One server, asked with one identity."""

    def __init__(
        self,
        access: ClusterAccess,
        pause: Callable[[float], None] = time.sleep,
        *,
        attempts: int = ATTEMPTS,
        seconds: float | None = None,
    ) -> None:
        """Nothing is connected yet, but plugins for credentials run. Raises `EvidenceError`.

        ``pause`` waits for some seconds; ``seconds`` are the longest silence, `READ_SECONDS` unless given;
        ``attempts`` how often is asked at most.
        """
        try:
            from kubernetes.client.rest import RESTClientObject
        except ImportError as error:
            raise UnusableServerError(
                f"reading {access.origin} needs the Python package kubernetes ({error}): install calico-debug anew"
            ) from error
        self._access = access
        self._pause = pause
        self._attempts, self._seconds = attempts, READ_SECONDS if seconds is None else seconds
        self._configuration = _configuration(access)
        self._pool = RESTClientObject(self._configuration).pool_manager

    def get(self, path: str, query: Mapping[str, str | int] | None = None) -> Any:
        """The JSON document at a path. Raises `Refusal` for an answer that is none, `UnusableServerError`,
        `SilentServerError` and `EvidenceError`.
        """
        return self._exchange("GET", path, fields={name: str(value) for name, value in (query or {}).items()})

    def send(self, method: str, path: str, document: Mapping[str, Any], content: str = "application/json") -> Any:
        """The answer to a document; it may be sent more than once. Raises as `get`."""
        return self._exchange(method, path, body=json.dumps(document).encode(), headers={"content-type": content})

    def _exchange(self, method: str, path: str, **sent: Any) -> Any:
        reason = ""
        for attempt in range(self._attempts):
            last = attempt == self._attempts - 1
            try:
                response, body = self._ask(method, path, **sent)
            except Broken as error:
                reason = str(error)
                if not last:
                    self._pause(PAUSES[attempt])
                continue
            if response.status in ANSWERED:
                return self._document(path, body)
            if response.status == UNAUTHORIZED:
                raise UnusableServerError(
                    f"{self._access.server} does not accept the credentials of {self._access.place} "
                    f"({_message(response, body)}): log in again"
                )
            if last or response.status not in TRANSIENT:
                raise Refusal(response.status, _message(response, body))
            self._pause(_pause_of(response, PAUSES[attempt]))
        raise EvidenceError(f"{self._access.server}{path} gave no complete answer ({reason}): try again")

    @property
    def place(self) -> str:
        """The server's address, for messages."""
        return self._access.server

    def websocket(self, path: str, protocol: str, seconds: float) -> WebSocket:
        """A connection at a path, made within ``seconds``. Raises what the package websocket raises, and `OSError`."""
        import websocket
        from kubernetes.stream.ws_client import create_websocket, get_websocket_url

        headers = {"sec-websocket-protocol": protocol, **self._identity()}
        previous = websocket.getdefaulttimeout()
        websocket.setdefaulttimeout(seconds)  # the client library hands none on
        try:
            made: WebSocket = create_websocket(self._configuration, get_websocket_url(f"{self.place}{path}"), headers)
            return made
        finally:
            websocket.setdefaulttimeout(previous)

    def _identity(self) -> dict[str, str]:
        token = self._configuration.auth_settings().get("BearerToken")
        return {"authorization": str(token["value"]).strip()} if token and token.get("value") else {}

    def _ask(self, method: str, path: str, **sent: Any) -> tuple[BaseHTTPResponse, bytes]:
        from urllib3 import Timeout
        from urllib3 import exceptions as wrong

        headers = {
            **HEADERS,
            "user-agent": f"calico-debug/{__version__}",
            **sent.pop("headers", {}),
            **self._identity(),
        }
        server, place = self._access.server, self._access.place
        try:
            response = self._pool.request(
                method,
                f"{server}{path}",
                headers=headers,
                timeout=Timeout(connect=CONNECT_SECONDS, read=self._seconds),
                retries=False,
                redirect=False,
                preload_content=False,
                **sent,
            )
            return response, _body(response)
        except wrong.SSLError as error:
            raise UnusableServerError(
                f"{server} cannot be trusted ({_short(error)}): check certificate-authority and client certificate of "
                f"{place}"
            ) from error
        except (wrong.NewConnectionError, wrong.ConnectTimeoutError, wrong.ProxyError) as error:
            raise UnusableServerError(
                f"cannot reach {server} ({_short(error)}): check the network, and the server of {place}"
            ) from error
        except (wrong.LocationValueError, wrong.URLSchemeUnknown, wrong.InvalidHeader, ValueError) as error:
            raise UnusableServerError(f"cannot ask {server} ({_short(error)}): check {place}") from error
        except wrong.ReadTimeoutError as error:
            raise SilentServerError(f"{server}{path} did not answer within {self._seconds:g} s: try again") from error
        except wrong.HTTPError as error:
            raise Broken(_short(error)) from error

    def _document(self, path: str, body: bytes) -> Any:
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise EvidenceError(
                f"{self._access.server}{path} did not answer with JSON ({error}): check that the server of "
                f"{self._access.place} is a Kubernetes API server"
            ) from error


class Broken(Exception):  # noqa: N818 - an answer that broke off
    """No complete answer; another attempt may get one."""


def _configuration(access: ClusterAccess) -> Configuration:
    from kubernetes import client, config
    from kubernetes.config import ConfigException

    configuration = client.Configuration()
    with _logged_errors() as logged:
        try:
            if access.files:
                config.load_kube_config(
                    config_file=os.pathsep.join(map(str, access.files)),
                    context=access.context,
                    client_configuration=configuration,
                    persist_config=False,
                )
            else:
                config.load_incluster_config(client_configuration=configuration)
        except (ConfigException, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UnusableServerError(
                f"cannot use {access.place} ({_short(error)}): correct it, or log in again"
            ) from error
    if logged:
        # The library goes on without credentials when a plugin fails.
        hint = f" ({access.install_hint})" if access.install_hint else ""
        raise UnusableServerError(f"no credentials for user {access.user} of {access.place}: {'; '.join(logged)}{hint}")
    if not configuration.verify_ssl:
        import urllib3

        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return configuration


@contextmanager
def _logged_errors() -> Iterator[list[str]]:
    """What the library logs as errors, instead of printing it."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(" ".join(record.getMessage().split())[:300])

    collector = Collector(logging.ERROR)
    root = logging.getLogger()
    root.addHandler(collector)
    try:
        yield messages
    finally:
        root.removeHandler(collector)


def _body(response: BaseHTTPResponse) -> bytes:
    """The whole body, bounded in time and size; the connection can be used again, or is closed."""
    ends, size, chunks = time.monotonic() + ANSWER_SECONDS, 0, []
    complete = False
    try:
        for chunk in response.stream(CHUNK, decode_content=True):
            size += len(chunk)
            if size > ANSWER_BYTES:
                raise EvidenceError(
                    f"an answer of the API server has more than {ANSWER_BYTES >> 20} MiB: it is not read"
                )
            if time.monotonic() > ends:
                raise Broken(f"not complete after {ANSWER_SECONDS:g} s")
            chunks.append(chunk)
        complete = True
    finally:
        if complete:
            response.release_conn()
        else:
            response.close()
    return b"".join(chunks)


def _message(response: BaseHTTPResponse, body: bytes) -> str:
    """What the server says of its refusal: the message of its Status, else the beginning of what it sent."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    message = document.get("message") if isinstance(document, dict) else None
    text = message if isinstance(message, str) else body[:200].decode("utf-8", "replace")
    return " ".join(text.split())[:500] or f"HTTP {response.status}"


def _pause_of(response: BaseHTTPResponse, otherwise: float) -> float:
    asked = response.headers.get("retry-after", "")
    return min(float(asked), LONGEST_PAUSE) if asked.isascii() and asked.isdigit() else otherwise


def _short(error: Exception) -> str:
    """The innermost reason, in one line."""
    reason: BaseException = error
    for _ in range(5):
        inner = reason.__cause__ or reason.__context__
        if inner is None:
            break
        reason = inner
    return " ".join(str(reason if str(reason) else error).split())[:300] or type(error).__name__
