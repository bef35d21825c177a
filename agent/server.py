"""The agent's listeners, on waitress: one thread reads and writes every connection, a few work on requests.

Waitress is chosen for what it brings: no dependency, Unix sockets, requests read completely before a thread is spent
on them, bounded headers, bodies and connections, and a way for a request to learn that its client went away. What it
leaves open is added here: clients that send or take bytes one by one are cut off, and stopping waits for answers under
way.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Callable, Iterable
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeVar

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer, UnixWSGIServer
from waitress.task import ThreadedTaskDispatcher

from calico_debug.agent.application import LARGEST_BODY
from calico_debug.agent.tls import TlsFront
from calico_debug.errors import EvidenceError

if TYPE_CHECKING:
    from calico_debug.agent.certificate import Certificate
    from calico_debug.agent.settings import Address

    Application = Callable[[dict[str, Any], Any], Iterable[bytes]]
    """WSGI."""

THREADS = 8
CONNECTIONS = 100
"""Open connections of a listener; more wait in the kernel's queue."""
LARGEST_HEADER = 16 << 10
"""Bytes of a request's line and headers."""
IDLE_SECONDS = 20.0
"""Longest silence between requests of a connection."""
EXCHANGE_SECONDS = 90.0
"""Time from the first byte of a request to the last byte of its answer; working on it has a limit of its own."""
REQUEST_SECONDS = 10.0
"""Time from the first byte of a request to its last."""
PENDING_BYTES = 4 << 20
"""Bytes of an answer that wait for the client; then the thread that makes them waits, too."""
GRACE_SECONDS = 5.0
"""Time that answers under way get when the agent is told to stop."""
LOOP_SECONDS = 0.5


class Channel(HTTPChannel):
    """One connection, with the time since which its exchange goes on."""

    since: float | None = None

    def readable(self) -> bool:
        """A client that is gone has nothing more to say; without this the loop would spin on its closed socket."""
        return self.connected and bool(super().readable())

    def received(self, data: bytes) -> bool:
        """Bytes of a request."""
        if self.since is None:
            self.since = time.monotonic()
        return bool(super().received(data))

    def overdue(self, now: float) -> bool:
        """Whether the client is too slow in sending its request or in taking the answer."""
        receiving, answering = self.request is not None, bool(self.requests) or bool(self.total_outbufs_len)
        if not receiving and not answering:
            self.since = None
        if self.since is None:
            return False
        return now - self.since > (EXCHANGE_SECONDS if answering else REQUEST_SECONDS)


def close_overdue(channels: Iterable[Channel]) -> None:
    """Close the connections whose clients are too slow. Waitress itself closes idle ones only."""
    now = time.monotonic()
    for channel in channels:
        if channel.overdue(now):
            channel.handle_close()


class _TcpServer(TcpWSGIServer):
    channel_class = Channel

    def readable(self) -> bool:
        """Whether another connection is accepted."""
        return bool(super().readable()) and has_room(self)


class _UnixServer(UnixWSGIServer):
    channel_class = Channel

    def readable(self) -> bool:
        """Whether another connection is accepted."""
        return bool(super().readable()) and has_room(self)


def has_room(server: Any) -> bool:
    """Waitress counts the connections of all listeners together: one that is flooded would close the others."""
    return len(server.active_channels) < CONNECTIONS


class _TlsServer(_TcpServer):
    """Its channels are the plain sides of connections."""

    front: TlsFront

    def readable(self) -> bool:
        """Whether another connection is accepted."""
        return super().readable() and self.front.connections < CONNECTIONS

    def accept(self) -> tuple[socket.socket, Any] | None:
        """A connection whose TLS ends before it."""
        accepted = super().accept()
        return None if accepted is None else (self.front.plain(accepted[0]), accepted[1])

    def set_socket_options(self, conn: socket.socket) -> None:
        """Those of TCP are set by who ends TLS."""


Server = TypeVar("Server", _TcpServer, _TlsServer, _UnixServer)


