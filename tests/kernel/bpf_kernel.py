"""Real BPF maps and programs, made with the library that reads them; the kernel frees them with their descriptors."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from calico_debug.agent.bpf_library import library, map_id_of
from calico_debug.errors import MissingEvidence
from calico_debug.model.bpf_objects import MapInfo

TYPES = {
    "hash": 1,
    "array": 2,
    "prog_array": 3,
    "percpu_hash": 5,
    "percpu_array": 6,
    "lru_hash": 9,
    "lpm_trie": 11,
}
"""BPF_MAP_TYPE_…, include/uapi/linux/bpf.h."""

SCHED_CLS = 3
RETURN_ZERO = bytes.fromhex("b700000000000000") + bytes.fromhex("9500000000000000")


class CreateOptions(ctypes.Structure):
    """struct bpf_map_create_opts of libbpf 1.1, as far as the flags."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
    )


def need_bpf() -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: BPF maps cannot be made")
    if shutil.which("bpftool", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
        pytest.skip("bpftool is not installed")
    try:
        library()
    except MissingEvidence as error:
        pytest.skip(str(error))


@contextmanager
def kernel_map(info: MapInfo) -> Iterator[tuple[MapInfo, int]]:
    """A map like ``info``, with the id that the kernel gave it, and its descriptor."""
    lib = library()
    options = CreateOptions(size=ctypes.sizeof(CreateOptions), map_flags=info.flags)
    descriptor = lib.bpf_map_create(
        TYPES[info.type], info.name.encode(), info.key_size, info.value_size, info.max_entries, ctypes.byref(options)
    )
    if descriptor < 0:
        pytest.skip(f"this kernel makes no {info.type}: {os.strerror(ctypes.get_errno())}")
    try:
        made = MapInfo(
            map_id_of(descriptor),
            info.name,
            info.type,
            info.key_size,
            info.value_size,
            info.max_entries,
            info.flags,
        )
        yield made, descriptor
    finally:
        os.close(descriptor)


def fill(descriptor: int, pairs: Mapping[bytes, bytes]) -> None:
    for key, value in pairs.items():
        if library().bpf_update_elem(descriptor, key, value, 0) != 0:
            raise OSError(ctypes.get_errno(), f"cannot write {key.hex()}")


@contextmanager
def kernel_program(name: str) -> Iterator[int]:
    """A program for tc that returns 0: its descriptor."""
    lib = library()
    descriptor = lib.bpf_prog_load(SCHED_CLS, name.encode(), b"GPL", RETURN_ZERO, 2, None)
    if descriptor < 0:
        pytest.skip(f"this kernel loads no program: {os.strerror(ctypes.get_errno())}")
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def program_id(descriptor: int) -> int:
    info = ctypes.create_string_buffer(256)
    size = ctypes.c_uint32(256)
    assert library().bpf_obj_get_info_by_fd(descriptor, info, ctypes.byref(size)) == 0
    return int.from_bytes(info.raw[4:8], "little")
