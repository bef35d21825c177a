"""The files of one capture: a ring of pcapng files, each whole when it is closed, readable while it is written."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from calico_debug.capture.pcapng import whole_blocks
from calico_debug.errors import EvidenceError

if TYPE_CHECKING:
    from calico_debug.capture.section import Section
    from calico_debug.capture.teller import Told
    from calico_debug.explain.packet_story import Places
    from calico_debug.model.packet_event import Losses, PacketEvent

SUFFIX, OPEN = ".pcapng", ".open"
"""A file that is written has both; when it is closed it loses the second."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file: its size in bytes, and how many packets it has, each counted wherever it was seen."""

    name: str
    bytes: int
    packets: int
    open: bool = False


class Ring:
    """Writes; every write is of whole blocks, so a file that ends early is still one."""

    def __init__(
        self, folder: Path, *, size: int, files: int, section: Callable[[], Section], losses: Callable[[], Losses]
    ) -> None:
        """At most ``files`` files with ``size`` bytes together; ``section`` begins one, ``losses`` are told at its end.

        Raises `EvidenceError` when nothing can be written.
        """
        self._folder, self._most, self._each = folder, files, size // files
        self._new_section, self._losses = section, losses
        self._closed: list[FileInfo] = []
        self._begun = 0
        self._descriptor = -1
        self.removed = 0
        """Files that were removed to make room."""
        self._begin()

    @property
    def files(self) -> tuple[FileInfo, ...]:
        """Those that are there, the oldest first. From any thread."""
        closed = tuple(self._closed)
        name, size, packets = self._name, self._size, self._section.packets
        return closed if self._descriptor < 0 else (*closed, FileInfo(name, size, packets, open=True))

    def put(self, event: PacketEvent, places: Places, told: Told) -> bool:
        """Write a packet; whether another file was begun. Raises `EvidenceError` when that fails."""
        turned = self._size >= self._each
        if turned:
            self.close()
            self._begin()
        self._write(self._section.names(told.names) + self._section.packet(event, told.number, places, told.comment))
        return turned

    def close(self) -> None:
        """Close the file under way, which then survives whatever comes. Raises `EvidenceError`."""
        if self._descriptor < 0:
            return
        descriptor = self._descriptor
        try:
            self._write(self._section.end(self._losses()))
            os.fsync(descriptor)
            (self._folder / (self._name + OPEN)).rename(self._folder / self._name)
        except OSError as error:
            raise _cannot(self._folder, error) from None
        finally:
            self._descriptor = -1
            os.close(descriptor)
        self._closed = [*self._closed, FileInfo(self._name, self._size, self._section.packets)]

    def _begin(self) -> None:
        while len(self._closed) >= self._most:
            (self._folder / self._closed[0].name).unlink(missing_ok=True)
            self._closed = self._closed[1:]
            self.removed += 1
        self._begun += 1
        self._section, self._size = self._new_section(), 0
        self._name = f"{self._begun:05d}{SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            self._descriptor = os.open(self._folder / (self._name + OPEN), flags, 0o600)
        except OSError as error:
            self._descriptor = -1
            raise _cannot(self._folder, error) from None
        self._write(self._section.begin())

    def _write(self, blocks: bytes) -> None:
        view = memoryview(blocks)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            # What was written of the block goes again: the file stays whole.
            os.ftruncate(self._descriptor, self._size)
            os.lseek(self._descriptor, self._size, os.SEEK_SET)
            raise _cannot(self._folder, error) from None
        self._size += len(blocks)


def recover(folder: Path) -> None:
    """Close files that an agent which was killed has left open: what is whole of them is kept, the rest cut off.

    A file without a packet is removed. Raises `OSError`.
    """
    for path in sorted(folder.glob(f"*{SUFFIX}{OPEN}")):
        size, packets = _whole(path)
        if not packets:
            path.unlink()
            continue
        os.truncate(path, size)
        path.rename(path.with_suffix(""))


def kept(folder: Path, known: Mapping[tuple[str, int], int]) -> tuple[FileInfo, ...]:
    """The closed files of a folder, the oldest first. Packets are counted where ``known`` does not tell, by name and
    size. Raises `OSError`.
    """
    sizes = ((path, path.stat().st_size) for path in sorted(folder.glob(f"*{SUFFIX}")))
    return tuple(
        FileInfo(path.name, size, known[path.name, size] if (path.name, size) in known else _whole(path)[1])
        for path, size in sizes
    )


def _whole(path: Path) -> tuple[int, int]:
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return 0, 0
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return whole_blocks(data)


def _cannot(folder: Path, error: OSError) -> EvidenceError:
    return EvidenceError(f"captured packets cannot be written to {folder}: {error.strerror or error}; make room there")
