"""Recordings of real clusters: those kept in the project, and more where CALICO_DEBUG_RECORDINGS or a neighbour is."""

from __future__ import annotations

import json
import os
import tarfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calico_debug.evidence.bundle import open_bundle

if TYPE_CHECKING:
    from calico_debug.evidence.source import EvidenceSource

DATA = Path(__file__).parent / "data"
OUTSIDE = Path(os.environ.get("CALICO_DEBUG_RECORDINGS") or Path(__file__).parents[2] / "shared" / "captures")
"""A directory of recordings that the project does not need, but can be tested with."""


@dataclass(frozen=True)
class Recording:
    """One recording: a bundle, and beside it what really happened (probes.json, stale.json)."""

    path: Path

    @property
    def name(self) -> str:
        """As in ``v3.32.1-nft``, with where it is from."""
        kept = self.path.parent == DATA
        return f"{self.path.name.removesuffix('.tar.xz')}{'' if kept else ' outside'}"

    @cached_property
    def source(self) -> EvidenceSource:
        """The bundle."""
        return open_bundle(str(self.path))

    def json(self, file: str) -> Any:
        """A file of the bundle, None when the recording has none of that name."""
        content = self.read(file)
        return None if content is None else json.loads(content)

    def read(self, file: str) -> bytes | None:
        """The bytes of a file, by its path in the recording."""
        if self.path.is_dir():
            found = self.path / file
            return found.read_bytes() if found.is_file() else None
        return self._members.get(file)

    @cached_property
    def _members(self) -> dict[str, bytes]:
        found = {}
        with tarfile.open(self.path) as archive:
            for member in archive:
                stream = archive.extractfile(member)
                if stream is not None:
                    found[member.name.partition("/")[2]] = stream.read()
        return found


def recordings(ending: str) -> list[Recording]:
    """Those whose name ends so ("-nft"), the project's own first."""
    kept = sorted(DATA.glob(f"*{ending}.tar.xz"))
    more = sorted(path for path in OUTSIDE.glob(f"*{ending}") if (path / "nodes").is_dir())
    return [Recording(path) for path in (*kept, *more)]
