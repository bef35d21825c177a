"""The calls of libbpf that read maps, attachments and ring buffers, and what their errors mean.

Sources: libbpf 1.1, src/bpf.h and src/libbpf.h; Linux include/uapi/linux/bpf.h and kernel/bpf/syscall.c for the
capabilities.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from calico_debug.errors import EvidenceError, MissingEvidence

LIBBPF = "libbpf.so.1"
"""Debian's package libbpf1, which iproute2 needs too."""

RING_TAKER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
"""ring_buffer_sample_fn: context, data and its bytes; 0 to go on."""

POSSIBLE = Path("/sys/devices/system/cpu/possible")

MAP_INFO_SIZE = 128
"""At least sizeof(struct bpf_map_info); the kernel tells how much it filled."""

MOST_PROGRAMS = 64
"""BPF_MPROG_MAX, programs at one hook of an interface (kernel/bpf/mprog.c)."""

_U32 = ctypes.POINTER(ctypes.c_uint32)

CAPABILITIES = {
    "open a map": "CAP_SYS_ADMIN (reading by id)",
    "read a map": "CAP_BPF",
    "query a hook": "CAP_NET_ADMIN and CAP_BPF",
}


@lru_cache(maxsize=1)
def library() -> Library:
    """libbpf. Raises `MissingEvidence` where it is not installed."""
    try:
        return Library(ctypes.CDLL(LIBBPF, use_errno=True))
    except OSError as error:
        raise MissingEvidence(
            f"cannot read BPF maps: {LIBBPF} is not usable ({error}); install it with `apt-get install libbpf1`"
        ) from None


class Library:
    """Calls of libbpf. Those that end in -1 or less leave why in `ctypes.get_errno`."""

    def __init__(self, lib: Any) -> None:
        """``lib`` is libbpf, loaded."""
        self._lib = lib
        lib.bpf_map_get_fd_by_id.argtypes = [ctypes.c_uint32]
        lib.bpf_obj_get.argtypes = [ctypes.c_char_p]
        lib.bpf_obj_get_info_by_fd.argtypes = [ctypes.c_int, ctypes.c_void_p, _U32]
        lib.bpf_prog_query.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_uint32, _U32, _U32, _U32]
        for name, given in (("bpf_map_lookup_elem", 2), ("bpf_map_get_next_key", 2), ("bpf_map_lookup_batch", 6)):
            getattr(lib, name).argtypes = [ctypes.c_int, *[ctypes.c_void_p] * given]
        lib.bpf_map_update_elem.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64]
        lib.bpf_raw_tracepoint_open.argtypes = [ctypes.c_char_p, ctypes.c_int]
        lib.ring_buffer__new.argtypes = [ctypes.c_int, RING_TAKER, ctypes.c_void_p, ctypes.c_void_p]
        lib.ring_buffer__new.restype = ctypes.c_void_p
        lib.ring_buffer__poll.argtypes = [ctypes.c_void_p, ctypes.c_int]
        for name in ("ring_buffer__consume", "ring_buffer__free"):
            getattr(lib, name).argtypes = [ctypes.c_void_p]
        lib.ring_buffer__free.restype = None

    def __getattr__(self, name: str) -> Any:
        """A function of libbpf under its own name."""
        return getattr(self._lib, name)

    def bpf_lookup_elem(self, descriptor: int, key: object, value: object) -> int:
        """Copy a value out of a map."""
        return int(self._lib.bpf_map_lookup_elem(descriptor, key, value))

    def bpf_update_elem(self, descriptor: int, key: object, value: object, flags: int) -> int:
        """Put a value into a map."""
        return int(self._lib.bpf_map_update_elem(descriptor, key, value, flags))

    def bpf_get_next_key(self, descriptor: int, key: object, following: object) -> int:
        """The key behind another, the first one behind None."""
        return int(self._lib.bpf_map_get_next_key(descriptor, key, following))

    def bpf_lookup_batch(
        self, descriptor: int, start: object, following: object, keys: object, values: object, count: object
    ) -> int:
        """As many entries as fit, from a place in the map on."""
        return int(self._lib.bpf_map_lookup_batch(descriptor, start, following, keys, values, count, None))

    def bpf_attach_kfunc(self, program: int) -> int:
        """Run a tracing program at what it was loaded for; a descriptor that ends it when closed."""
        return int(self._lib.bpf_raw_tracepoint_open(None, program))

    def bpf_new_ringbuf(self, descriptor: int, taker: object, context: object) -> Any:
        """A reader of a ring buffer, None when there is no memory; ``taker`` is a `RING_TAKER`."""
        return self._lib.ring_buffer__new(descriptor, taker, context, None)

    def bpf_poll_ringbuf(self, ring: Any, milliseconds: int) -> int:
        """Wait for records and have them taken."""
        return int(self._lib.ring_buffer__poll(ring, milliseconds))

    def bpf_consume_ringbuf(self, ring: Any) -> int:
        """Have the records taken that are there."""
        return int(self._lib.ring_buffer__consume(ring))

    def bpf_free_ringbuf(self, ring: Any) -> None:
        """Let a reader go."""
        self._lib.ring_buffer__free(ring)


