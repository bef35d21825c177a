"""Evidence on disk: a bundle in a directory or a tar archive (contract 1, docs/bundle.md)."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from calico_debug.activity import say
from calico_debug.errors import EvidenceError, MissingEvidence
from calico_debug.evidence.contents import cluster_remedy, remedy
from calico_debug.evidence.manifest import ADDRESSES, RULES_AFTER, RULES_BEFORE, Manifest, read_manifest
from calico_debug.evidence.source import EvidenceSource, NetlinkDump, NodeEvidence

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what a bundle may make this program read. Sizes are in bytes, after decompression."""

    file: int = 768 * MEBIBYTE
    """A dump of the largest default BPF map (512k entries) is 365 MiB of JSON."""
    total: int = 8192 * MEBIBYTE
    members: int = 200_000
    in_memory: int = 64 * MEBIBYTE
    """A compressed archive up to this size is decompressed once and kept; a larger one again for each file read."""
    header: int = MEBIBYTE
    """The longest name or extended header of one member."""


LIMITS = Limits()

OWN = "calico-debug "
"""How a manifest's ``tool`` begins when this program wrote the bundle."""

SHAPE = "a bundle has nodes/<node>/ with files like nft-ruleset.json, cluster/ with lists like pods.json, or both"


class BundleFiles(Protocol):
    """The files of a bundle by their path in it, "/" between the parts."""

    def names(self, directory: str) -> Sequence[str]:
        """Paths below ``directory``, relative to it, of every regular file."""

    def directories(self, directory: str) -> Sequence[str]:
        """Names of the directories in ``directory``; () when there is none of that name."""

    def read(self, name: str) -> bytes | None:
        """The content, None when there is no such file. Raises `EvidenceError`."""


