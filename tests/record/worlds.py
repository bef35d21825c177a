"""What recording needs, made up: a clock that stands still, lines kept, and a sink in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from calico_debug.explain.listing.node import NodeListings
from calico_debug.record.recorder import LimitError, World, Written
from calico_debug.state.connection_filter import ConnectionFilter

NOW = datetime(2026, 11, 21, 10, 0, 5, tzinfo=UTC)


def quiet_world(told: list[str] | None = None, elapsed: Callable[[], float] = lambda: 0.0) -> World:
    lines = told if told is not None else []
    return World(lambda: NOW, elapsed, lines.append)


class MemorySink:
    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def add(self, path: str, content: Iterable[bytes], room: int) -> Written:
        data = b"".join(content)
        if len(data) > room:
            raise LimitError(path)
        assert path not in self.files
        self.files[path] = data
        return Written(len(data), hashlib.sha256(data).hexdigest())


def every_listing(node: NodeListings) -> dict[str, list[Any]]:
    """The documents of everything that a node lists."""
    every = ConnectionFilter()
    listings = {
        "conntrack": node.conntrack(every),
        "nat": node.nat(every),
        "routes": node.routes(),
        "ipsets": node.ipsets(),
        "ifstate": node.ifstate(),
        "counters": node.counters(zeros=True),
        "attachments": node.attachments(),
    }
    return {name: [row.document for row in listing.rows] for name, listing in listings.items()}
