"""Loads the tracing program and attaches it, so that the kernel removes everything with the last descriptor.

``bpftool`` loads and pins, as it cannot hand descriptors over. It pins into a BPF file system that is mounted nowhere:
a mount without a place lives as long as a descriptor of it does, ours or bpftool's. Whenever either is killed, nothing
is left: no pin, no mount, no program. From the pins descriptors are opened, and the file system is let go at once.

Sources: fsopen(2), fsmount(2) (Linux 5.2, kernel/bpf/inode.c); bpf(2) BPF_RAW_TRACEPOINT_OPEN, which
``bpf_attach_kfunc`` of bcc calls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from calico_debug.agent.bpf_library import library
from calico_debug.agent.commands import program_path
from calico_debug.errors import EvidenceError, MissingEvidence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432
"""System calls, of the same numbers on every architecture (include/uapi/asm-generic/unistd.h)."""
FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC, FSCONFIG_CMD_CREATE = 1, 1, 6
"""include/uapi/linux/mount.h."""

DROPS = "cdebug_dropped"
PROGRAMS = ("cdebug_received", "cdebug_sent", DROPS)
MAPS = ("cdebug_settings", "cdebug_tuples", "cdebug_namespaces", "cdebug_totals", "cdebug_events")
"""Names in packets.bpf.c, of those that are used from here."""
LOAD_SECONDS = 60.0
"""Longest run of bpftool, which takes a third of one."""
PROGRAM_INFO_SIZE = 256
MISSES_AT = 208
"""recursion_misses in struct bpf_prog_info (include/uapi/linux/bpf.h), since Linux 5.12."""
_SAYS = ("libbpf: ", "Error: ")


class Loaded:
    """Descriptors of the loaded program; closing them removes it."""

    def __init__(self, programs: Mapping[str, int], maps: Mapping[str, int]) -> None:
        """Takes the descriptors over."""
        self._programs = dict(programs)
        self.maps = dict(maps)
        self._links: list[int] = []

    def attach(self, names: Sequence[str] = PROGRAMS) -> None:
        """Run at the tracepoints from now on. Raises `EvidenceError`."""
        for name in names:
            descriptor = self._programs[name]
            link = int(library().bpf_attach_kfunc(descriptor))
            if link < 0:
                raise EvidenceError(
                    f"the kernel does not attach {name} to its tracepoint ({os.strerror(ctypes.get_errno())}): it "
                    "takes Linux 5.17 with CONFIG_DEBUG_INFO_BTF"
                )
            self._links.append(link)

    def detach(self) -> None:
        """Stop running; maps can still be read."""
        for descriptor in self._links:
            os.close(descriptor)
        self._links.clear()

    def misses(self) -> int:
        """How often the kernel passed a packet by, because the program was running on that CPU already."""
        total = 0
        for descriptor in self._programs.values():
            info = ctypes.create_string_buffer(PROGRAM_INFO_SIZE)
            size = ctypes.c_uint32(PROGRAM_INFO_SIZE)
            if library().bpf_obj_get_info_by_fd(descriptor, info, ctypes.byref(size)) == 0:
                total += int.from_bytes(info.raw[MISSES_AT : MISSES_AT + 8], sys.byteorder)
        return total

    def close(self) -> None:
        """Let everything go."""
        self.detach()
        for descriptor in (*self._programs.values(), *self.maps.values()):
            os.close(descriptor)
        self._programs.clear()
        self.maps.clear()


def load(code: bytes) -> Loaded:
    """Load an object. Raises `MissingEvidence` when bpftool or bcc is missing, `EvidenceError` when it is refused."""
    library()
    bpftool = program_path("bpftool")
    if bpftool is None:
        raise MissingEvidence("observing packets takes bpftool: install it with `apt-get install bpftool`")
    with ExitStack() as stack:
        folder = _bpf_file_system()
        stack.callback(os.close, folder)
        binary = os.memfd_create("calico-debug-packets", os.MFD_CLOEXEC)
        stack.callback(os.close, binary)
        _write(binary, code)
        os.mkdir("maps", 0o700, dir_fd=folder)
        place = f"/proc/self/fd/{folder}"
        _run(
            [bpftool, "prog", "loadall", f"/proc/self/fd/{binary}", f"{place}/programs", "pinmaps", f"{place}/maps"],
            (folder, binary),
        )
        with ExitStack() as on_failure:
            programs = {name: _open(on_failure, f"{place}/programs/{name}") for name in PROGRAMS}
            maps = {name: _open(on_failure, f"{place}/maps/{name}") for name in MAPS}
            on_failure.pop_all()
    return Loaded(programs, maps)


def _open(stack: ExitStack, path: str) -> int:
    descriptor = int(library().bpf_obj_get(path.encode()))
    if descriptor < 0:
        raise EvidenceError(
            f"the loaded program cannot be opened ({os.strerror(ctypes.get_errno())}); look at the kernel's log"
        )
    stack.callback(os.close, descriptor)
    return descriptor


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _run(arguments: list[str], descriptors: tuple[int, ...]) -> None:
    try:
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LOAD_SECONDS,
            check=False,
            pass_fds=descriptors,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EvidenceError(f"bpftool did not load the tracing program ({error}); try again") from None
    if done.returncode:
        lines = (
            done.stderr.decode("utf-8", "replace").splitlines() + done.stdout.decode("utf-8", "replace").splitlines()
        )
        said = [line.strip() for line in lines if line.startswith(_SAYS) and " LOG --" not in line]
        raise EvidenceError(
            f"bpftool did not load the tracing program: {'; '.join(said[:2]) or done.returncode}; it takes Linux 5.17 "
            "with CONFIG_DEBUG_INFO_BTF, and root (CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN)"
        )


def _bpf_file_system() -> int:
    """A descriptor of a BPF file system that is mounted nowhere. Raises `EvidenceError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    context = int(libc.syscall(FSOPEN, b"bpf", FSOPEN_CLOEXEC))
    if context < 0:
        raise _refused()
    try:
        if libc.syscall(FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0) < 0:
            raise _refused()
        mounted = int(libc.syscall(FSMOUNT, context, FSMOUNT_CLOEXEC, 0))
        if mounted < 0:
            raise _refused()
    finally:
        with suppress(OSError):
            os.close(context)
    return mounted


def _refused() -> EvidenceError:
    code = ctypes.get_errno()
    if code in (errno.EPERM, errno.EACCES):
        return EvidenceError("observing packets needs root on the node (CAP_SYS_ADMIN, CAP_BPF and CAP_PERFMON)")
    return EvidenceError(f"no BPF file system for the tracing program ({os.strerror(code)}): it takes Linux 5.17")
