"""The ways to the agent of another node."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from calico_debug.agent.peers import CONTAINER, Peer
from calico_debug.agent.pod_exec import run_in_pod
from calico_debug.errors import EvidenceError, UsageError

if TYPE_CHECKING:
    from calico_debug.agent.apiserver import ApiServer
    from calico_debug.cli.agent_client import Trust

SILENCE = 35.0
"""Seconds of silence after which an agent counts as gone: what takes it longer than 30 s it gives up itself."""
CONNECT_SECONDS = 5.0
RELAY = ("calico-debug", "agent-relay")
"""What runs in the agent's pod: its standard streams are the agent's socket."""


class PodConnection(http.client.HTTPConnection):
    """To the socket of an agent, through the API server and a program in the agent's pod."""

    def __init__(self, server: ApiServer, peer: Peer) -> None:
        """Nothing is connected yet."""
        super().__init__("localhost", timeout=SILENCE)
        self._server = server
        self._peer = peer

    def connect(self) -> None:
        """Start the program. Raises `EvidenceError`."""
        stream = run_in_pod(self._server, self._peer, CONTAINER, RELAY)
        stream.settimeout(SILENCE)
        self.sock = stream


class TlsConnection(http.client.HTTPSConnection):
    """To an agent over TLS. A node that is gone is given up sooner than one that works on an answer."""

    def __init__(self, url: str, trust: Trust) -> None:
        """``url`` is ``https://ADDR:PORT``, as an agent published it. Raises `EvidenceError`; nothing is sent yet."""
        try:
            parts = urlsplit(url)
            scheme, host, port = parts.scheme, parts.hostname, parts.port
        except ValueError:
            scheme, host, port = "", None, None
        if scheme != "https" or not host or not port:
            raise EvidenceError(f"an agent published {url[:100]!r}, which is no https://ADDR:PORT: look at its Lease")
        try:
            context = trust.context()
        except UsageError:
            raise EvidenceError(
                f"the agent at {url} published no certificate that can be used: look at its Lease"
            ) from None
        super().__init__(host, port, timeout=CONNECT_SECONDS, context=context)

    def connect(self) -> None:
        """Connect within `CONNECT_SECONDS`."""
        super().connect()
        self.sock.settimeout(SILENCE)
