"""The directory of an agent's captures: one folder each, with a document and the files."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from calico_debug.agent.captures.ring import SUFFIX, FileInfo, kept, recover
from calico_debug.errors import EvidenceError, MissingEvidence

DOCUMENT = "capture.json"
IDS = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{4}")
FILES = re.compile(rf"[0-9]{{5}}{re.escape(SUFFIX)}")
INTERRUPTED = "interrupted"
PIECE = 1 << 20
"""Bytes that are read at once."""

Document = dict[str, Any]


class Folder:
    """Captures on disk. The directory is made when it is needed, for its owner alone."""

    def __init__(self, path: Path) -> None:
        """Nothing is touched yet."""
        self.path = path
        self._lock = -1
        self._claiming = Lock()
        self._begun: set[str] = set()

    def claim(self) -> None:
        """Make it ours, and set right what an agent that was killed has left. Raises `EvidenceError`."""
        with self._claiming:
            if self._lock < 0:
                self._lock = self._claim()
                self._recover()

    def release(self) -> None:
        """Let another agent have it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def ids(self) -> list[str]:
        """Captures, the oldest first, but for those that begin just now: nothing is known of them."""
        if not self.path.is_dir():
            return []
        names = {one.name for one in self.path.iterdir() if IDS.fullmatch(one.name) and one.is_dir()}
        return sorted(names - self._begun)

    def new(self) -> tuple[str, Path]:
        """A capture's id and folder. Raises `EvidenceError`."""
        self.claim()
        name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        self._begun.add(name)
        try:
            (self.path / name).mkdir(mode=0o700)
        except OSError as error:
            self._begun.discard(name)
            raise EvidenceError(f"{self.path} takes no capture: {error.strerror}; make room there") from None
        return name, self.path / name

    def write(self, name: str, document: Mapping[str, Any]) -> None:
        """Keep a capture's document. Raises `EvidenceError`."""
        path = self.path / name / DOCUMENT
        draft = path.with_suffix(".new")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                json.dump(document, file)
            draft.rename(path)
            self._begun.discard(name)
        except OSError as error:
            raise EvidenceError(f"{path} cannot be written: {error.strerror}; make room there") from None

    def read(self, name: str) -> Document:
        """A capture's document, with the files that are there. Raises `MissingEvidence`."""
        if not IDS.fullmatch(name) or not (self.path / name).is_dir():
            raise MissingEvidence(f"there is no capture {name[:40]!r}: see which there are with `capture list`")
        document: Document = {"id": name}
        with suppress(OSError, ValueError, RecursionError):
            found = json.loads((self.path / name / DOCUMENT).read_bytes())
            document = found if isinstance(found, dict) else document
        with suppress(OSError):
            document["files"] = documents(kept(self.path / name, _known(document)))
        return document

    def size(self) -> int:
        """Bytes of all files."""
        with suppress(OSError):
            return sum(path.stat().st_size for path in self.path.glob(f"*/*{SUFFIX}"))
        return 0

    def content(self, name: str, file: str, size: int | None = None, *, ending: str = "") -> Iterator[bytes]:
        """A file in pieces, of one that is written its first ``size`` bytes. Raises `MissingEvidence`."""
        if not IDS.fullmatch(name) or not FILES.fullmatch(file):
            raise MissingEvidence(f"there is no file {file[:40]!r} of capture {name[:40]!r}")
        try:
            opened = (self.path / name / (file + ending)).open("rb")
        except OSError:
            raise MissingEvidence(f"capture {name} has no file {file}: it was removed, or never there") from None
        return _pieces(opened, size)

    def delete(self, name: str) -> None:
        """Remove a capture with its files. Raises `EvidenceError`."""
        self.read(name)
        try:
            shutil.rmtree(self.path / name)
            self._begun.discard(name)
        except OSError as error:
            raise EvidenceError(f"capture {name} cannot be removed: {error.strerror}") from None

    def _claim(self) -> int:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BaseException:
                os.close(lock)
                raise
        except BlockingIOError:
            raise EvidenceError(
                f"another agent keeps its captures in {self.path}: name another directory with --captures"
            ) from None
        except OSError as error:
            raise EvidenceError(
                f"captures cannot be kept in {self.path}: {error.strerror}; name another directory with --captures"
            ) from None
        return lock

    def _recover(self) -> None:
        for name in self.ids():
            with suppress(OSError, EvidenceError):
                recover(self.path / name)
                (self.path / name / DOCUMENT).with_suffix(".new").unlink(missing_ok=True)
                document = self.read(name)
                if document.get("state") == "running":
                    self.write(name, {**document, "state": INTERRUPTED, "endedBy": "the end of the agent"})
                elif "state" not in document and not document.get("files"):
                    # Killed before anything was captured.
                    shutil.rmtree(self.path / name)


def documents(files: tuple[FileInfo, ...]) -> list[Document]:
    """Files as JSON has them."""
    return [
        {"name": one.name, "bytes": one.bytes, "packets": one.packets, **({"open": True} if one.open else {})}
        for one in files
    ]


def _known(document: Document) -> Mapping[tuple[str, int], int]:
    """Packets of files, by name and size, as a document has them."""
    try:
        return {(str(one["name"]), int(one["bytes"])): int(one["packets"]) for one in document.get("files", ())}
    except (TypeError, KeyError, ValueError):
        return {}


def _pieces(opened: Any, size: int | None) -> Iterator[bytes]:
    left = size
    with opened:
        while left is None or left > 0:
            piece = opened.read(PIECE if left is None else min(PIECE, left))
            if not piece:
                return
            left = None if left is None else left - len(piece)
            yield piece
