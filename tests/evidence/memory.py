"""Evidence made up in a test, and the recordings where they are at hand."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from calico_debug.errors import MissingEvidence
from calico_debug.evidence.source import NetlinkDump

RECORDINGS = Path(os.environ.get("CALICO_DEBUG_RECORDINGS") or Path(__file__).parents[3] / "shared" / "captures")


def recorded_bundles() -> Sequence[Path]:
    """Every recording; skips the test when there are none."""
    found = sorted(path for path in RECORDINGS.glob("*") if (path / "nodes").is_dir())
    if not found:
        pytest.skip(f"no recordings in {RECORDINGS}: set CALICO_DEBUG_RECORDINGS to their directory")
    return found


class MemoryNode:
    """A node whose files are given. Implements `NodeEvidence`; counts what is read."""

    def __init__(self, files: Mapping[str, bytes | str], name: str = "n1") -> None:
        self._files = files
        self.name = name
        self.origin = f"memory, nodes/{name}"
        self.taken_at = "2026-11-21T10:00:00Z"
        self.nftables: NetlinkDump | None = None
        self.reads: list[str] = []

    def files(self) -> Sequence[str]:
        return tuple(self._files)

    def read(self, file: str) -> bytes:
        self.reads.append(file)
        if file not in self._files:
            raise MissingEvidence(f"{file} of {self.name} is not there: record it")
        content = self._files[file]
        return content.encode() if isinstance(content, str) else content


class MemorySource:
    """A cluster whose lists are given. Implements `EvidenceSource`; counts what is read."""

    def __init__(self, cluster: Mapping[str, bytes | str], nodes: Mapping[str, MemoryNode] | None = None) -> None:
        self._cluster = cluster
        self._nodes = nodes or {}
        self.origin = "memory"
        self.reads: list[str] = []

    def nodes(self) -> Sequence[str]:
        return tuple(self._nodes)

    def node(self, name: str) -> MemoryNode:
        if name not in self._nodes:
            raise MissingEvidence(f"node {name} is not in memory: run there")
        return self._nodes[name]

    def cluster_files(self) -> Sequence[str]:
        return tuple(self._cluster)

    def read_cluster(self, file: str) -> bytes:
        self.reads.append(file)
        if file not in self._cluster:
            raise MissingEvidence(f"cluster/{file} is not in memory: write it with kubectl")
        content = self._cluster[file]
        return content.encode() if isinstance(content, str) else content
