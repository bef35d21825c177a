"""What a command is doing, in one line of the terminal, when it is silent for long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from typing import TextIO

from calico_debug.activity import heard_by
from calico_debug.cli.errors import one_line

SILENCE, TURN = 2.0, 0.2
"""Seconds until the line is there, and between its changes."""
MORE = " ..."
"""Behind the line: it goes on."""
COLUMNS = 80
"""Of a terminal that does not say how wide it is."""
CLEARED = "\r\x1b[K"
"""To the begin of the line, and away with what is there (ECMA-48: EL)."""


class Progress:
    """The line. What was said last is shown as long as nothing else is: a thread looks at it, since whoever waits for
    an answer says nothing meanwhile.
    """

    def __init__(
        self, stream: TextIO, columns: Callable[[], int | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``stream`` is a terminal, ``columns`` says how wide it is now. Nothing is written yet."""
        self._stream, self._columns, self._clock = stream, columns, clock
        self._lock = Lock()
        self._since = clock()
        self._said = self._shown = ""

    def hear(self, what: str) -> None:
        """Take what is done now."""
        self._said = what

    def show(self) -> None:
        """Write the line, once there was silence for long enough."""
        with self._lock:
            if self._said not in ("", self._shown) and self._clock() - self._since >= SILENCE:
                self._write(f"{CLEARED}{self._fitting(self._said)}")
                self._shown = self._said

    def remove(self) -> None:
        """Take the line away, for something else to be written; it is there again when something else is said."""
        with self._lock:
            if self._shown:
                self._write(CLEARED)
            self._said = self._shown = ""
            self._since = self._clock()

    def _fitting(self, text: str) -> str:
        """One line that does not wrap, since a wrapped one could not be taken away: of ASCII, a column each."""
        room = max((self._columns() or COLUMNS) - 1 - len(MORE), 0)
        line = one_line(text[:room]).encode("ascii", "backslashreplace").decode()
        return line[:room] + MORE

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            return  # the terminal is gone: there is nobody to show anything to


@contextmanager
def shown_on(stream: TextIO, columns: Callable[[], int | None]) -> Iterator[Progress]:
    """Show what this thread says on a terminal, until the end, which takes the line away."""
    progress, ended = Progress(stream, columns), Event()

    def look() -> None:
        while not ended.wait(TURN):
            progress.show()

    looking = Thread(target=look, name="progress", daemon=True)
    looking.start()
    try:
        with heard_by(progress.hear):
            yield progress
    finally:
        ended.set()
        looking.join()
        progress.remove()
