"""A full conntrack map of the eBPF dataplane in this kernel, and one filtered walk over it."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

from calico_debug.agent.bpf import LiveMaps
from calico_debug.decode.bpf_layouts import LAYOUTS
from calico_debug.decode.bpf_maps import decode_entry
from calico_debug.model.bpf_objects import MapInfo
from tests.decode.bpf_samples import map_info
from tests.kernel.bpf_kernel import fill, kernel_map

WANTED = IPv4Address("10.9.8.7")
LAYOUT = next(layout for layout in LAYOUTS if layout.name == "cali_v4_ct4")
BATCH = 8192


@contextmanager
def full_map(entries: int) -> Iterator[MapInfo]:
    """A map with ``entries`` connections of random tuples, a hundred of them of `WANTED`."""
    rng = random.Random(1)
    with kernel_map(map_info(LAYOUT, entries=entries)) as (info, descriptor):
        value = bytes(LAYOUT.value.size)
        # A full map drops what is oldest: the wanted ones, which have the lowest numbers, come last.
        for start in reversed(range(0, entries, BATCH)):
            keys = (_key(rng, number) for number in range(start, min(start + BATCH, entries)))
            fill(descriptor, dict.fromkeys(keys, value))
        yield info


def _key(rng: random.Random, number: int) -> bytes:
    client = WANTED.packed if number < 100 else rng.randbytes(4)
    fields = {"protocol": 6, "address_a": IPv4Address(client), "address_b": IPv4Address(rng.randbytes(4))}
    return LAYOUT.key.pack(
        {**LAYOUT.key.unpack(bytes(LAYOUT.key.size)), **fields, "port_a": number % 65536, "port_b": 80}
    )


def count_wanted(map_id: int, entries: int) -> int:
    """Connections of `WANTED` in a map of the kernel, decoded; the rest is only looked at."""
    live = LiveMaps()
    shape = map_info(LAYOUT, entries=entries)
    info = MapInfo(map_id, shape.name, shape.type, shape.key_size, shape.value_size, entries, shape.flags)
    names = LAYOUT.key.raw_names
    a, b = names.index("address_a"), names.index("address_b")
    found = 0
    for batch in live.batches(info):
        for place, raw in enumerate(LAYOUT.key.unpack_all(batch.keys)):
            if WANTED.packed in (raw[a], raw[b]):
                key = batch.keys[place * info.key_size : (place + 1) * info.key_size]
                value = batch.values[place * info.value_stride : (place + 1) * info.value_stride]
                found += len(list(decode_entry(LAYOUT, info, key, value)))
    live.close()
    return found


if __name__ == "__main__":
    if count_wanted(int(sys.argv[1]), int(sys.argv[2])) < 100:
        raise SystemExit("the filtered walk missed entries")
