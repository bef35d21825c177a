"""The interface to a kernel's BPF maps: a live node's (`calico_debug.agent.bpf`) or the dumps in a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from calico_debug.errors import MissingEvidence
from calico_debug.evidence.source import NodeEvidence
from calico_debug.model.bpf_objects import MapInfo, RawEntries

PINS_FILE = "bpf/pins.txt"
CALICO_PIN = b"/cali_"


def pins_calico_maps(node: NodeEvidence) -> bool:
    """Whether Felix has pinned maps, as it does in eBPF mode: much less to read than programs.

    Raises `calico_debug.errors.EvidenceError` when that cannot be read; a node without a BPF file system has none.
    """
    try:
        return CALICO_PIN in node.read(PINS_FILE)
    except MissingEvidence:
        return False


class KernelMaps(Protocol):
    """Entries of maps as bytes. A question about one flow costs a few `lookup`, never a walk over a map."""

    def lookup(self, info: MapInfo, key: bytes) -> bytes | None:
        """The value of ``key``, None when there is none. For lpm_trie the longest matching prefix's; for a per-CPU map
        the values of all possible CPUs, `MapInfo.value_stride` bytes each, one after the other.

        Raises `calico_debug.errors.EvidenceError` when the map cannot be read.
        """

    def batches(self, info: MapInfo) -> Iterator[RawEntries]:
        """Every entry, in pieces of bounded size. Raises `calico_debug.errors.EvidenceError`."""

    def close(self) -> None:
        """Let go of what is held open; it is opened anew when asked for. A map that is held stays in the kernel's
        memory after Felix has replaced it.
        """


@runtime_checkable
class LiveMaps(Protocol):
    """What a live `NodeEvidence` also offers: its kernel's maps."""

    @property
    def kernel_maps(self) -> KernelMaps:
        """The maps of the kernel that the evidence is from."""
