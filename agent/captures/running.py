"""One capture while it runs: a thread that takes events and writes packets."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any

from calico_debug import __version__
from calico_debug.agent.captures.folder import Document, Folder, documents
from calico_debug.agent.captures.ring import Ring
from calico_debug.agent.clock import now
from calico_debug.capture.section import Section
from calico_debug.errors import CalicoDebugError, UsageError
from calico_debug.explain.packet_document import losses_document
from calico_debug.model.explanation import API_VERSION

if TYPE_CHECKING:
    from pathlib import Path

    from calico_debug.agent.packets.watch import LiveWatch
    from calico_debug.model.packet_event import PacketEvent
    from calico_debug.model.subject import Subject

log = logging.getLogger("calico_debug.agent")

KIND = "Capture"
RUNNING, ENDED, FAILED = "running", "ended", "failed"
PATIENCE = 10.0
"""Seconds to wait for a capture that was told to stop."""


@dataclass(frozen=True, slots=True)
class CaptureLimits:
    """When a capture ends (``seconds``, ``packets``), and what it keeps: ``bytes`` in ``files`` files, ``snap`` bytes
    of each packet, ``rate`` events a second and CPU where more than one flow is captured.
    """

    seconds: float = 600.0
    packets: int = 100_000
    bytes: int = 64 << 20
    files: int = 4
    snap: int = 256
    rate: int = 1000

    def checked(self) -> CaptureLimits:
        """These limits. Raises `UsageError` when files would be too small."""
        if self.bytes // self.files < LEAST_FILE:
            raise UsageError(
                f"{self.bytes} bytes in {self.files} files leave less than {LEAST_FILE} for each: give more bytes, or "
                "fewer files"
            )
        return self


BOUNDS = {
    "seconds": (1, 86_400),
    "packets": (1, 10_000_000),
    "bytes": (65_536, 1 << 30),
    "files": (1, 64),
    "snap": (64, 2048),
    "rate": (10, 100_000),
}
"""Least and most of each limit."""
LEAST_FILE = 65_536


class Running:
    """A capture under way, or one that has just ended."""

    def __init__(self, folder: Folder, watch: LiveWatch, subject: Subject, limits: CaptureLimits) -> None:
        """Begin to watch and to write. Raises `CalicoDebugError`, and nothing is left then."""
        self._folder, self._watch, self._limits = folder, watch, limits
        self._asked = subject.document
        self._events = self._decided = 0
        self._state, self._ended_by, self._problem, self._ended_at = RUNNING, "", "", ""
        self._stopped = False
        self._started_at = now()
        with ExitStack() as stack:
            stack.enter_context(watch)
            self._teller = watch.teller()
            self.id, path = folder.new()
            stack.callback(self._abandon)
            self._ring = self._begin(path)
            folder.write(self.id, self.document)
            self._thread = Thread(target=self._run, name=f"capture-{self.id}", daemon=True)
            self._thread.start()
            stack.pop_all()

    @property
    def running(self) -> bool:
        """Whether it still captures."""
        return self._state == RUNNING

    @property
    def reserved(self) -> int:
        """Bytes that it may still come to have."""
        written = sum(one.bytes for one in self._ring.files if not one.open)
        return max(0, self._limits.bytes - written) if self.running else 0

    @property
    def document(self) -> Document:
        """What is known of it now. From any thread."""
        watch = self._watch
        losses = watch.losses_so_far() if self.running else watch.losses
        found: dict[str, Any] = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "id": self.id,
            "node": watch.node,
            "state": self._state,
            "subject": watch.subject,
            "asked": dict(self._asked),
            "limits": asdict(self._limits),
            "startedAt": self._started_at,
            "endedAt": self._ended_at,
            "endedBy": self._ended_by,
            "problem": self._problem,
            "events": self._events,
            "packets": self._teller.packets,
            "decided": self._decided if watch.policy is not None else None,
            "losses": losses_document(losses),
            "files": documents(self._ring.files),
            "filesRemoved": self._ring.removed,
            "notes": list(watch.notes),
        }
        return {key: value for key, value in found.items() if value not in ("", None)}

    def size_of(self, file: str) -> int | None:
        """The bytes of the file that is written now, None when it is another."""
        return next((one.bytes for one in self._ring.files if one.open and one.name == file), None)

    def end(self) -> None:
        """Let it end soon."""
        self._stopped = True
        self._watch.stop()

    def stop(self) -> None:
        """End it, and wait until its files are closed."""
        self.end()
        self._thread.join(PATIENCE)

    # ----------------------------------------------------------------------------------------------------- internals

    def _begin(self, path: Path) -> Ring:
        def section() -> Section:
            return Section(
                f"calico-debug {__version__}", f"{self._watch.subject} on {self._watch.node}", self._limits.snap
            )

        losses = self._watch.losses_so_far
        return Ring(path, size=self._limits.bytes, files=self._limits.files, section=section, losses=losses)

    def _abandon(self) -> None:
        self._folder.delete(self.id)

    def _run(self) -> None:
        try:
            self._capture()
            state = ENDED
        except CalicoDebugError as error:
            state, self._ended_by, self._problem = FAILED, "a problem", str(error)
        except Exception as error:
            log.exception("capture %s", self.id)
            state, self._ended_by = FAILED, "a defect"
            self._problem = f"unexpected {type(error).__name__}: this is a defect, see the agent's log"
        self._ended_at = now()
        try:
            self._watch.finish()
            self._ring.close()
        except CalicoDebugError as error:
            state, self._problem = FAILED, self._problem or str(error)
        finally:
            self._watch.__exit__(None, None, None)
            self._state = state
        self._keep()

    def _capture(self) -> None:
        for turn in self._watch.turns():
            for event in turn:
                if not self._take(event):
                    self._ended_by = "packets"
                    return
        for event in self._watch.finish():
            if not self._take(event):
                break
        self._ended_by = "stop" if self._stopped else self._watch.limited_by

    def _take(self, event: PacketEvent) -> bool:
        """Write an event; False when the limit of packets is reached."""
        told = self._teller.tell(event, self._watch.places, self._watch.mark_words(event.mark))
        if told.number > self._limits.packets:
            return False
        self._events += 1
        self._decided += told.decided
        if self._ring.put(event, self._watch.places, told):
            self._keep()
        return True

    def _keep(self) -> None:
        try:
            self._folder.write(self.id, self.document)
        except CalicoDebugError as error:
            log.warning("%s", error)
