"""bpf(2) for tests: maps, programs and test runs of this kernel. Descriptors close with the `Kernel` that made them."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from pathlib import Path

NUMBERS = {"x86_64": 321, "aarch64": 280}
MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, PROG_LOAD, PROG_TEST_RUN, INFO_BY_FD = 0, 1, 2, 5, 10, 15
HASH, ARRAY, PROG_ARRAY, PERCPU_ARRAY, LPM_TRIE = 1, 2, 3, 6, 11
SCHED_CLS, XDP = 3, 6
SKB_BYTES, SKB_CB = 192, 48

_libc = ctypes.CDLL(None, use_errno=True)


def unusable() -> str:
    """Why this kernel cannot be asked; "" if it can."""
    if platform.machine() not in NUMBERS:
        return f"no system call number known for {platform.machine()}"
    if os.geteuid() != 0:
        return "loading programs needs root (CAP_BPF)"
    try:
        with Kernel() as kernel:
            kernel.program(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0))
    except OSError as error:
        return f"bpf(2) is refused here: {error}"
    return ""


class Kernel:
    """Maps and programs of one test."""

    def __init__(self) -> None:
        self._open: list[int] = []
        possible = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii").strip()
        self.cpus = int(possible.rpartition("-")[2].rpartition(",")[2]) + 1

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.pop())

    def _call(self, command: int, attributes: bytes) -> tuple[int, bytes]:
        buffer = ctypes.create_string_buffer(attributes.ljust(160, b"\0"), 160)
        result = _libc.syscall(NUMBERS[platform.machine()], command, buffer, 160)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result, buffer.raw

    def map(self, kind: int, key: int, value: int, entries: int) -> int:
        flags = 1 if kind == LPM_TRIE else 0  # BPF_F_NO_PREALLOC
        descriptor, _ = self._call(MAP_CREATE, struct.pack("<5I", kind, key, value, entries, flags))
        self._open.append(descriptor)
        return descriptor

    def update(self, descriptor: int, key: bytes, value: bytes) -> None:
        one, other = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
        attributes = struct.pack("<IxxxxQQQ", descriptor, ctypes.addressof(one), ctypes.addressof(other), 0)
        self._call(MAP_UPDATE, attributes)

    def lookup(self, descriptor: int, key: bytes, size: int) -> bytes | None:
        one, other = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(size)
        attributes = struct.pack("<IxxxxQQQ", descriptor, ctypes.addressof(one), ctypes.addressof(other), 0)
        try:
            self._call(MAP_LOOKUP, attributes)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return other.raw

    def program(self, code: bytes, kind: int = SCHED_CLS) -> int:
        """Load a program. The verifier's log is in the error's text when it refuses."""
        insns = ctypes.create_string_buffer(code, len(code))
        licence = ctypes.create_string_buffer(b"GPL")

        def load(log: ctypes.Array[ctypes.c_char] | None) -> int:
            head = struct.pack("<IIQQ", kind, len(code) // 8, ctypes.addressof(insns), ctypes.addressof(licence))
            tail = struct.pack("<IIQ", 1 if log else 0, len(log) if log else 0, ctypes.addressof(log) if log else 0)
            return self._call(PROG_LOAD, head + tail)[0]

        try:
            descriptor = load(None)
        except OSError as error:
            log = ctypes.create_string_buffer(1 << 20)
            try:
                descriptor = load(log)
            except OSError:
                raise OSError(error.errno, log.value.decode(errors="replace")[-3000:]) from None
        self._open.append(descriptor)
        return descriptor

    def run(self, program: int, packet: bytes, context: bytes = b"") -> int:
        """The return value of one run over a packet, as an unsigned number of 32 bits."""
        data, out = ctypes.create_string_buffer(packet, len(packet)), ctypes.create_string_buffer(1024)
        given = ctypes.create_string_buffer(context, len(context)) if context else None
        attributes = struct.pack("<4I", program, 0, len(packet), 1024)
        attributes += struct.pack("<QQII", ctypes.addressof(data), ctypes.addressof(out), 1, 0)
        attributes += struct.pack("<IIQQ", len(context), 0, ctypes.addressof(given) if given else 0, 0)
        _, after = self._call(PROG_TEST_RUN, attributes)
        return int(struct.unpack_from("<I", after, 4)[0])

    def program_id(self, program: int) -> int:
        info = ctypes.create_string_buffer(8)
        self._call(INFO_BY_FD, struct.pack("<IIQ", program, 8, ctypes.addressof(info)))
        return int(struct.unpack_from("<I", info.raw, 4)[0])

    def tag(self, program: int) -> str:
        """What bpftool shows as a program's tag."""
        info = ctypes.create_string_buffer(16)
        self._call(INFO_BY_FD, struct.pack("<IIQ", program, 16, ctypes.addressof(info)))
        return info.raw[8:16].hex()

    def map_id(self, descriptor: int) -> int:
        return self.program_id(descriptor)  # struct bpf_map_info begins the same way: type, id


def skb(cb: tuple[int, ...]) -> bytes:
    """A struct __sk_buff with these control bytes."""
    return bytes(SKB_CB) + struct.pack(f"<{len(cb)}I", *cb) + bytes(SKB_BYTES - SKB_CB - 4 * len(cb))
