"""The manifest is read as far as it can be."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from calico_debug.evidence.manifest import FileRecord, read_manifest

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_every_field() -> None:
    manifest = read_manifest(
        json.dumps(
            {
                "apiVersion": "calico-debug/v1",
                "kind": "Bundle",
                "takenAt": "2026-11-21T10:00:00Z",
                "tool": "calico-debug 1",
                "files": {"a": {"status": "ok", "takenAt": "x"}, "b": {"status": "failed: no"}},
                "redactions": ["secrets", {"what": "env"}],
                "replaced": ["names"],
            }
        ).encode()
    )
    assert (manifest.taken_at, manifest.tool, manifest.notes) == ("2026-11-21T10:00:00Z", "calico-debug 1", ())
    assert manifest.files == {"a": FileRecord("", "x"), "b": FileRecord("failed: no", "")}
    assert manifest.redactions == ("secrets", '{"what": "env"}')
    assert manifest.replaced == ("names",)


def test_another_version_is_noted() -> None:
    manifest = read_manifest(b'{"apiVersion": "calico-debug/v9", "kind": "Bundle", "takenAt": "t"}')
    assert "calico-debug/v9" in manifest.notes[0]
    assert manifest.taken_at == "t"


@given(st.dictionaries(st.sampled_from(["apiVersion", "takenAt", "tool", "files", "redactions"]), VALUES) | VALUES)
def test_any_json_is_survived(document: object) -> None:
    read_manifest(json.dumps(document).encode())


@given(st.binary(max_size=50))
def test_any_bytes_are_survived(data: bytes) -> None:
    read_manifest(data)
