"""Dumps of maps, small ones as JSON and large ones by searching."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode import bpftool_dumps as module
from calico_debug.decode.bpf_layout_types import MapLayout
from calico_debug.decode.bpf_layouts import BY_NAME
from calico_debug.decode.bpftool_dumps import decode_dump
from calico_debug.errors import EvidenceError
from calico_debug.model.bpf_objects import MapInfo
from tests.decode.bpf_samples import FILLABLE, IDS, as_dump, draw_pairs, map_info

INFO = MapInfo(1, "cali_v4_nat_be", "hash", 2, 1)
ENTRY: dict[str, Any] = {"key": ["0x01", "0x02"], "value": ["0xff"]}
WITH_TYPES = {**ENTRY, "formatted": {"key": [1, 2], "value": {"key": ["0x01"], "value": ["0x02"]}}}


def pairs(data: bytes, info: MapInfo) -> dict[bytes, bytes]:
    found = {}
    for batch in decode_dump(data, info, "dump"):
        stride = info.value_stride * batch.cpus
        for place in range(batch.count):
            key = batch.keys[place * info.key_size : (place + 1) * info.key_size]
            found[key] = batch.values[place * stride : (place + 1) * stride]
    return found


def compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


@pytest.mark.parametrize("layout", FILLABLE, ids=IDS)
def test_what_was_dumped_is_read(layout: MapLayout) -> None:
    info = map_info(layout)
    wanted = draw_pairs(layout, random.Random(2), 20, 3)
    assert pairs(compact(as_dump(wanted, info, 3)), info) == wanted


@pytest.mark.parametrize("quick_from", [0, 1 << 30])
@pytest.mark.parametrize("entry", [ENTRY, WITH_TYPES])
def test_with_and_without_type_information(
    entry: dict[str, Any], quick_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUICK_FROM", quick_from)
    other = {**entry, "key": ["0x03", "0x04"]}
    assert pairs(compact([entry, other]) + b"\n", INFO) == {b"\x01\x02": b"\xff", b"\x03\x04": b"\xff"}


def test_large_dumps_come_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUICK_FROM", 0)
    monkeypatch.setattr(module, "BATCH", 7)
    layout = BY_NAME["cali_v4_ct4"][0]
    wanted = draw_pairs(layout, random.Random(2), 50)
    data = compact(as_dump(wanted, map_info(layout)))
    assert [batch.count for batch in decode_dump(data, map_info(layout), "dump")] == [7] * 7 + [1]
    assert pairs(data, map_info(layout)) == wanted


def test_values_of_cpus_are_ordered_and_padded() -> None:
    info = MapInfo(1, "x", "percpu_hash", 1, 4)
    values = [
        {"cpu": 1, "value": ["0x02", "0x00", "0x00", "0x00"]},
        {"cpu": 0, "value": ["0x01", "0x00", "0x00", "0x00"]},
    ]
    (batch,) = decode_dump(compact([{"key": ["0x09"], "values": values}]), info, "dump")
    assert (batch.count, batch.cpus, batch.values) == (1, 2, b"\1" + bytes(7) + b"\2" + bytes(7))


def test_entries_that_went_away_are_left_out() -> None:
    gone = {"key": ["0x01", "0x02"], "value": {"error": "No such file or directory"}}
    assert pairs(compact([gone, {"error": "x"}, {**ENTRY, "key": ["0x05", "0x06"]}]), INFO) == {b"\5\6": b"\xff"}


@pytest.mark.parametrize("quick_from", [0, 1 << 30])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[",
        compact([ENTRY])[:-9],
        compact([{**ENTRY, "key": ["0x01"]}]),
        compact([{**ENTRY, "value": ["0x01", "0x02"]}]),
        compact([{"key": {"a": 1}, "value": 3}]),
        compact([{"key": 1, "value": 3}]),
        compact([ENTRY, {"key": ["0x01", "zz"], "value": ["0x01"]}]),
        compact([ENTRY, {"key": ["0x01", "0x02"], "value": ["0x999"]}]),
    ],
)
def test_damaged_and_foreign_dumps(data: bytes, quick_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUICK_FROM", quick_from)
    with pytest.raises(EvidenceError, match="record"):
        pairs(data, INFO)


def test_a_dump_without_lists_of_bytes_names_the_remedy() -> None:
    with pytest.raises(EvidenceError, match=r"record it with `bpftool -j map dump`"):
        pairs(compact([{"key": {"protocol": 6}, "value": {"type": 0}}]), INFO)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_decode_or_are_refused(data: bytes, quick: bool) -> None:
    with suppress(EvidenceError):
        list(module._quick(data, INFO, "x") if quick else decode_dump(data, INFO, "x"))