class Listeners:
    """The sockets of an agent, and the loop that serves them."""

    def __init__(self) -> None:
        """Nothing is open yet."""
        self._map: dict[int, Any] = {}
        self._servers: list[TcpWSGIServer | UnixWSGIServer] = []
        self._dispatchers: list[ThreadedTaskDispatcher] = []
        self._fronts: list[TlsFront] = []
        self._paths: list[tuple[str, int]] = []
        self._stopping = False
        # A signal handler may call `stop` while this thread holds it.
        self._lock = RLock()

    def tcp(
        self, address: Address, application: Application, threads: int = THREADS, certificate: Certificate | None = None
    ) -> int:
        """Listen on an address, with TLS when there is a certificate; the port, which the kernel chose if it was 0.

        Raises `EvidenceError`.
        """
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address.host, address.port))
        except OSError as error:
            listener.close()
            raise EvidenceError(
                f"cannot listen on {address}: {error.strerror}; stop what listens there, or choose another port"
            ) from None
        if certificate is None:
            self._serve(_TcpServer, listener, application, threads)
        else:
            front = TlsFront(certificate.context)
            self._fronts.append(front)
            self._serve(_TlsServer, listener, application, threads).front = front
        return int(listener.getsockname()[1])

    def unix(self, path: str, application: Application, threads: int = THREADS) -> None:
        """Listen on a Unix socket that only its owner may use. Raises `EvidenceError`."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)  # noqa: PTH103, PTH120
            _remove_stale(path)
            # So that nobody can connect in the moment before the mode is set.
            previous = os.umask(0o177)
            try:
                listener.bind(path)
            finally:
                os.umask(previous)
            self._paths.append((path, os.stat(path).st_ino))  # noqa: PTH116
        except OSError as error:
            listener.close()
            raise EvidenceError(
                f"cannot listen on {path}: {error.strerror or error}; choose a path that this user may write"
            ) from None
        except EvidenceError:
            listener.close()
            raise
        self._serve(_UnixServer, listener, application, threads)

    def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop` is called; then finish what is under way, within `GRACE_SECONDS`."""
        started()
        try:
            while not self._stopping:
                self._turn()
            for server in self._servers:
                server.accepting = False
            end = time.monotonic() + GRACE_SECONDS
            while self._busy() and time.monotonic() < end:
                self._turn()
        finally:
            self.close()

    def stop(self) -> None:
        """Make `run` end. May be called from a signal handler and from any thread."""
        with self._lock:
            self._stopping = True
            if self._servers:
                self._servers[0].pull_trigger()

    def close(self) -> None:
        """Close everything, and remove the Unix socket."""
        for channel in self._channels():
            channel.handle_close()
        for front in self._fronts:
            front.close()
        for dispatcher in self._dispatchers:
            dispatcher.shutdown(timeout=1)
        with self._lock:
            # Behind this no trigger may be pulled: its descriptor can be somebody else's by then.
            self._servers.clear()
            wasyncore.close_all(self._map)
        for path, inode in self._paths:
            try:
                if os.stat(path).st_ino == inode:  # noqa: PTH116 - another agent's may be there by now
                    os.unlink(path)  # noqa: PTH108
            except OSError:
                continue
        self._paths.clear()

    def _serve(self, server: type[Server], listener: socket.socket, application: Application, threads: int) -> Server:
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.set_thread_count(threads)
        adjustments = Adjustments(
            sockets=[listener],
            threads=threads,
            connection_limit=1 << 30,  # see has_room
            channel_timeout=IDLE_SECONDS,
            cleanup_interval=1,
            max_request_header_size=LARGEST_HEADER,
            max_request_body_size=LARGEST_BODY,
            # Everything stays in memory: a container's file system is read-only, and the amounts are bounded.
            inbuf_overflow=2 * LARGEST_BODY,
            outbuf_overflow=1 << 40,
            outbuf_high_watermark=PENDING_BYTES,
            channel_request_lookahead=1,
            ident=None,
            asyncore_use_poll=True,
            log_socket_errors=False,
        )
        made = server(
            application,
            self._map,
            True,
            listener,
            dispatcher=dispatcher,
            adj=adjustments,
            bind_socket=False,
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
        )
        self._dispatchers.append(dispatcher)
        self._servers.append(made)
        return made

    def _turn(self) -> None:
        wasyncore.loop(timeout=LOOP_SECONDS, use_poll=True, map=self._map, count=1)
        close_overdue(self._channels())

    def _channels(self) -> list[Channel]:
        return [one for one in self._map.values() if isinstance(one, Channel)]

    def _busy(self) -> bool:
        return any(channel.requests or channel.total_outbufs_len for channel in self._channels())


def _remove_stale(path: str) -> None:
    """Remove the socket of an agent that died; one that answers, or anything else of that name, stays."""
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise EvidenceError(f"{path} is there and no socket: choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)  # noqa: PTH108
            return
    raise EvidenceError(f"another agent listens on {path}: stop it, or choose another path")
