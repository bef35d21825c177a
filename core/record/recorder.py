"""Writes what a source of evidence holds as a bundle: in order, within limits, and with an account of each file.

Nothing here opens a file: a `Sink` takes the content, `calico_debug.cli.archive` has the real ones.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Protocol

from calico_debug.activity import say
from calico_debug.errors import EvidenceError
from calico_debug.evidence.bundle import MEBIBYTE, Bundle
from calico_debug.evidence.manifest import RULES_AFTER, RULES_BEFORE
from calico_debug.record.bpf_files import Opener, bpf_files
from calico_debug.record.manifest import OK, Account, Record, timestamp
from calico_debug.record.plan import is_never_read, reading_order
from calico_debug.record.secrets import cluster_without_secrets, variables_without_secrets
from calico_debug.state.generation import generation

if TYPE_CHECKING:
    from calico_debug.evidence.source import EvidenceSource, NodeEvidence
    from calico_debug.model.bpf_objects import MapInfo, RawEntries

Content = Iterable[bytes]

MAP_DUMP = re.compile(r"bpf/(?:map-(?!show\.json)|rodata-)")
"""Files with entries of maps."""

DEBUG_FOLDER = re.compile(r"/var-run-calico-bpf/policy$")
"""Of the files there, which Felix writes all or none, only the first that cannot be read is told."""


@dataclass(frozen=True, slots=True)
class RecordLimits:
    """Bounds of a bundle: bytes of one file and of all, uncompressed, and seconds of reading."""

    file: int = 512 * MEBIBYTE
    total: int = 2048 * MEBIBYTE
    seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class Written:
    """A file that a sink took: its bytes and their SHA-256 in hexadecimal."""

    size: int
    sha256: str


class LimitError(EvidenceError):
    """A file is larger than there is room for; the sink has kept nothing of it."""


class Sink(Protocol):
    """Where a bundle is written to."""

    def add(self, path: str, content: Iterable[bytes], room: int) -> Written:
        """Take a file of at most ``room`` bytes. Raises `LimitError`, or what iterating over ``content`` raises, and
        has then kept nothing of it.
        """


class Rewriter(Protocol):
    """Changes content on its way into a bundle: `calico_debug.redact`."""

    def node_name(self, name: str) -> str:
        """What a node is called in the bundle."""

    def prepare(self, nodes: Sequence[NodeEvidence]) -> None:
        """Look at all nodes that will be written, once, before anything else is asked."""

    def takes(self, file: str) -> bool:
        """Whether a node's file can be rewritten at all; others are left out."""

    def file_name(self, node: str, file: str) -> str:
        """What a file of a node is called in the bundle."""

    @property
    def kinds(self) -> Sequence[str]:
        """What is replaced: "addresses", "names"."""

    @property
    def said(self) -> Sequence[str]:
        """What is changed, one sentence each, for the manifest."""

    def node_file(self, node: str, file: str, content: bytes) -> bytes:
        """The content to write. Raises `EvidenceError` for a file that must be left out."""

    def entries(self, node: str, info: MapInfo, batches: Iterator[RawEntries]) -> Iterator[RawEntries]:
        """The entries to write of a map that is read live. Raises `EvidenceError` as `node_file`."""

    def cluster_file(self, file: str, content: bytes) -> bytes:
        """The same for a list of cluster objects."""

    def message(self, text: str) -> str:
        """An error's text as the manifest may hold it."""


@dataclass(frozen=True, slots=True)
class World:
    """What recording needs besides evidence. ``now`` is the time of day, ``elapsed`` seconds since some moment,
    ``tell`` takes a line for the user.
    """

    now: Callable[[], datetime]
    elapsed: Callable[[], float]
    tell: Callable[[str], None]


