"""Dumps that answer like the kernel (with the kernel itself: tests/kernel/test_bpf_maps.py)."""

from __future__ import annotations

import json

import pytest

from calico_debug.errors import EvidenceError, MissingEvidence
from calico_debug.model.bpf_objects import MapInfo
from calico_debug.state.bpf_recorded import RecordedMaps
from tests.decode.bpf_samples import as_dump
from tests.evidence.memory import MemoryNode

TRIE = MapInfo(4, "routes", "lpm_trie", 8, 1)


def prefix(text: str) -> bytes:
    address, _, length = text.partition("/")
    return int(length).to_bytes(4, "little") + bytes(int(part) for part in address.split("."))


def maps(pairs: dict[bytes, bytes], info: MapInfo = TRIE, file: str = "bpf/map-routes.json") -> RecordedMaps:
    return RecordedMaps(MemoryNode({file: json.dumps(as_dump(pairs, info))}))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("10.1.2.3/32", b"c"),
        ("10.1.9.9/32", b"b"),
        ("10.9.9.9/32", b"a"),
        ("11.0.0.0/32", None),
        ("10.1.2.3/24", b"c"),
        ("10.1.2.3/23", b"b"),
        ("10.1.2.3/7", None),
    ],
)
def test_the_longest_match(wanted: str, found: bytes | None) -> None:
    table = {prefix("10.0.0.0/8"): b"a", prefix("10.1.0.0/16"): b"b", prefix("10.1.2.0/24"): b"c"}
    assert maps(table).lookup(TRIE, prefix(wanted)) == found


def test_a_prefix_of_no_bits_matches_everything() -> None:
    assert maps({prefix("0.0.0.0/0"): b"z"}).lookup(TRIE, prefix("192.0.2.1/32")) == b"z"


@pytest.mark.parametrize("file", ["bpf/map-4.json", "bpf/rodata-4.json", "bpf/map-routes.json"])
def test_files_by_id_come_first(file: str) -> None:
    info = MapInfo(4, "routes", "hash", 1, 1)
    assert maps({b"k": b"v"}, info, file).lookup(info, b"k") == b"v"


def test_what_is_not_recorded_names_the_command() -> None:
    with pytest.raises(MissingEvidence, match=r"write bpf/map-routes\.json with `bpftool -j map dump id 4`"):
        RecordedMaps(MemoryNode({})).lookup(TRIE, bytes(8))


def test_keys_and_prefixes_that_do_not_fit() -> None:
    with pytest.raises(EvidenceError, match="a key of 2 bytes does not fit map routes"):
        maps({}).lookup(TRIE, b"xx")
    with pytest.raises(EvidenceError, match="a prefix of 40 bits in a key of 32"):
        maps({prefix("10.0.0.0/40"): b"a"}).lookup(TRIE, bytes(8))


def test_a_dump_is_read_once() -> None:
    node = MemoryNode({"bpf/map-routes.json": json.dumps(as_dump({prefix("0.0.0.0/0"): b"z"}, TRIE))})
    table = RecordedMaps(node)
    for _ in range(3):
        table.lookup(TRIE, bytes(8))
    assert node.reads == ["bpf/map-routes.json"]
