"""Maps of Calico's types and sizes in the kernel: what was written is what every way of reading decodes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from calico_debug.agent.bpf import LiveMaps
from calico_debug.agent.bpf_library import possible_cpus
from calico_debug.agent.commands import output_of
from calico_debug.decode.bpf_layout_types import MapLayout
from calico_debug.decode.bpf_maps import decode_entries
from calico_debug.decode.bpftool import decode_maps
from calico_debug.decode.bpftool_dumps import decode_dump
from calico_debug.errors import MissingEvidence
from calico_debug.model.bpf import UnknownEntry
from calico_debug.model.bpf_objects import MapInfo, RawEntries
from calico_debug.state.bpf_recorded import RecordedMaps
from tests.decode.bpf_samples import FILLABLE, IDS, draw_key, draw_pairs, map_info
from tests.evidence.memory import MemoryNode
from tests.kernel.bpf_kernel import fill, kernel_map, kernel_program, need_bpf, program_id

pytestmark = pytest.mark.kernel

ENTRIES = 300


@pytest.fixture(autouse=True, scope="module")
def _bpf() -> None:
    need_bpf()


@pytest.fixture
def live() -> Iterator[LiveMaps]:
    maps = LiveMaps()
    yield maps
    maps.close()


def pairs_of(batches: Iterator[RawEntries], info: MapInfo) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for batch in batches:
        stride = info.value_stride * batch.cpus
        for place in range(batch.count):
            key = batch.keys[place * info.key_size : (place + 1) * info.key_size]
            assert key not in found
            found[key] = batch.values[place * stride : (place + 1) * stride]
    return found


@pytest.mark.parametrize(
    "layout",
    [x for x in FILLABLE if x.types != ("prog_array",)],
    ids=[name for name, x in zip(IDS, FILLABLE, strict=True) if x.types != ("prog_array",)],
)
def test_every_map_reads_back(layout: MapLayout, live: LiveMaps) -> None:
    rng = random.Random(layout.name)
    cpus = possible_cpus()
    wanted = draw_pairs(layout, rng, ENTRIES, cpus)
    entries = layout.size if "array" in layout.types[-1] else 1024
    with kernel_map(map_info(layout, entries=entries)) as (info, descriptor):
        fill(descriptor, wanted)
        read = pairs_of(live.batches(info), info)
        if info.type in ("array", "percpu_array"):
            read = {key: value for key, value in read.items() if key in wanted}
        assert read == wanted
        assert {key: live.lookup(info, key) for key in list(wanted)[:20]} == dict(list(wanted.items())[:20])

        listing = decode_maps(
            output_of(["bpftool", "-j", "map", "show", "id", str(info.id)]).join([b"[", b"]"]), "show"
        )
        assert listing[info.id] == info
        dump = output_of(["bpftool", "-j", "map", "dump", "id", str(info.id)])
        dumped = pairs_of(decode_dump(dump, info, "dump"), info)
        assert {key: dumped[key] for key in wanted} == wanted

        typed = list(decode_entries(layout, info, live.batches(info)))
        assert not [entry for entry in typed if isinstance(entry, UnknownEntry)]
        assert Counter(map(repr, typed)) == Counter(
            map(repr, decode_entries(layout, info, decode_dump(dump, info, "dump")))
        )


@pytest.mark.parametrize("layout", [x for x in FILLABLE if x.types == ("lpm_trie",)], ids=lambda x: x.name)
def test_longest_matches_of_dumps_are_the_kernels(layout: MapLayout, live: LiveMaps) -> None:
    rng = random.Random(5)
    wanted = draw_pairs(layout, rng, 60)
    # Prefixes of prefixes, so that several match.
    for key, value in list(wanted.items()):
        bits = int.from_bytes(key[:4], "little")
        fewer = rng.randint(0, bits)
        total = 8 * (len(key) - 4)
        data = int.from_bytes(key[4:], "big") >> (total - fewer) << (total - fewer)
        wanted[fewer.to_bytes(4, "little") + data.to_bytes(total // 8, "big")] = value[::-1]
    with kernel_map(map_info(layout, entries=1024)) as (info, descriptor):
        fill(descriptor, wanted)
        dump = output_of(["bpftool", "-j", "map", "dump", "id", str(info.id)])
        recorded = RecordedMaps(MemoryNode({f"bpf/map-{info.name}.json": dump}))
        hits = 0
        for place in range(400):
            key = bytearray(rng.choice(list(wanted)) if place % 4 else layout.key.pack(draw_key(layout, rng, 0)))
            key[:4] = rng.randint(0, 8 * (len(key) - 4)).to_bytes(4, "little")
            key[rng.randrange(4, len(key))] ^= rng.choice((0, 0, 1, 0x80))
            answer = live.lookup(info, bytes(key))
            assert recorded.lookup(info, bytes(key)) == answer
            hits += answer is not None
        assert hits > 40


def test_program_arrays(live: LiveMaps) -> None:
    info = MapInfo(0, "cali_jump_ing2", "prog_array", 4, 4, 240_000)
    with kernel_map(info) as (made, descriptor), kernel_program("p4I_test") as program:
        number = program_id(program)
        fill(descriptor, {index.to_bytes(4, "little"): program.to_bytes(4, "little") for index in (3, 10_003)})
        expected = number.to_bytes(4, "little")
        assert live.lookup(made, (3).to_bytes(4, "little")) == expected
        assert live.lookup(made, (4).to_bytes(4, "little")) is None
        assert pairs_of(live.batches(made), made) == {
            (3).to_bytes(4, "little"): expected,
            (10_003).to_bytes(4, "little"): expected,
        }
        dump = output_of(["bpftool", "-j", "map", "dump", "id", str(made.id)], 30)
        assert set(pairs_of(decode_dump(dump, made, "dump"), made).values()) == {expected}


def test_counters_of_every_possible_cpu_are_added_in_64_bits(live: LiveMaps) -> None:
    layout = next(x for x in FILLABLE if x.name == "cali_counters6" and x.value.size == 216)
    cpus = possible_cpus()
    key = layout.key.pack({"ifindex": 3, "hook": 1})
    value = layout.value.pack({"cells": (2**33 + 5, *([1] * 25), 7)}) * cpus
    with kernel_map(map_info(layout, entries=16)) as (info, descriptor):
        fill(descriptor, {key: value})
        (entry,) = decode_entries(layout, info, live.batches(info))
    assert entry.cells == (cpus * (2**33 + 5), *([cpus] * 25), 7 * cpus)


def test_a_map_that_is_gone(live: LiveMaps) -> None:
    with kernel_map(MapInfo(0, "cali_qos", "hash", 8, 24, 4)) as (made, _):
        pass
    with pytest.raises(MissingEvidence, match=rf"cannot open map cali_qos \(id {made.id}\): it is gone"):
        live.lookup(made, bytes(8))


def test_a_large_map_is_read_in_batches_and_by_key(live: LiveMaps) -> None:
    layout = next(x for x in FILLABLE if x.name == "cali_v4_ct4")
    pairs = draw_pairs(layout, random.Random(1), 40_000)
    with kernel_map(map_info(layout, entries=64_000)) as (info, descriptor):
        fill(descriptor, pairs)
        sizes = [batch.count for batch in live.batches(info)]
        assert max(sizes) <= 8192
        # An LRU map may have evicted some.
        kept = pairs_of(live.batches(info), info)
        assert len(kept) > 30_000
        assert kept.items() <= pairs.items()
        for key in list(kept)[:100]:
            assert live.lookup(info, key) == pairs[key]
