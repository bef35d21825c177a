"""A bundle whose cluster objects are others than those that its nodes were programmed from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calico_debug.evidence.bundle import open_bundle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.evidence.source import EvidenceSource, NodeEvidence

DATA = Path(__file__).parents[1] / "data"
BUNDLES = ("v3.32.1-nft", "v3.32.1-iptables", "v3.32.1-bpf")

Change = Callable[[list[dict[str, Any]]], None]
"""Changes the items of a list in place."""


class Altered:
    """A source with other objects; implements `EvidenceSource`."""

    def __init__(self, source: EvidenceSource, changes: Mapping[str, Change]) -> None:
        """``changes`` by file."""
        self._source = source
        self._changes = changes

    @property
    def origin(self) -> str:
        return self._source.origin

    def nodes(self) -> Sequence[str]:
        return self._source.nodes()

    def node(self, name: str) -> NodeEvidence:
        return self._source.node(name)

    def cluster_files(self) -> Sequence[str]:
        return self._source.cluster_files()

    def read_cluster(self, file: str) -> bytes:
        content = self._source.read_cluster(file)
        if file not in self._changes:
            return content
        document = json.loads(content)
        self._changes[file](document["items"])
        return json.dumps(document).encode()


def altered(bundle: str, changes: Mapping[str, Change]) -> Altered:
    """One of the project's bundles with changed objects."""
    return Altered(open_bundle(str(DATA / f"{bundle}.tar.xz")), changes)


def named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The item with that name."""
    return next(item for item in items if item["metadata"]["name"] == name)


def without(name: str) -> Change:
    """Deletes the item with that name."""

    def change(items: list[dict[str, Any]]) -> None:
        items[:] = [item for item in items if item["metadata"]["name"] != name]

    return change