def possible_cpus(path: Path = POSSIBLE) -> int:
    """How many CPUs the kernel keeps per-CPU values for: possible ones, not those online. Raises `EvidenceError`."""
    try:
        parts = path.read_text(encoding="ascii").strip().split(",")
        ranges = [part.split("-") for part in parts]
        return sum(int(part[-1]) - int(part[0]) + 1 for part in ranges)
    except (OSError, ValueError) as error:
        raise EvidenceError(f"cannot tell the possible CPUs from {path} ({error}); mount /sys") from None


def failure(what: str, doing: str, number: int) -> EvidenceError:
    """The error for an errno: ``what`` was tried ("read map x (id 3)"), ``doing`` a key of `CAPABILITIES`."""
    if number in (errno.EPERM, errno.EACCES):
        return EvidenceError(f"not allowed to {what}: {CAPABILITIES[doing]} is missing; run as root on the node")
    if number == errno.ENOENT:
        return MissingEvidence(f"cannot {what}: it is gone; try again, Felix may be replacing it")
    if number == errno.ENOSYS:
        return EvidenceError(f"cannot {what}: this kernel has no bpf(2), or a sandbox forbids it; run on the node")
    return EvidenceError(f"cannot {what}: {os.strerror(number)}; try again, and look at the kernel's log")


def open_map(map_id: int, name: str, pin: str) -> int:
    """A file descriptor of a map, by its id, or else through its pin when that leads to the same map. Raises
    `EvidenceError`.
    """
    lib = library()
    descriptor = int(lib.bpf_map_get_fd_by_id(map_id))
    if descriptor >= 0:
        return descriptor
    number = ctypes.get_errno()
    if number in (errno.EPERM, errno.EACCES):
        pinned = int(lib.bpf_obj_get(pin.encode()))
        if pinned >= 0:
            if map_id_of(pinned) == map_id:
                return pinned
            os.close(pinned)
    raise failure(f"open map {name} (id {map_id})", "open a map", number)


def map_id_of(descriptor: int) -> int:
    """The id of an open map, 0 when the kernel does not tell."""
    info = ctypes.create_string_buffer(MAP_INFO_SIZE)
    size = ctypes.c_uint32(MAP_INFO_SIZE)
    if library().bpf_obj_get_info_by_fd(descriptor, info, ctypes.byref(size)) != 0:
        return 0
    return int.from_bytes(info.raw[4:8], "little")


def attached(ifindex: int, attach_type: int) -> list[int] | None:
    """Ids of the programs at a hook of an interface, in the order of running; None where this kernel has no such hook
    or the interface is gone. Raises `EvidenceError`.
    """
    programs = (ctypes.c_uint32 * MOST_PROGRAMS)()
    count, flags = ctypes.c_uint32(MOST_PROGRAMS), ctypes.c_uint32(0)
    if library().bpf_prog_query(ifindex, attach_type, 0, ctypes.byref(flags), programs, ctypes.byref(count)) != 0:
        number = ctypes.get_errno()
        # Asked for netkit: ENXIO is another kind of device, EACCES the end in a pod (netkit.c, netkit_dev_fetch).
        if number in (errno.EINVAL, errno.ENODEV, errno.EOPNOTSUPP, errno.ENXIO, errno.EACCES):
            return None
        if number == errno.ENOENT:
            return []
        raise failure(f"query the programs of interface {ifindex}", "query a hook", number)
    return list(programs[: count.value])
