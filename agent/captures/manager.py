"""All captures of an agent: how many at once, how much they may keep, and each by its id."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from calico_debug.agent.captures.folder import Document, Folder
from calico_debug.agent.captures.ring import OPEN
from calico_debug.agent.captures.running import CaptureLimits, Running
from calico_debug.agent.packets.observer import Limits
from calico_debug.agent.packets.tally import CAPTURE
from calico_debug.agent.packets.watch import LiveWatch
from calico_debug.errors import EvidenceError, MissingEvidence, UsageError
from calico_debug.model.subject import Subject, checked

if TYPE_CHECKING:
    from calico_debug.evidence.source import EvidenceSource

MOST_RUNNING = 4
MOST_KEPT = 64
MOST_BYTES = 2 << 30
"""Of all captures together, those under way with what they may still write."""

Watching = Callable[[Callable[[], "EvidenceSource"], Subject, Limits, int], LiveWatch]
WATCH: Watching = partial(LiveWatch, kind=CAPTURE)


class Captures:
    """May be used by several threads."""

    def __init__(
        self,
        path: Path,
        open_source: Callable[[], EvidenceSource],
        watch: Watching = WATCH,
        most: int = MOST_BYTES,
    ) -> None:
        """Captures are kept in ``path``, at most ``most`` bytes of them. Nothing is touched yet."""
        self._folder = Folder(path)
        self._open, self._watch, self._most = open_source, watch, most
        self._lock = Lock()
        self._starting = 0
        self._running: dict[str, Running] = {}

    def claim(self) -> None:
        """Set right what an agent before this one has left, if it has. Raises `EvidenceError`."""
        if self._folder.path.is_dir():
            self._folder.claim()

    def start(self, subject: Subject, limits: CaptureLimits) -> Document:
        """Begin a capture. Raises `UsageError`, or `EvidenceError` when there is no room for one more."""
        checked(subject)
        limits.checked()
        with self._lock:
            self._room(limits)
            self._starting += 1
        try:
            kernel = Limits(seconds=limits.seconds, packets=0, bytes=0, rate=limits.rate)
            watch = self._watch(self._open, subject, kernel, limits.snap)
            running = Running(self._folder, watch, subject, limits)
        finally:
            with self._lock:
                self._starting -= 1
        with self._lock:
            self._running[running.id] = running
        return running.document

    def listed(self) -> list[Document]:
        """Every capture, the oldest first."""
        found = []
        for name in self._folder.ids():
            with suppress(MissingEvidence):  # deleted just now
                found.append(self.one(name))
        return found

    def one(self, name: str) -> Document:
        """A capture. Raises `MissingEvidence`."""
        running = self._running.get(name)
        return running.document if running is not None else self._folder.read(name)

    def content(self, name: str, file: str) -> Iterator[bytes]:
        """A file of a capture in pieces, of one that is written now what is there. Raises `MissingEvidence`."""
        running = self._running.get(name)
        size = running.size_of(file) if running is not None else None
        if size is not None:
            try:
                return self._folder.content(name, file, size, ending=OPEN)
            except EvidenceError:
                pass  # it was closed meanwhile
        return self._folder.content(name, file)

    def stop(self, name: str) -> Document:
        """End a capture that runs; its files stay. Raises `MissingEvidence`."""
        running = self._running.get(name)
        if running is not None and running.running:
            running.stop()
        return self.one(name)

    def delete(self, name: str) -> Document:
        """End a capture, and remove it with its files. Raises `CalicoDebugError`."""
        document = self.stop(name)
        if document.get("state") == "running":
            raise EvidenceError(f"capture {name} does not end: try again")
        self._folder.delete(name)
        self._running.pop(name, None)
        return document

    def close(self) -> None:
        """End every capture; their files stay."""
        running = [one for one in self._running.values() if one.running]
        for one in running:
            one.end()
        for one in running:
            one.stop()
        self._folder.release()

    def _room(self, limits: CaptureLimits) -> None:
        under_way = [one for one in self._running.values() if one.running]
        if len(under_way) + self._starting >= MOST_RUNNING:
            raise UsageError(f"{MOST_RUNNING} captures run already: stop one")
        if len(self._folder.ids()) + self._starting >= MOST_KEPT:
            raise UsageError(f"{MOST_KEPT} captures are kept already: delete one")
        kept = self._folder.size() + sum(one.reserved for one in under_way)
        if kept + limits.bytes > self._most:
            raise UsageError(
                f"captures may keep {self._most >> 20} MiB, of which {kept >> 20} are taken: delete some, or ask for "
                "fewer bytes"
            )
