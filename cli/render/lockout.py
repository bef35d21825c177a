"""What a change of policy would cut, as text, JSON and YAML."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from calico_debug.cli.render import json, yaml
from calico_debug.cli.render.terminal import safe, table
from calico_debug.lockout.judge import RANK, STAYS
from calico_debug.lockout.report import Preview, Row, document
from calico_debug.model.flow import protocol_name

HEADINGS = ("NODE", "FLOW", "DIRECTION", "PORT", "PEER", "STANDING")


def text(found: Preview) -> str:
    """A table, the worst first, then who cuts what, then what was taken for granted."""
    return "".join(f"{line}\n" for line in _lines(found))


def _lines(found: Preview) -> Iterator[str]:
    rows = sorted(found.rows, key=lambda row: -RANK.index(row.standing))
    if rows:
        yield from table([HEADINGS, *map(_cells, rows)])
        yield ""
    for row in rows:
        if row.standing != STAYS:
            yield safe(f"{row.node}, {row.name} {row.direction}: {row.standing}: {row.why}")
    if found.unpoliced:
        number = "1 node has" if len(found.unpoliced) == 1 else f"{len(found.unpoliced)} nodes have"
        yield safe(f"{number} no host endpoint, so nothing of theirs is policed: {', '.join(found.unpoliced)}")
    for note in found.notes:
        yield safe(f"note: {note}")
    counts = [f"{sum(row.standing == standing for row in rows)} {standing}" for standing in reversed(RANK)]
    yield f"{len(rows)} flows: {', '.join(counts)}"


def _cells(row: Row) -> tuple[str, ...]:
    port = f"{protocol_name(row.protocol)}{f' {row.port}' if row.port else ''}"
    more = f" and {row.peers - 1} more" if row.peers > 1 else ""
    return (row.node, row.name, row.direction, port, f"{row.peer}{more}", row.standing)


RENDERERS: Mapping[str, Callable[[Preview], str]] = {
    "text": text,
    "json": lambda found: json.dump(document(found)),
    "yaml": lambda found: yaml.dump(document(found)),
}
"""By ``-o``."""
