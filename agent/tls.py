"""TLS before a listener: asyncio's, on a thread of its own; what is behind it sees plain connections.

Waitress has no TLS, and servers that have it (cheroot and gunicorn's threads, hypercorn, uvicorn) shake hands on the
thread that accepts, spend a thread on a slow client, or have no limit for slow requests. So connections keep being
waitress's, with its limits, and the standard library's event loop stands between: it shakes hands, decrypts, and moves
bytes to one end of a socket pair, whose other end waitress serves. A client that goes ends the pair, and with it the
work.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from threading import Thread

from calico_debug.errors import CalicoDebugError

log = logging.getLogger("calico_debug.agent")

HANDSHAKE_SECONDS = 5.0
"""Longest handshake."""
FLUSH_SECONDS = 20.0
"""Time a client has to take the rest of a complete answer."""
PIECE = 64 << 10
"""Bytes that are moved at once; asyncio holds twice as many of a connection, and TLS a few records."""
STOP_SECONDS = 2.0


class TlsFront:
    """Ends TLS for one listener."""

    def __init__(self, context: Callable[[], ssl.SSLContext]) -> None:
        """``context`` is asked for every connection, so that certificates may change."""
        self._context = context
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = Thread(target=self._run, name="tls", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    @property
    def connections(self) -> int:
        """How many are open, those included that only wait for their client to take the end."""
        return len(self._tasks)

    def plain(self, connection: socket.socket) -> socket.socket:
        """The plain side of a connection that was just accepted. It ends when the handshake fails."""
        ours, theirs = socket.socketpair()
        for one in (connection, ours):
            one.setblocking(False)
        self._loop.call_soon_threadsafe(self._begin, connection, ours)
        return theirs

    def close(self) -> None:
        """Give what is being sent a moment, then end every connection and the thread."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop)
            self._thread.join(2 * STOP_SECONDS)

    def _begin(self, connection: socket.socket, inner: socket.socket) -> None:
        task = self._loop.create_task(self._serve(connection, inner))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self) -> None:
        tasks = tuple(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loop.stop()

    async def _serve(self, connection: socket.socket, inner: socket.socket) -> None:
        """One connection, from its handshake to its end."""
        reader = asyncio.StreamReader(limit=PIECE)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._context(),
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=FLUSH_SECONDS,
            )
        except (OSError, CalicoDebugError) as error:
            # Whoever scans ports does this all the time: no line for each in the log.
            log.debug("no TLS: %s", error)
            connection.close()
            inner.close()
            return
        except asyncio.CancelledError:
            connection.close()
            inner.close()
            raise
        transport.set_write_buffer_limits(PIECE)
        outer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
        answers, requests = await asyncio.open_connection(sock=inner, limit=PIECE)
        moves = [asyncio.ensure_future(_move(reader, requests)), asyncio.ensure_future(_move(answers, outer))]
        try:
            await asyncio.wait(moves, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for move in moves:
                move.cancel()
            requests.close()
            outer.close()
            try:
                await outer.wait_closed()
            except OSError:
                pass  # the client was gone first
            except asyncio.CancelledError:
                transport.abort()
                raise


async def _move(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Move bytes until either side ends; no faster than they are taken."""
    try:
        while data := await source.read(PIECE):
            target.write(data)
            await target.drain()
    except OSError:
        return
