"""Notices when an interface appears or changes: then pods are looked for again that were not there before."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import time
from collections.abc import Callable
from threading import Thread
from typing import Self

from calico_debug.errors import CalicoDebugError, EvidenceError

log = logging.getLogger("calico_debug.agent")

RTMGRP_LINK = 1
"""include/uapi/linux/rtnetlink.h: messages about links."""
ROOM = 1 << 16
AFTER = (0.05, 3.0, 15.0)
"""Seconds behind a change at which to look: a pod's namespace is there at once, its address in the API later."""
LEAST = 0.25
"""Seconds from one look to the next where changes do not end."""
REGULAR = 120.0
"""Seconds to the next look without any change: labels change, and messages may be lost."""
PATIENCE = 2.0
"""Seconds to wait for a look under way, which may ask a server that is slow."""


class Newcomers:
    """A context manager: a thread of its own, which begins in the network namespace of the one that enters."""

    def __init__(self, look: Callable[[], None], regular: float = REGULAR) -> None:
        """``look`` is called in that thread."""
        self._look = look
        self._regular = regular
        self._problem = ""

    def __enter__(self) -> Self:
        """Begin. Raises `EvidenceError`."""
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
            self._socket.setblocking(False)
            self._socket.bind((0, RTMGRP_LINK))
        except OSError as error:
            raise EvidenceError(f"messages about interfaces cannot be had ({error.strerror}); run as root") from None
        self._end, self._told = os.pipe2(os.O_CLOEXEC)
        self._thread = Thread(target=self._run, name="newcomers", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End; a look under way may come to its end later, which harms nobody."""
        os.close(self._told)
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        try:
            self._listen()
        finally:
            os.close(self._end)
            self._socket.close()

    def _listen(self) -> None:
        due: list[float] = []
        looked = float("-inf")
        regular = time.monotonic() + self._regular
        while True:
            until = min([*due, regular])
            ready, _, _ = select.select([self._socket.fileno(), self._end], [], [], max(0.0, until - time.monotonic()))
            if self._end in ready:
                return
            now = time.monotonic()
            if self._socket.fileno() in ready:
                self._drain()
                # The next look is not put off, or changes without an end would put it off for good.
                first = max(min([*due, now + AFTER[0]]), looked + LEAST)
                due = [first, *(now + seconds for seconds in AFTER[1:])]
            if min([*due, regular]) > now:
                continue
            self._try()
            looked = time.monotonic()
            due = [one for one in due if one > now]
            regular = looked + self._regular

    def _drain(self) -> None:
        """What is in a message does not matter; that some were lost is no more than another one."""
        with contextlib.suppress(OSError):
            while self._socket.recv(ROOM):
                pass

    def _try(self) -> None:
        try:
            self._look()
        except CalicoDebugError as error:
            if str(error) != self._problem:
                log.warning("new pods are not looked for: %s", error)
            self._problem = str(error)
