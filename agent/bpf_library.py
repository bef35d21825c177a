"""The calls of BCC's library that read maps and attachments, and what their errors mean.

Sources: bcc 0.26, src/cc/libbpf.h; libbpf 1.1, src/bpf.h, which libbcc is linked with; Linux include/uapi/linux/bpf.h
and kernel/bpf/syscall.c for the capabilities.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from calico_debug.errors import EvidenceError, MissingEvidence

POSSIBLE = Path("/sys/devices/system/cpu/possible")

MAP_INFO_SIZE = 128
"""At least sizeof(struct bpf_map_info); the kernel tells how much it filled."""

MOST_PROGRAMS = 64
"""BPF_MPROG_MAX, programs at one hook of an interface (kernel/bpf/mprog.c)."""

CAPABILITIES = {
    "open a map": "CAP_SYS_ADMIN (reading by id)",
    "read a map": "CAP_BPF",
    "query a hook": "CAP_NET_ADMIN and CAP_BPF",
}


@lru_cache(maxsize=1)
def library() -> Any:
    """BCC's ``lib``. Raises `MissingEvidence` where it is not installed. Importing takes 70 ms, hence not before."""
    try:
        lib = import_module("bcc").lib
    except (ImportError, OSError) as error:
        raise MissingEvidence(
            f"cannot read BPF maps: python3-bpfcc is not usable ({error}); install it with "
            "`apt-get install python3-bpfcc`, for the Python that runs this"
        ) from None
    lib.bpf_map_get_fd_by_id.argtypes = [ctypes.c_uint32]
    lib.bpf_obj_get.argtypes = [ctypes.c_char_p]
    lib.bpf_obj_get_info_by_fd.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint32)]
    lib.bpf_prog_query.argtypes = [
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_uint32,
        ctypes.POINTER(ctypes.c_uint32),
        ctypes.POINTER(ctypes.c_uint32),
        ctypes.POINTER(ctypes.c_uint32),
    ]
    lib.bpf_get_next_key.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    lib.bpf_get_next_key.restype = ctypes.c_int
    return lib


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
