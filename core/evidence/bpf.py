"""The interface to a kernel's BPF maps: a live node's (`calico_debug.agent.bpf`) or the dumps in a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from calico_debug.model.bpf_objects import MapInfo, RawEntries


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