class DirectoryFiles:
    """A bundle that is a directory. Symbolic links may point within it, not out of it."""

    def __init__(self, root: Path, limits: Limits = LIMITS) -> None:
        """Nothing is read yet."""
        self._root = root
        self._real = os.path.realpath(root)
        self._limits = limits

    def names(self, directory: str) -> Sequence[str]:
        """See `BundleFiles`."""
        base = self._root / directory
        found: list[str] = []

        def refuse(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                raise EvidenceError(f"cannot list {error.filename}: {error.strerror}; check its permissions") from error

        for parent, _, files in os.walk(base, onerror=refuse):
            relative = Path(parent).relative_to(base)
            found.extend((relative / file).as_posix() for file in files)
            if len(found) > self._limits.members:
                raise EvidenceError(
                    f"{base} holds more than {self._limits.members} files: {SHAPE}; name the bundle itself"
                )
        return sorted(found)

    def directories(self, directory: str) -> Sequence[str]:
        """See `BundleFiles`."""
        try:
            with os.scandir(self._root / directory) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            raise EvidenceError(
                f"cannot list {self._root / directory}: {error.strerror}; check its permissions"
            ) from error

    def read(self, name: str) -> bytes | None:
        """See `BundleFiles`."""
        path = self._root / name
        real = os.path.realpath(path)
        if os.path.commonpath([real, self._real]) != self._real:
            raise EvidenceError(f"{path} is a link to {real}, outside of the bundle: copy the file into the bundle")
        try:
            # Without O_NONBLOCK, opening a FIFO that someone put here would wait for ever.
            descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise EvidenceError(f"cannot read {path}: {error.strerror}; check its permissions") from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise EvidenceError(f"{path} is not a regular file: replace it by what the command printed")
        with os.fdopen(descriptor, "rb") as stream:
            if status.st_size > self._limits.file:
                raise EvidenceError(
                    f"{path} is larger than {self._limits.file // MEBIBYTE} MiB: take it out of the bundle"
                )
            return stream.read()


class BundleNode:
    """What a bundle holds of one node; implements `NodeEvidence`."""

    def __init__(self, bundle: Bundle, name: str) -> None:
        """Nothing is read yet."""
        self._bundle = bundle
        self._name = name

    @property
    def name(self) -> str:
        """See `NodeEvidence`."""
        return self._name

    @property
    def origin(self) -> str:
        """See `NodeEvidence`."""
        return f"{self._bundle.origin}, nodes/{self._name}"

    @property
    def taken_at(self) -> str:
        """See `NodeEvidence`."""
        manifest = self._bundle.manifest
        record = manifest.files.get(f"nodes/{self._name}/nft-ruleset.json")
        return record.taken_at if record and record.taken_at else manifest.taken_at

    @property
    def nftables(self) -> NetlinkDump | None:
        """See `NodeEvidence`."""
        return None

    @property
    def rules_changed(self) -> bool:
        """See `calico_debug.evidence.source.Recorded`."""
        generations = self._bundle.manifest.nodes.get(self._name, {})
        return generations.get(RULES_BEFORE) != generations.get(RULES_AFTER)

    @property
    def addresses_replaced(self) -> bool:
        """See `calico_debug.evidence.source.Recorded`."""
        return ADDRESSES in self._bundle.manifest.replaced

    def files(self) -> Sequence[str]:
        """See `NodeEvidence`."""
        return self._bundle.names(f"nodes/{self._name}")

    def read(self, file: str) -> bytes:
        """See `NodeEvidence`."""
        say(f"reading {self._name}: {file}")
        path = f"nodes/{self._name}/{file}"
        return self._bundle.read(path, f"{remedy(file, self._name)} and add it as {path}")


class Bundle:
    """A bundle; implements `EvidenceSource`. ``notes`` says what is odd about it as a whole."""

    def __init__(self, origin: str, files: BundleFiles) -> None:
        """Nothing is read yet."""
        self._origin = origin
        self._files = files

    @property
    def origin(self) -> str:
        """See `EvidenceSource`."""
        return self._origin

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest; an empty one when there is none."""
        data = self._files.read("manifest.json")
        return Manifest() if data is None else read_manifest(data)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the bundle as a whole: a manifest that is broken or of another version."""
        return self.manifest.notes

    def nodes(self) -> Sequence[str]:
        """See `EvidenceSource`."""
        return self._files.directories("nodes")

    def node(self, name: str) -> NodeEvidence:
        """See `EvidenceSource`."""
        nodes = self.nodes()
        if name not in nodes:
            held = f"it holds {', '.join(nodes)}" if nodes else "it holds no node"
            raise MissingEvidence(
                f"{self._origin} has nothing of node {name} ({held}): record that node and add it as nodes/{name}/"
            )
        return BundleNode(self, name)

    def cluster_files(self) -> Sequence[str]:
        """See `EvidenceSource`."""
        # Lists that could not be recorded are there to be asked for: to read one says why it is missing.
        failed = (path.removeprefix("cluster/") for path, record in self.manifest.files.items() if record.error)
        return [name for name in (*self.names("cluster"), *failed) if "/" not in name]

    def read_cluster(self, file: str) -> bytes:
        """See `EvidenceSource`."""
        say(f"reading cluster/{file} of {self._origin}")
        path = f"cluster/{file}"
        return self.read(path, f"{cluster_remedy(file)} and add it as {path}")

    def names(self, directory: str) -> Sequence[str]:
        """Paths of the files below ``directory``, relative to it, apart from those that the manifest calls failed."""
        records = self.manifest.files
        return [
            name
            for name in self._files.names(directory)
            if not ((record := records.get(f"{directory}/{name}")) and record.error)
        ]

    def read(self, path: str, what_to_do: str) -> bytes:
        """The content of a file. Raises `MissingEvidence` when it is absent or the manifest says that it failed."""
        record = self.manifest.files.get(path)
        if record and record.error and self.manifest.tool.startswith(OWN):
            # What was said on the node, remedy included, so that answers from a bundle are those of the node.
            raise MissingEvidence(record.error)
        if record and record.error:
            raise MissingEvidence(f"{path} could not be recorded in {self._origin}: {record.error}; {what_to_do}")
        content = self._files.read(path)
        if content is None:
            raise MissingEvidence(f"{path} is not in {self._origin}: {what_to_do}")
        return content


def open_bundle(path: str | os.PathLike[str], limits: Limits = LIMITS) -> EvidenceSource:
    """The bundle at ``path``: a directory, or a tar archive, plain or compressed by gzip, bzip2 or xz.

    Nothing is extracted to disk. Raises `EvidenceError` when there is nothing, when it is no bundle, or an archive
    that is damaged, unsafe (absolute names, "..", links, devices, names twice) or beyond ``limits``.
    """
    location = Path(path)
    try:
        mode = location.stat().st_mode
    except OSError as error:
        raise EvidenceError(f"cannot open bundle {location}: {error.strerror}; check the path") from error
    except ValueError as error:
        raise EvidenceError(f"cannot open bundle {str(location)!r}: {error}; check the path") from error
    files: BundleFiles
    if stat.S_ISDIR(mode):
        files = DirectoryFiles(location, limits)
    elif stat.S_ISREG(mode):
        # A directory needs none of the archive code, and start-up time counts.
        from calico_debug.evidence.bundle_tar import TarFiles

        files = TarFiles(location, limits)
    else:
        raise EvidenceError(f"bundle {location} is neither a directory nor a file: name a directory or a tar archive")
    bundle = Bundle(str(location), files)
    if not bundle.nodes() and not files.names("cluster"):
        inner = [name for name in files.directories("") if {"nodes", "cluster"} & set(files.directories(name))]
        advice = f"did you mean {location / inner[0]}?" if inner else "name the directory or archive that has these"
        raise EvidenceError(f"{location} is not a bundle: {SHAPE}; {advice}")
    return bundle
