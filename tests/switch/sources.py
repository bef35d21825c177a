"""Recordings with more, or other, lists of objects and files of nodes, and records of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.engine import Engine
from calico_debug.switch.check import check_switch
from calico_debug.switch.record import make_record
from tests.recordings import DATA

if TYPE_CHECKING:
    from calico_debug.doctor.examine import Report
    from calico_debug.evidence.source import EvidenceSource, NetlinkDump, NodeEvidence
    from calico_debug.switch.model import Record

Json = dict[str, Any]


class NodeWith:
    """A node with other files; None takes one away. Implements `NodeEvidence`."""

    def __init__(self, node: NodeEvidence, files: Mapping[str, bytes | None]) -> None:
        self._node, self._files = node, files
        self.name, self.origin, self.taken_at = node.name, node.origin, node.taken_at
        self.nftables: NetlinkDump | None = None

    def files(self) -> Sequence[str]:
        gone = {file for file, content in self._files.items() if content is None}
        return sorted({*self._node.files(), *self._files} - gone)

    def read(self, file: str) -> bytes:
        content = self._files.get(file)
        if content is not None:
            return content
        return self._node.read("absent" if file in self._files else file)


class SourceWith:
    """A source with other lists, and files on every node. Implements `EvidenceSource`."""

    def __init__(
        self, source: EvidenceSource, lists: Mapping[str, list[Json]], files: Mapping[str, bytes | None]
    ) -> None:
        self._source, self._lists, self._files = source, lists, files
        self.origin = source.origin

    def nodes(self) -> Sequence[str]:
        return self._source.nodes()

    def node(self, name: str) -> NodeWith:
        return NodeWith(self._source.node(name), self._files)

    def cluster_files(self) -> Sequence[str]:
        return sorted({*self._source.cluster_files(), *self._lists})

    def read_cluster(self, file: str) -> bytes:
        if file in self._lists:
            return json.dumps({"kind": "List", "items": self._lists[file]}).encode()
        return self._source.read_cluster(file)


def source(
    mode: str, lists: Mapping[str, list[Json]] | None = None, files: Mapping[str, bytes | None] | None = None
) -> SourceWith:
    """The project's recording of a mode ("nft", "iptables", "bpf"), altered."""
    return SourceWith(open_bundle(str(DATA / f"v3.32.1-{mode}.tar.xz")), lists or {}, files or {})


def items(mode: str, file: str) -> list[Json]:
    """The objects of a recorded list."""
    found: list[Json] = json.loads(source(mode).read_cluster(file))["items"]
    return found


def checked(mode: str, target: str, lists: Mapping[str, list[Json]] | None = None, **files: bytes | None) -> Report:
    """The check before a switch; names of files are written with __ for a dot and _ for a dash."""
    named = {name.replace("__", ".").replace("_", "-"): content for name, content in files.items()}
    made = source(mode, lists, named)
    return check_switch(made, made.nodes(), target)


def found(report: Report, code: str) -> list[tuple[str, str, str]]:
    """(severity, node, what was seen) of a code."""
    return [(one.severity, one.node, one.seen) for one in report.findings if one.code == code]


def unseen(report: Report, check: str) -> list[str]:
    """Why a check could not look."""
    return [one.why for one in report.unseen if one.check == check]


@cache
def engine(mode: str) -> Engine:
    """Explains flows of a recording."""
    return Engine(source(mode))


@cache
def record(mode: str) -> Record:
    """The record of a recording."""
    return make_record(engine(mode))
