"""JSON bytes to Python objects, with one clear error for everything that can be wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from calico_debug.errors import EvidenceError

Pairs = Callable[[list[tuple[str, Any]]], Any]


def first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of whose repeated keys the first counts (ip-route(8) repeats "dst" and "tos" behind "encap")."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        result.setdefault(key, value)
    return result


def parse_json(data: bytes, what: str, *, object_pairs_hook: Pairs | None = None) -> Any:
    """The decoded JSON document. ``what`` names the file and its origin for the message.

    Raises `EvidenceError` for an empty, truncated, foreign, wrongly encoded or absurdly nested document.
    """
    if not data.strip():
        raise EvidenceError(f"{what} is empty: the command that wrote it failed; record it again")
    try:
        return json.loads(data, object_pairs_hook=object_pairs_hook)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at line {error.lineno}, column {error.colno}"
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8"
    except RecursionError:
        reason = "its values are nested too deeply"
    except ValueError as error:
        reason = str(error)
    raise EvidenceError(f"{what} is not complete JSON ({reason}): it is truncated or another file; record it again")


def parse_objects(data: bytes, what: str, *, object_pairs_hook: Pairs | None = None) -> Sequence[Mapping[str, Any]]:
    """The objects of a JSON list, as every ``ip -j`` command prints one. Empty objects, which ip prints for entries
    that it filtered out, are left out.

    Raises `EvidenceError` as `parse_json`, and when the document is no list of objects.
    """
    document = parse_json(data, what, object_pairs_hook=object_pairs_hook)
    if not isinstance(document, list) or not all(isinstance(entry, dict) for entry in document):
        raise EvidenceError(f"{what} is not a list of objects: it was not written by ip -j; record it again")
    return [entry for entry in document if entry]
