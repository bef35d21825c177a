"""An agent's captures as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from calico_debug.capture.section import losses_words
from calico_debug.cli.render.terminal import safe, table
from calico_debug.model.packet_event import Losses

Document = Mapping[str, Any]

HEADING = ("ID", "STATE", "STARTED", "PACKETS", "FILES", "BYTES", "LOST", "SUBJECT")


def listing(documents: Sequence[Document]) -> str:
    """One line each."""
    rows = [
        (
            str(one.get("id", "")),
            str(one.get("state", "")),
            str(one.get("startedAt", "")),
            str(one.get("packets", "")),
            str(len(_files(one))),
            str(_bytes(one)),
            str(_losses(one).lost) if "losses" in one else "",
            str(one.get("subject", "")),
        )
        for one in documents
    ]
    return "".join(f"{line}\n" for line in table([HEADING, *rows])) if rows else "no captures\n"


def one(document: Document) -> str:
    """A capture: what and how far, what it has, what was lost."""
    lines = [f"{document.get('id', '')}  {document.get('state', '')}  {document.get('subject', '')}"]
    if ended := document.get("endedBy"):
        lines[0] += f"  (ended by {ended})"
    if problem := document.get("problem"):
        lines.append(f"problem   {problem}")
    if "packets" in document:
        told = f"{document.get('events', 0)} events of {document['packets']} packets"
        if "decided" in document:
            told += f"; {document['decided']} events of flows that the policy decides"
        lines.append(f"captured  {told}")
    files = _files(document)
    removed = f"; {document['filesRemoved']} older ones made room" if document.get("filesRemoved") else ""
    lines.append(f"files     {len(files)} with {_bytes(document)} bytes{removed}")
    if "losses" in document:
        lines.append(f"lost      {losses_words(_losses(document))}")
    return "".join(f"{safe(line)}\n" for line in lines)


def _files(document: Document) -> list[Document]:
    files = document.get("files")
    return [file for file in files if isinstance(file, dict)] if isinstance(files, list) else []


def _bytes(document: Document) -> int:
    return sum(size for file in _files(document) if isinstance(size := file.get("bytes"), int))


def _losses(document: Document) -> Losses:
    given = document.get("losses")
    found = given if isinstance(given, dict) else {}
    counts = (found.get(name, 0) for name in ("noRoom", "rateLimited", "notIp", "passedOver"))
    room, limited, unreadable, missed = (count if isinstance(count, int) else 0 for count in counts)
    return Losses(0, room, limited, unreadable, missed)
