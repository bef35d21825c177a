"""What tells of Calico's maps before any is read."""

from __future__ import annotations

import pytest

from calico_debug.evidence.bpf import pins_calico_maps
from tests.evidence.memory import MemoryNode


@pytest.mark.parametrize(
    ("files", "pinned"),
    [
        ({"bpf/pins.txt": "/sys/fs/bpf/tc/globals/cali_v4_ct4\n"}, True),
        ({"bpf/pins.txt": "/sys/fs/bpf/cilium/tc\n"}, False),
        ({}, False),
    ],
)
def test_maps_that_felix_has_pinned(files: dict[str, str], pinned: bool) -> None:
    assert pins_calico_maps(MemoryNode(files)) is pinned
