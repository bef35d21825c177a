"""What people put into objects and variables that no explanation needs, and that may be secret: never written.

Content that has none of it stays as it is, byte by byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from calico_debug.errors import EvidenceError

DROPPED_KEYS: Mapping[str, str] = {
    "env": "environments of containers",
    "envFrom": "environments of containers",
    "command": "command lines of containers",
    "args": "command lines of containers",
    "exec": "commands of probes and hooks",
    "httpHeaders": "headers of probes",
    "managedFields": "managedFields",
}
"""Keys of Kubernetes objects that are left out, with the manifest's words (core/v1 Container, Probe, ObjectMeta)."""

DROPPED_ANNOTATIONS: Mapping[str, str] = {
    "kubectl.kubernetes.io/last-applied-configuration": "annotations with applied configuration",
}
"""Annotations that repeat the whole object, what was dropped from it included."""

SECRET_VARIABLE = re.compile(r"PASS|SECRET|TOKEN|CREDENTIAL|(?<!FILE)KEY(?!FILE|PATH)|CERT(?!FILE|PATH)|AUTH")
"""Names of variables whose values may be secret; paths of key files are not (felix/config/config_params.go)."""

VARIABLES = "values of FELIX_… variables that may be secret"

USERINFO = re.compile(rb"://[^/@\s]+@")
"""Credentials in a URL."""


def cluster_without_secrets(data: bytes, what: str) -> tuple[bytes, frozenset[str]]:
    """A list of cluster objects without what may be secret, and what that was. Raises `EvidenceError` naming ``what``
    when it is not JSON: what cannot be looked through is not written.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise EvidenceError(
            f"{what} is not JSON and cannot be searched for secrets ({error}): record it again"
        ) from None
    dropped: set[str] = set()
    kept = _kept(document, dropped)
    return (json.dumps(kept).encode() + b"\n", frozenset(dropped)) if dropped else (data, frozenset())


def variables_without_secrets(data: bytes) -> tuple[bytes, frozenset[str]]:
    """``felix-env.txt`` without the lines whose values may be secret."""
    lines = data.splitlines(keepends=True)
    kept = [line for line in lines if not _is_secret(line)]
    return b"".join(kept), frozenset({VARIABLES} if len(kept) != len(lines) else ())


def _is_secret(line: bytes) -> bool:
    name, _, value = line.partition(b"=")
    return (
        SECRET_VARIABLE.search(name.decode("utf-8", "replace").upper()) is not None
        or USERINFO.search(value) is not None
    )


def _kept(value: Any, dropped: set[str]) -> Any:
    if isinstance(value, list):
        return [_kept(entry, dropped) for entry in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for key, entry in value.items():
        if key in DROPPED_KEYS and isinstance(entry, list | dict):
            dropped.add(DROPPED_KEYS[key])
        elif key in DROPPED_ANNOTATIONS:
            dropped.add(DROPPED_ANNOTATIONS[key])
        else:
            kept[key] = _kept(entry, dropped)
    return kept
