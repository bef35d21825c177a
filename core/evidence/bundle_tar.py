"""The files of a bundle that is a tar archive. Nothing is extracted; every length and name is checked first."""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from calico_debug.errors import EvidenceError

if TYPE_CHECKING:
    from calico_debug.evidence.bundle import Limits

CHUNK = 1 << 20


def _gzip(stream: IO[bytes]) -> IO[bytes]:
    import gzip

    return cast(IO[bytes], gzip.GzipFile(fileobj=stream))


def _bzip2(stream: IO[bytes]) -> IO[bytes]:
    import bz2

    return bz2.BZ2File(stream)


def _xz(stream: IO[bytes]) -> IO[bytes]:
    import lzma

    return lzma.LZMAFile(stream)


COMPRESSIONS: Mapping[bytes, Callable[[IO[bytes]], IO[bytes]]] = {
    b"\x1f\x8b": _gzip,  # RFC 1952, 2.3.1
    b"BZh": _bzip2,
    b"\xfd7zXZ\x00": _xz,  # xz-file-format 2.1.1.1
}
"""First bytes of a compressed file, and what decompresses it."""

FOREIGN: Mapping[bytes, str] = {
    b"\x28\xb5\x2f\xfd": "zstd (decompress it with `zstd -d`)",
    b"PK\x03\x04": "a zip archive (unpack it with `unzip`, name the directory)",
    b"\x04\x22\x4d\x18": "lz4 (decompress it with `lz4 -d`)",
}
"""First bytes of what people might try that this program does not read."""


class _Bounded(io.RawIOBase):
    """A stream that refuses to go beyond the limits, whatever lengths the archive's headers claim."""

    def __init__(self, stream: IO[bytes], origin: str, limits: Limits) -> None:
        super().__init__()
        self._stream = stream
        self._origin = origin
        self._limits = limits

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        self._check(offset if whence == 0 else 0)
        return self._stream.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > max(CHUNK, self._limits.header):
            raise EvidenceError(
                f"bundle {self._origin} is damaged: a header claims {size} bytes; copy it again, or record it again"
            )
        self._check(self._stream.tell() + size)
        return self._stream.read(size)

    def _check(self, position: int) -> None:
        if position > self._limits.total + CHUNK:
            raise too_large(self._origin, self._limits)


def too_large(origin: str, limits: Limits) -> EvidenceError:
    """The error of an archive that holds too much."""
    return EvidenceError(
        f"bundle {origin} unpacks to more than {limits.total >> 20} MiB: unpack it with tar, name the directory"
    )


class TarFiles:
    """Implements `calico_debug.evidence.bundle.BundleFiles` over an archive."""

    def __init__(self, path: Path, limits: Limits) -> None:
        """Read the headers of every member, and refuse what is unsafe. Raises `EvidenceError`."""
        self._origin = str(path)
        self._limits = limits
        try:
            self._archive = self._open(path)
            self._members = self._index()
        except EvidenceError:
            raise
        except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError) as error:
            raise self._damaged(error) from error
        except Exception as error:
            # lzma.LZMAError derives from Exception alone; importing lzma for its name would cost every start.
            if type(error).__name__ != "LZMAError":
                raise
            raise self._damaged(error) from error

    def names(self, directory: str) -> Sequence[str]:
        """See `BundleFiles`."""
        prefix = f"{directory}/" if directory else ""
        return sorted(name.removeprefix(prefix) for name in self._members if name.startswith(prefix))

    def directories(self, directory: str) -> Sequence[str]:
        """See `BundleFiles`."""
        names = (name.partition("/") for name in self.names(directory))
        return sorted({first for first, slash, _ in names if slash})

    def read(self, name: str) -> bytes | None:
        """See `BundleFiles`."""
        member = self._members.get(name)
        if member is None:
            return None
        try:
            stream = self._archive.extractfile(member)
            if stream is None:
                return None
            chunks = []
            while chunk := stream.read(CHUNK):
                chunks.append(chunk)
        except EvidenceError:
            raise
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise self._damaged(error) from error
        content = b"".join(chunks)
        if len(content) != member.size:
            raise self._damaged("it ends within " + name)
        return content

    def _open(self, path: Path) -> tarfile.TarFile:
        stream: IO[bytes] = path.open("rb")
        head = stream.read(8)
        stream.seek(0)
        for magic, name in FOREIGN.items():
            if head.startswith(magic):
                raise EvidenceError(f"bundle {path} is {name}: bundles are directories or tar, tar.gz, tar.xz, tar.bz2")
        for magic, decompress in COMPRESSIONS.items():
            if head.startswith(magic):
                stream = decompress(stream)
                content = stream.read(self._limits.in_memory + 1)
                if len(content) <= self._limits.in_memory:
                    stream = io.BytesIO(content)
                else:
                    stream.seek(0)
                break
        bounded = _Bounded(stream, self._origin, self._limits)
        return tarfile.open(fileobj=bounded, mode="r:")

    def _index(self) -> dict[str, tarfile.TarInfo]:
        members: dict[str, tarfile.TarInfo] = {}
        count = total = 0
        while (member := self._archive.next()) is not None:
            count += 1
            if count > self._limits.members:
                raise EvidenceError(
                    f"bundle {self._origin} has more than {self._limits.members} members: record it again"
                )
            name = self._safe_name(member)
            if member.isdir():
                continue
            total += member.size
            if total > self._limits.total:
                raise too_large(self._origin, self._limits)
            if name in members:
                raise self._unsafe(name, "is in it twice")
            members[name] = member
        return _unwrapped(members)

    def _safe_name(self, member: tarfile.TarInfo) -> str:
        name = member.name
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/"):
            raise self._unsafe(name, "has an absolute name")
        if ".." in parts:
            raise self._unsafe(name, 'has ".." in its name')
        if member.issym() or member.islnk():
            raise self._unsafe(name, f"is a link to {member.linkname!r}")
        if not member.isdir() and (not member.isreg() or member.issparse()):
            raise self._unsafe(name, "is not a regular file")
        if member.size > self._limits.file:
            raise self._unsafe(name, f"is larger than {self._limits.file >> 20} MiB")
        if member.size < 0 or (not parts and not member.isdir()):
            raise self._unsafe(name, "has a header that makes no sense")
        return "/".join(parts)

    def _unsafe(self, name: str, why: str) -> EvidenceError:
        return EvidenceError(f"bundle {self._origin} is refused: member {name!r} {why}; record it again or repack it")

    def _damaged(self, error: object) -> EvidenceError:
        return EvidenceError(
            f"bundle {self._origin} is not a complete tar archive ({error}): copy it again, or name a directory"
        )


def _unwrapped(members: dict[str, tarfile.TarInfo]) -> dict[str, tarfile.TarInfo]:
    """The members without the one directory that holds them all, unless that directory is a part of a bundle."""
    tops = {name.partition("/")[0] for name in members}
    if len(tops) != 1 or not all("/" in name for name in members):
        return members
    top = tops.pop()
    if top in ("nodes", "cluster"):
        return members
    return {name.removeprefix(top + "/"): member for name, member in members.items()}
