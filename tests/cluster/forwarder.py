"""A port of a network namespace that leads to a port of this one: a node reaches the API server by it."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

from tests.lab import namespaces


class Forwarder:
    """Listens on loopback of a namespace and passes connections on, until closed."""

    def __init__(self, namespace: str, target: int) -> None:
        with namespaces.entered(namespace):
            self._listener = socket.create_server(("127.0.0.1", 0))
        self._target = target
        self._open: list[socket.socket] = []
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=_pass_on, args=pair, daemon=True).start()


def _pass_on(start: socket.socket, end: socket.socket) -> None:
    with suppress(OSError):
        while data := start.recv(1 << 16):
            end.sendall(data)
        end.shutdown(socket.SHUT_WR)
