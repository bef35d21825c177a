"""A manifest that is written is one that is read."""

from __future__ import annotations

from datetime import UTC, datetime

from calico_debug.evidence.manifest import FileRecord, read_manifest
from calico_debug.record.manifest import OK, Account, Record, timestamp


def test_read_back() -> None:
    account = Account(timestamp(datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)), "calico-debug 1")
    account.files["a"] = Record(OK, "t", 3, "ab")
    account.files["b"] = Record("no such program", "t")
    account.nodes["n1"] = {"rulesBefore": 1, "rulesAfter": 2}
    account.redactions["names"] = None
    account.replaced["addresses"] = None
    manifest = read_manifest(account.manifest())
    assert (manifest.taken_at, manifest.tool, manifest.notes) == ("2026-01-02T03:04:05Z", "calico-debug 1", ())
    assert manifest.files == {"a": FileRecord("", "t"), "b": FileRecord("no such program", "t")}
    assert (manifest.nodes, manifest.redactions) == (account.nodes, ("names",))
    assert manifest.replaced == ("addresses",)
