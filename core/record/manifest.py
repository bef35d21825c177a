"""``manifest.json`` of a bundle that this program writes; `calico_debug.evidence.manifest` reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from calico_debug.evidence.manifest import API_VERSION, KIND

OK = "ok"


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one file. ``status`` is "ok" or the error's text; size (bytes) and digest are of written ones."""

    status: str
    taken_at: str
    size: int | None = None
    sha256: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether the file is in the bundle."""
        return self.status == OK


@dataclass(slots=True)
class Account:
    """All that the manifest will say, filled while the bundle is written. Paths are those in the bundle."""

    taken_at: str
    tool: str
    files: dict[str, Record] = field(default_factory=dict)
    nodes: dict[str, Mapping[str, int]] = field(default_factory=dict)
    redactions: dict[str, None] = field(default_factory=dict)
    replaced: dict[str, None] = field(default_factory=dict)

    def manifest(self) -> bytes:
        """The file's content."""
        document = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "takenAt": self.taken_at,
            "tool": self.tool,
            "nodes": self.nodes,
            "files": {path: _entry(record) for path, record in self.files.items()},
            "redactions": list(self.redactions),
            **({"replaced": list(self.replaced)} if self.replaced else {}),
        }
        return json.dumps(document, indent=1).encode() + b"\n"


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, to the second. ``moment`` has a time zone."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _entry(record: Record) -> Mapping[str, object]:
    entry: dict[str, object] = {"status": record.status, "takenAt": record.taken_at}
    if record.size is not None:
        entry |= {"size": record.size, "sha256": record.sha256}
    return entry
