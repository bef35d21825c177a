"""Dumps are those of bpftool, piece by piece."""

from __future__ import annotations

import json

import pytest

from calico_debug.decode.bpftool_dumps import decode_dump
from calico_debug.model.bpf_objects import MapInfo, RawEntries
from calico_debug.record.bpf_files import bpf_files, dump_json
from tests.evidence.memory import MemoryNode

HASH = MapInfo(1, "m", "hash", 2, 3)
PER_CPU = MapInfo(2, "c", "percpu_array", 4, 12)


@pytest.mark.parametrize(
    "batches", [[], [RawEntries(b"\x01\x02\x03\x04", b"abcdef", 2), RawEntries(b"\xff\0", b"ghi", 1)]]
)
def test_entries(batches: list[RawEntries]) -> None:
    written = b"".join(dump_json(iter(batches), HASH))
    decoded = list(decode_dump(written, HASH, "here"))
    assert b"".join(one.keys for one in decoded) == b"".join(one.keys for one in batches)
    assert b"".join(one.values for one in decoded) == b"".join(one.values for one in batches)


def test_form() -> None:
    written = b"".join(dump_json(iter([RawEntries(b"\x01\xff", b"\0\x0a\x10", 1)]), HASH))
    assert written == b'[{"key":["0x01","0xff"],"value":["0x00","0x0a","0x10"]}]\n'


def test_values_of_each_cpu() -> None:
    values = bytes(range(16)) + bytes(range(100, 116))
    (decoded,) = decode_dump(b"".join(dump_json(iter([RawEntries(bytes(4), values, 1, 2)]), PER_CPU)), PER_CPU, "here")
    assert decoded.cpus == 2
    assert decoded.values[:12] == values[:12]
    assert decoded.values[16:28] == values[16:28]
    document = json.loads(b"".join(dump_json(iter([RawEntries(bytes(4), values, 1, 2)]), PER_CPU)))
    assert [piece["cpu"] for piece in document[0]["values"]] == [0, 1]


def test_recorded_evidence_has_its_own_files() -> None:
    assert bpf_files(MemoryNode({})) == ({}, "")