class Recorder:
    """Records one source into one sink, once."""

    def __init__(
        self,
        source: EvidenceSource,
        sink: Sink,
        world: World,
        tool: str,
        limits: RecordLimits | None = None,
        rewriter: Rewriter | None = None,
    ) -> None:
        """Nothing is read yet. ``tool`` is what the manifest names as its maker."""
        self._source = source
        self._sink = sink
        self._world = world
        self._limits = limits or RecordLimits()
        self._rewriter = rewriter
        self._started = world.elapsed()
        self._bytes = 0
        self._told: set[str] = set()
        self._known = source.manifest if isinstance(source, Bundle) else None
        taken_at = self._known.taken_at if self._known is not None else timestamp(world.now())
        self.account = Account(taken_at, tool)
        if self._known is not None:
            self.account.redactions.update(dict.fromkeys(self._known.redactions))
            self.account.replaced.update(dict.fromkeys(self._known.replaced))

    def record(self, nodes: Sequence[str], *, cluster: bool = True) -> Account:
        """Read everything, write it and the manifest. What cannot be read is accounted for and told, never raised.

        Raises `EvidenceError` when there is nothing of any node and no cluster object that can be read.
        """
        if self._rewriter is not None:
            self._rewriter.prepare([self._source.node(name) for name in nodes])
            self.account.redactions.update(dict.fromkeys(self._rewriter.said))
            self.account.replaced.update(dict.fromkeys(self._rewriter.kinds))
        for name in nodes:
            self._node(name)
        if cluster:
            self._cluster()
        if not any(record.is_ok for record in self.account.files.values()):
            reasons = [record.status for record in self.account.files.values()]
            why = f"; the first thing that failed: {reasons[0]}" if reasons else ""
            raise EvidenceError(f"nothing of {self._source.origin} could be read, and no bundle was written{why}")
        if self._rewriter is not None:
            # Only now everything that is replaced anywhere is known.
            for path, record in self.account.files.items():
                said = record.status.replace(self._source.origin, "the source")
                self.account.files[path] = replace(record, status=self._rewriter.message(said))
        self._sink.add("manifest.json", [self.account.manifest()], sys.maxsize)
        return self.account

    # ------------------------------------------------------------------------------------------------------ internals

    def _node(self, name: str) -> None:
        evidence = self._source.node(name)
        before = generation(evidence)
        dumps, trouble = bpf_files(evidence, partial(self._rewriter.entries, name) if self._rewriter else None)
        if trouble:
            self._world.tell(f"{name}: maps and programs of the eBPF dataplane are left out: {trouble}")
        folder = f"nodes/{self._rewriter.node_name(name) if self._rewriter else name}"
        self._carry_failures(name, folder)
        for file in reading_order([*evidence.files(), *dumps]):
            if self._rewriter is not None and not self._rewriter.takes(file):
                self._world.tell(f"nodes/{name}/{file} is left out: this version cannot redact it")
                continue
            content = self._node_content(evidence, dumps, file)
            self._file(f"{folder}/{self._file_name(name, file)}", content, f"nodes/{name}/{file}")
        after = generation(evidence)
        written = folder.removeprefix("nodes/")
        if self._known is not None and name in self._known.nodes:
            self.account.nodes[written] = self._known.nodes[name]
        elif before is not None and after is not None:
            self.account.nodes[written] = {RULES_BEFORE: before, RULES_AFTER: after}
            if before != after:
                self._world.tell(
                    f"{name}: its rules changed while they were read; answers from this bundle say so. Record it again "
                    "when the node is quiet"
                )

    def _node_content(self, evidence: NodeEvidence, dumps: Mapping[str, Opener], file: str) -> Callable[[], Content]:
        def content() -> Content:
            if file in dumps and (self._rewriter is None or MAP_DUMP.match(file)):
                return dumps[file]()
            data = b"".join(dumps[file]()) if file in dumps else evidence.read(file)
            if file == "felix-env.txt":
                data, dropped = variables_without_secrets(data)
                self.account.redactions.update(dict.fromkeys(sorted(dropped)))
            return [self._rewriter.node_file(evidence.name, file, data) if self._rewriter else data]

        return content

    def _cluster(self) -> None:
        for file in sorted(self._source.cluster_files()):
            path = f"cluster/{file}"
            if is_never_read(file):
                self._world.tell(f"{path} is left out: a bundle never holds lists of that kind")
                continue
            self._file(path, partial(self._cluster_content, file), f"cluster/{file}")

    def _cluster_content(self, file: str) -> Content:
        data = self._source.read_cluster(file)
        data, dropped = cluster_without_secrets(data, f"cluster/{file} of {self._source.origin}")
        self.account.redactions.update(dict.fromkeys(sorted(dropped)))
        return [self._rewriter.cluster_file(file, data) if self._rewriter else data]

    def _file(self, path: str, content: Callable[[], Content], original: str) -> None:
        say(f"reading {original}")
        taken_at = self._taken_at(original)
        try:
            self._check_time()
            room = min(self._limits.file, self._limits.total - self._bytes)
            written = self._sink.add(path, self._timed(content()), room)
        except LimitError:
            what = "the limit of one file" if self._limits.file <= room else "what the limit of the bundle leaves"
            self._left_out(path, f"left out: it is larger than {what}, {room} bytes", taken_at)
        except EvidenceError as error:
            self._left_out(path, str(error), taken_at)
        else:
            self._bytes += written.size
            self.account.files[path] = Record(OK, taken_at, written.size, written.sha256)

    def _timed(self, content: Content) -> Iterator[bytes]:
        for number, piece in enumerate(content):
            if number:
                self._check_time()
            yield piece

    def _check_time(self) -> None:
        if self._world.elapsed() - self._started > self._limits.seconds:
            raise EvidenceError(f"left out: the time limit of {self._limits.seconds:g} s was reached")

    def _left_out(self, path: str, why: str, taken_at: str) -> None:
        self.account.files[path] = Record(why, taken_at)
        folder = path.rpartition("/")[0]
        if not DEBUG_FOLDER.search(folder):
            self._world.tell(f"{path}: {why}")
        elif folder not in self._told:
            self._told.add(folder)
            self._world.tell(f"{path}: {why} (for others there, see manifest.json)")

    def _taken_at(self, path: str) -> str:
        """When the file at ``path`` of the source was taken: of a bundle what its manifest says, if it says."""
        if self._known is None:
            return timestamp(self._world.now())
        record = self._known.files.get(path)
        return record.taken_at if record and record.taken_at else self._known.taken_at

    def _file_name(self, node: str, file: str) -> str:
        return self._rewriter.file_name(node, file) if self._rewriter else file

    def _carry_failures(self, node: str, folder: str) -> None:
        """What an older manifest says that it could not record stays said."""
        prefix = f"nodes/{node}/"
        for path, record in self._known.files.items() if self._known is not None else ():
            if record.error and path.startswith(prefix):
                file = path.removeprefix(prefix)
                if self._rewriter is None or self._rewriter.takes(file):
                    written = f"{folder}/{self._file_name(node, file)}"
                    self.account.files[written] = Record(record.error, self._taken_at(path))
