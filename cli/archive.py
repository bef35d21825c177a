"""Where a bundle is written: beside its final place, under a temporary name, and renamed when it is complete.

Files are readable by their owner alone. Nothing is left behind when writing fails or is interrupted.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING

from calico_debug.errors import CalicoDebugError
from calico_debug.record.recorder import LimitError, Sink, Written

if TYPE_CHECKING:
    from types import FrameType

SUFFIXES: Mapping[str, str] = {".tar.gz": "w:gz", ".tgz": "w:gz", ".tar": "w", ".tar.xz": "w:xz", ".tar.bz2": "w:bz2"}
"""Endings of archives and tarfile's modes of writing; what has another ending is a directory."""

MEMORY = 16 << 20
"""Bytes of one file that are kept in memory until its size is known; more goes to an unnamed file on disk."""

PIECE = 1 << 20

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What making a hard link gives on file systems that have none."""


class PlaceError(CalicoDebugError):
    """A bundle cannot be written where the user wants it."""


@contextmanager
def new_bundle(target: Path) -> Iterator[Sink]:
    """A sink for a bundle that is at ``target`` once the block has ended well. Raises `PlaceError` when something is
    there already, or it cannot be written.
    """
    if os.path.lexists(target):
        raise _exists(target)
    mode = next((mode for suffix, mode in SUFFIXES.items() if target.name.endswith(suffix)), None)
    try:
        with _ended_by_signal(), _archive(target, mode) if mode else _directory(target) as sink:
            yield sink
    except OSError as error:
        what = f" ({error.filename})" if error.filename and str(error.filename) != str(target) else ""
        raise PlaceError(
            f"cannot write bundle {target}{what}: {error.strerror or error}; name another place with -f"
        ) from error


class _TarSink:
    def __init__(self, archive: tarfile.TarFile, folder: str, scratch: Path) -> None:
        self._archive = archive
        self._folder = folder
        self._scratch = scratch

    def add(self, path: str, content: Iterable[bytes], room: int) -> Written:
        """See `Sink`."""
        with tempfile.SpooledTemporaryFile(MEMORY, dir=str(self._scratch)) as spool:
            written = _copy(content, spool, room, path)
            spool.seek(0)
            member = tarfile.TarInfo(f"{self._folder}/{path}")
            member.size = written.size
            member.mode, member.mtime = 0o600, time.time()
            self._archive.addfile(member, spool)
        return written


class _DirectorySink:
    def __init__(self, root: Path) -> None:
        self._root = root

    def add(self, path: str, content: Iterable[bytes], room: int) -> Written:
        """See `Sink`."""
        target = self._root / path
        for parent in reversed(target.relative_to(self._root).parents):
            (self._root / parent).mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                written = _copy(content, stream, room, path)
                stream.flush()
                os.fsync(stream.fileno())
        except BaseException:
            target.unlink()
            raise
        return written


def _copy(content: Iterable[bytes], stream: IO[bytes], room: int, path: str) -> Written:
    size, digest = 0, hashlib.sha256()
    for piece in content:
        size += len(piece)
        if size > room:
            raise LimitError(f"{path} is larger than {room} bytes")
        digest.update(piece)
        stream.write(piece)
    return Written(size, digest.hexdigest())


@contextmanager
def _archive(target: Path, mode: str) -> Iterator[Sink]:
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            with tarfile.open(fileobj=stream, mode=mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
                folder = target.name[: target.name.index(".tar")] if ".tar" in target.name else target.stem
                top = tarfile.TarInfo(folder)
                top.type, top.mode, top.mtime = tarfile.DIRTYPE, 0o700, time.time()
                archive.addfile(top, BytesIO())
                yield _TarSink(archive, folder, target.parent)
            stream.flush()
            os.fsync(stream.fileno())
        _settle(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _settle(temporary: Path, target: Path) -> None:
    """Give the file its name, unless another one took it meanwhile."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise _exists(target) from None
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if os.path.lexists(target):
            raise _exists(target) from None
        temporary.rename(target)
    _sync_directory(target.parent)


@contextmanager
def _directory(target: Path) -> Iterator[Sink]:
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        yield _DirectorySink(temporary)
        for parent, _, _ in os.walk(temporary):
            _sync_directory(Path(parent))
        if os.path.lexists(target):
            raise _exists(target)
        temporary.rename(target)
        _sync_directory(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync_directory(path: Path) -> None:
    with suppress(OSError):  # some file systems do not sync directories
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _exists(target: Path) -> PlaceError:
    return PlaceError(f"{target} exists already, and nothing was written: remove it, or name another place with -f")


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that it can clean up; elsewhere than in the main thread they
    cannot be caught, and are not.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {}
    with suppress(ValueError):
        for number in (signal.SIGTERM, signal.SIGHUP):
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
