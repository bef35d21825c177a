"""The bundle's ``manifest.json``: what was recorded, when, and what failed. A bundle without one works too.

{"apiVersion": "calico-debug/v1", "kind": "Bundle", "takenAt": RFC 3339, "tool": "calico-debug 0.1",
 "nodes": {"n1": {"rulesBefore": 12, "rulesAfter": 12}},
 "files": {"nodes/n1/ip-addr.json": {"status": "ok" or the error's text, "takenAt": RFC 3339}},
 "redactions": [text], "replaced": ["addresses", "names"]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

API_VERSION = "calico-debug/v1"
KIND = "Bundle"

ADDRESSES, NAMES = "addresses", "names"
"""What may stand in ``replaced``."""

RULES_BEFORE, RULES_AFTER = "rulesBefore", "rulesAfter"
"""The generation of a node's nf_tables before the first file was read and after the last: each change of rules in the
node's network namespace raises it (NFTA_GEN_ID, include/uapi/linux/netfilter/nf_tables.h).
"""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What the manifest says of one file; ``error`` is "" when it was recorded without one."""

    error: str = ""
    taken_at: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as far as it could be understood; ``notes`` says what could not."""

    taken_at: str = ""
    tool: str = ""
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    nodes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    redactions: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_manifest(data: bytes) -> Manifest:
    """The manifest from its bytes. Never raises: what is wrong with it is a note, the other files stay usable."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        return Manifest(notes=(f"manifest.json is not JSON ({error}): it is ignored",))
    if not isinstance(document, dict):
        return Manifest(notes=("manifest.json is not an object: it is ignored",))
    notes = []
    version, kind = document.get("apiVersion"), document.get("kind")
    if (version, kind) != (API_VERSION, KIND):
        notes.append(
            f"manifest.json is {kind} of {version}, this version knows {KIND} of {API_VERSION}: "
            "what it says may be misread"
        )
    return Manifest(
        taken_at=_text(document.get("takenAt")),
        tool=_text(document.get("tool")),
        files=_files(document.get("files")),
        nodes=_nodes(document.get("nodes")),
        redactions=_texts(document.get("redactions")),
        replaced=_texts(document.get("replaced")),
        notes=tuple(notes),
    )


def _files(value: object) -> Mapping[str, FileRecord]:
    records = {}
    for name, entry in value.items() if isinstance(value, dict) else ():
        if isinstance(entry, dict):
            status = _text(entry.get("status"))
            records[name] = FileRecord("" if status == "ok" else status, _text(entry.get("takenAt")))
    return records


def _nodes(value: object) -> Mapping[str, Mapping[str, int]]:
    return {
        name: {key: number for key, number in entry.items() if isinstance(number, int)}
        for name, entry in (value.items() if isinstance(value, dict) else ())
        if isinstance(entry, dict)
    }


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(entry if isinstance(entry, str) else json.dumps(entry) for entry in value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
