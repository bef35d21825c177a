"""A program in a pod, run through the API server with the user's own rights: its input and output as one stream.

What kubectl exec does: a WebSocket whose messages begin with the number of a channel (v4.channel.k8s.io, Kubernetes
staging/src/k8s.io/apimachinery/pkg/util/remotecommand/constants.go).
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from calico_debug.errors import EvidenceError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer
    from websocket import WebSocket

    from calico_debug.agent.apiserver import ApiServer
    from calico_debug.agent.peers import Peer

PROTOCOL = "v4.channel.k8s.io"
"""Of the protocols the one that every API server passes on to kubelet as it is."""
STDIN, STDOUT, STDERR, STATUS = range(4)
PIECE = 16 << 10
"""Bytes of input in one message."""
MOST_SAID = 2000
"""Bytes of the program's standard error that are kept."""
CONNECT_SECONDS = 10.0
FORBIDDEN, NOT_FOUND = 403, 404


class PodStream:
    """Does what `http.client` asks of a socket, for a program in a pod."""

    def __init__(self, websocket: WebSocket, words: str) -> None:
        """``words`` call the program and its pod."""
        self._websocket = websocket
        self._words = words
        self._said = b""
        self._ended = False
        self._readers = 0
        self._closing = False

    def settimeout(self, seconds: float | None) -> None:
        """The longest silence."""
        self._websocket.settimeout(seconds)

    def sendall(self, data: ReadableBuffer) -> None:
        """Write to the program. Raises `OSError`."""
        from websocket import WebSocketException

        view = memoryview(data).cast("B")
        try:
            for start in range(0, len(view), PIECE):
                self._websocket.send_binary(bytes([STDIN]) + view[start : start + PIECE])
        except WebSocketException as error:
            raise _broken(error) from None

    def makefile(self, mode: str) -> io.BufferedReader:
        """What the program writes."""
        assert mode == "rb"
        self._readers += 1
        return io.BufferedReader(_Output(self))

    def receive(self) -> bytes:
        """The next piece of output, b"" at its end. Raises `OSError`, and `EvidenceError` when the program failed."""
        from websocket import ABNF, WebSocketConnectionClosedException, WebSocketException

        while not self._ended:
            try:
                code, frame = self._websocket.recv_data_frame()
            except WebSocketConnectionClosedException:
                break
            except WebSocketException as error:
                raise _broken(error) from None
            if code == ABNF.OPCODE_CLOSE:
                break
            data = bytes(frame.data) if frame is not None else b""
            if not data:
                continue
            if data[0] == STDOUT and len(data) > 1:
                return data[1:]
            if data[0] == STDERR:
                self._said = (self._said + data[1:])[:MOST_SAID]
            elif data[0] == STATUS:
                self._ended = True
                self._judge(data[1:])
        self._ended = True
        return b""

    def close(self) -> None:
        """End the program, by the end of its input, as soon as nobody reads its output any more."""
        self._closing = True
        self._close_unread()

    def release(self) -> None:
        """One reader less."""
        self._readers -= 1
        self._close_unread()

    def _close_unread(self) -> None:
        from websocket import WebSocketException

        if not self._closing or self._readers:
            return
        self._ended = True
        try:
            self._websocket.close(timeout=1)
        except (WebSocketException, OSError):
            self._websocket.shutdown()  # type: ignore[no-untyped-call]

    def _judge(self, data: bytes) -> None:
        try:
            status = json.loads(data)
            failed, message = status.get("status") != "Success", str(status.get("message") or "")
        except (ValueError, AttributeError, RecursionError):
            failed, message = True, "its end is told in a form not understood"
        if failed:
            said = self._said.decode("utf-8", "replace").strip().splitlines()
            raise EvidenceError(f"{self._words} failed: {' '.join((said[-1] if said else message).split())[:300]}")


class _Output(io.RawIOBase):
    """The raw reading side of a `PodStream`."""

    def __init__(self, stream: PodStream) -> None:
        self._stream = stream
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._stream.release()

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        if not self._rest:
            self._rest = memoryview(self._stream.receive())
        size = min(len(view), len(self._rest))
        view[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def run_in_pod(server: ApiServer, peer: Peer, container: str, command: Sequence[str]) -> PodStream:
    """Start a program in a pod. Raises `EvidenceError`."""
    from websocket import WebSocketBadStatusException, WebSocketException

    query = [*(("command", word) for word in command), ("container", container)]
    query += [(stream, "true") for stream in ("stdin", "stdout", "stderr")]
    path = f"/api/v1/namespaces/{peer.namespace}/pods/{peer.pod}/exec?{urlencode(query)}"
    words = f"{command[0]} in pod {peer.namespace}/{peer.pod}"
    try:
        return PodStream(server.websocket(path, PROTOCOL, CONNECT_SECONDS), words)
    except WebSocketBadStatusException as error:
        raise EvidenceError(_refused(error, peer)) from None
    except (WebSocketException, OSError) as error:
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise EvidenceError(f"cannot run {words} through {server.place} ({why}): try again, or on the node") from None


def _refused(error: Exception, peer: Peer) -> str:
    status = getattr(error, "status_code", 0)
    body = getattr(error, "resp_body", b"") or b""
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        message = bytes(body[:200]).decode("utf-8", "replace") if isinstance(body, bytes) else ""
    message = " ".join(message.split())[:300] or f"HTTP {status}"
    remedy = {
        FORBIDDEN: f"grant get and create on pods/exec in namespace {peer.namespace}, or run on the node",
        NOT_FOUND: "it may just have been replaced: try again",
    }.get(status, "try again, or run on the node")
    return f"the API server runs nothing in pod {peer.namespace}/{peer.pod} ({message}): {remedy}"


def _broken(error: Exception) -> OSError:
    from websocket import WebSocketTimeoutException

    if isinstance(error, WebSocketTimeoutException):
        return TimeoutError("timed out")
    return ConnectionError(" ".join(str(error).split())[:200] or type(error).__name__)
