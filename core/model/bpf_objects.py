"""Programs, maps, links and attachments as the kernel lists them. Source: bpftool 7, Linux include/uapi/linux/bpf.h."""

from __future__ import annotations

from dataclasses import dataclass

PER_CPU_TYPES = frozenset({"percpu_hash", "percpu_array", "lru_percpu_hash"})
"""Map types that hold a value for each possible CPU (bpftool's names)."""


@dataclass(frozen=True, slots=True)
class MapInfo:
    """A map. ``type`` is bpftool's name ("lru_hash"); sizes in bytes; ``flags`` are BPF_F_… bits.

    ``pinned`` holds paths below the bpffs when the listing has them. ``id`` 0: not known.
    """

    id: int
    name: str
    type: str
    key_size: int
    value_size: int
    max_entries: int = 0
    flags: int = 0
    frozen: bool = False
    pinned: tuple[str, ...] = ()

    @property
    def per_cpu(self) -> bool:
        """Whether a value is held for each possible CPU."""
        return self.type in PER_CPU_TYPES

    @property
    def value_stride(self) -> int:
        """Bytes of one CPU's value: per-CPU values are rounded up to 8 (kernel/bpf/hashtab.c, htab_percpu)."""
        return (self.value_size + 7) // 8 * 8 if self.per_cpu else self.value_size


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """A loaded program. ``name`` is the kernel's of at most 15 characters, or the full one where BTF has it.

    ``tag`` is a hash of its instructions, ``loaded_at`` in seconds since 1970 (None: not known), ``map_ids`` are the
    maps that its instructions name.
    """

    id: int
    name: str
    type: str
    tag: str = ""
    map_ids: tuple[int, ...] = ()
    loaded_at: int | None = None
    instructions_size: int = 0
    pinned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """A BPF link. ``type`` is bpftool's word, "type N" where it does not know it (11 is tcx)."""

    id: int
    type: str
    program_id: int
    ifindex: int | None = None
    attach_type: str = ""
    pinned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attachment:
    """A program where the kernel runs it.

    ``mechanism`` is "clsact", "tcx", "netkit", "xdp" or "cgroup"; ``hook`` "ingress" or "egress" as tc means it (into
    the host from the interface, out of the host to it), for XDP "ingress", for cgroups the attach type ("connect4").
    ``position`` is its place among several at one hook. ``place`` is the cgroup's path, else "". ``mode`` is bpftool's
    word for how XDP runs ("generic", "driver", "offload"), "" where it is not known and for all others.
    """

    mechanism: str
    hook: str
    program_id: int
    interface: str = ""
    ifindex: int = 0
    link_id: int | None = None
    name: str = ""
    position: int = 0
    place: str = ""
    mode: str = ""


@dataclass(frozen=True, slots=True)
class RawEntries:
    """Entries of a map as bytes: ``count`` keys one after the other, and as many values.

    A value of a per-CPU map is ``cpus`` pieces of `MapInfo.value_stride` bytes; ``cpus`` is 1 for other maps.
    """

    keys: bytes
    values: bytes
    count: int
    cpus: int = 1
