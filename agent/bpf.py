"""eBPF evidence of the node that this process runs on: maps entry by entry, and bpftool for everything else."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from calico_debug.agent import places
from calico_debug.agent.bpf_library import attached, failure, library, open_map, possible_cpus
from calico_debug.agent.commands import output_of
from calico_debug.agent.evidence import LiveNode
from calico_debug.agent.places import BPFFS, bpf_file_system, run_directory
from calico_debug.errors import EvidenceError, MissingEvidence
from calico_debug.evidence.bpf import KernelMaps
from calico_debug.model.bpf_objects import MapInfo, RawEntries

PINS = bpf_file_system()
PINNED_MAPS = PINS / places.PINNED_MAPS
POLICY_DEBUG = run_directory() / "bpf/policy"
CALICO_CGROUP = Path(os.environ.get("CALICO_CGROUP_PATH") or run_directory() / "cgroup")
"""Where calico-node mounts the cgroup v2 root, unless it is told otherwise by that variable."""

POLICY_FOLDER = "var-run-calico-bpf/policy/"

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "bpf/prog-show.json": ("bpftool", "-j", "prog", "show"),
    "bpf/map-show.json": ("bpftool", "-j", "map", "show"),
    "bpf/link-show.json": ("bpftool", "-j", "link", "show"),
    "bpf/net-show.json": ("bpftool", "-j", "net", "show"),
}
"""Files of a bundle and the command that writes them."""

OTHERS = ("bpf/cgroup-tree.json", "bpf/tcx-query.json", "bpf/pins.txt")

XLATED = re.compile(r"bpf/xlated-(\d+)(?:-.*)?\.json")

TCX_HOOKS = {46: "tcx/ingress", 47: "tcx/egress", 54: "netkit/primary", 55: "netkit/peer"}
"""BPF_TCX_INGRESS, BPF_TCX_EGRESS, BPF_NETKIT_PRIMARY and BPF_NETKIT_PEER (include/uapi/linux/bpf.h)."""

BATCH = 4096
"""Entries asked for at once: half a megabyte of conntrack entries."""
LARGEST_BATCH = 1 << 20
"""A hash bucket never has to be larger; the kernel wants whole buckets (kernel/bpf/hashtab.c)."""
RESTARTS = 2
"""How often a walk from key to key may start anew because its key was deleted."""

UNBATCHED = frozenset({"prog_array", "perf_event_array", "percpu_array"})
"""Types whose entries are asked for one by one: the first two have no batches, and 32-bit indexes are cheap to know."""


class LiveMaps:
    """Implements `KernelMaps` with BCC's library. Maps that were opened stay open until `close`."""

    def __init__(self) -> None:
        """Nothing is opened, and the library not even imported."""
        self._open: dict[int, int] = {}

    def close(self) -> None:
        """Close every map."""
        for descriptor in self._open.values():
            with suppress(OSError):
                os.close(descriptor)
        self._open.clear()

    def lookup(self, info: MapInfo, key: bytes) -> bytes | None:
        """See `KernelMaps`."""
        if len(key) != info.key_size:
            raise EvidenceError(
                f"a key of {len(key)} bytes does not fit map {info.name}: its keys have {info.key_size}"
            )
        value = ctypes.create_string_buffer(self._value_size(info))
        if library().bpf_lookup_elem(self._descriptor(info), key, value) == 0:
            return value.raw
        number = ctypes.get_errno()
        if number == errno.ENOENT:
            return None
        raise failure(_reading(info), "read a map", number)

    def batches(self, info: MapInfo) -> Iterator[RawEntries]:
        """See `KernelMaps`. Entries that are written meanwhile may be missed or met twice, as in every dump."""
        if info.type in UNBATCHED:
            return self._indexes(info)
        return self._batches(info)

    @cached_property
    def _cpus(self) -> int:
        return possible_cpus()

    def _value_size(self, info: MapInfo) -> int:
        return info.value_stride * (self._cpus if info.per_cpu else 1)

    def _descriptor(self, info: MapInfo) -> int:
        if info.id not in self._open:
            self._open[info.id] = open_map(info.id, info.name, str(PINNED_MAPS / info.name))
        return self._open[info.id]

    def _batches(self, info: MapInfo) -> Iterator[RawEntries]:
        lib, descriptor, value_size = library(), self._descriptor(info), self._value_size(info)
        size = min(BATCH, max(info.max_entries, 1))
        # The kernel's place in the map: a bucket's number for hashes, a key for tries (batch tokens, syscall.c).
        token = ctypes.create_string_buffer(max(info.key_size, 4))
        place = ctypes.cast(token, ctypes.POINTER(ctypes.c_uint32))
        start, read = None, 0
        while read <= (RESTARTS + 1) * max(info.max_entries, 1):
            keys = ctypes.create_string_buffer(size * info.key_size)
            values = ctypes.create_string_buffer(size * value_size)
            count = ctypes.c_uint32(size)
            status = lib.bpf_lookup_batch(descriptor, start, place, keys, values, ctypes.byref(count))
            number = ctypes.get_errno() if status != 0 else 0
            if number == errno.ENOSPC and size < LARGEST_BATCH:
                size *= 2
                continue
            if number == errno.EINVAL and start is None:
                yield from self._walk(info)  # before Linux 5.6
                return
            if number not in (0, errno.ENOENT):
                raise failure(_reading(info), "read a map", number)
            read += count.value
            if count.value:
                yield RawEntries(
                    keys.raw[: count.value * info.key_size],
                    values.raw[: count.value * value_size],
                    count.value,
                    self._cpus if info.per_cpu else 1,
                )
            if number == errno.ENOENT:
                return
            start = place
        raise _unsteady(info)

    def _walk(self, info: MapInfo) -> Iterator[RawEntries]:
        lib, descriptor = library(), self._descriptor(info)
        following = ctypes.create_string_buffer(info.key_size)
        current: bytes | None = None
        for _ in range((RESTARTS + 1) * (info.max_entries + 1)):
            if lib.bpf_get_next_key(descriptor, current, following) != 0:
                number = ctypes.get_errno()
                if number == errno.ENOENT:
                    return
                raise failure(_reading(info), "read a map", number)
            current = following.raw
            value = self.lookup(info, current)
            if value is not None:
                yield RawEntries(current, value, 1, self._cpus if info.per_cpu else 1)
        raise _unsteady(info)

    def _indexes(self, info: MapInfo) -> Iterator[RawEntries]:
        if info.type == "perf_event_array":
            raise EvidenceError(f"map {info.name} holds event buffers that only its owner can read")
        for index in range(info.max_entries):
            key = index.to_bytes(4, "little")
            value = self.lookup(info, key)
            if value is not None:
                yield RawEntries(key, value, 1, self._cpus if info.per_cpu else 1)


def _reading(info: MapInfo) -> str:
    return f"read map {info.name} (id {info.id})"


def _unsteady(info: MapInfo) -> EvidenceError:
    return EvidenceError(f"map {info.name} (id {info.id}) changes faster than it can be read; try again")


class LiveBpfNode(LiveNode):
    """This node with its eBPF evidence; implements `calico_debug.evidence.bpf.LiveMaps` too. Nothing is changed."""

    @cached_property
    def kernel_maps(self) -> KernelMaps:
        """The kernel's maps."""
        return LiveMaps()

    def close(self) -> None:
        """Close the maps too."""
        super().close()
        opened = self.__dict__.pop("kernel_maps", None)
        if opened is not None:
            opened.close()

    def files(self) -> Sequence[str]:
        """See `NodeEvidence`; Felix's policy files are those there are now."""
        with suppress(OSError):
            debug = sorted(f"{POLICY_FOLDER}{path.name}" for path in POLICY_DEBUG.iterdir() if path.suffix == ".json")
            return (*super().files(), *COMMANDS, *OTHERS, *debug)
        return (*super().files(), *COMMANDS, *OTHERS)

    def read(self, file: str) -> bytes:
        """See `NodeEvidence`; raises `EvidenceError` too, when a command fails."""
        if file in COMMANDS:
            return output_of(COMMANDS[file])
        if file == "bpf/cgroup-tree.json":
            root = (str(CALICO_CGROUP),) if CALICO_CGROUP.is_dir() else ()
            return output_of(("bpftool", "-j", "cgroup", "tree", *root)) or b"[]"
        if file == "bpf/tcx-query.json":
            return json.dumps(list(query_tcx())).encode()
        if file == "bpf/pins.txt":
            found = (Path(BPFFS, Path(path).relative_to(PINS)) for path in pinned_paths())
            return "".join(f"{path}\n" for path in found).encode("utf-8", "surrogateescape")
        match = XLATED.fullmatch(file)
        if match is not None:
            return output_of(("bpftool", "-j", "prog", "dump", "xlated", "id", match[1], "opcodes"))
        if file.startswith(POLICY_FOLDER):
            return _policy_file(file.removeprefix(POLICY_FOLDER))
        return super().read(file)


def query_tcx() -> Iterator[dict[str, object]]:
    """What ``tcx-query.json`` holds, of every interface of this network namespace. Raises `EvidenceError`."""
    for ifindex, name in socket.if_nameindex():
        for attach_type, hook in TCX_HOOKS.items():
            programs = attached(ifindex, attach_type)
            if programs:
                yield {"ifindex": ifindex, "ifname": name, "hook": hook, "prog_ids": programs}


def pinned_paths(root: Path = PINS) -> Iterator[str]:
    """What ``find`` prints of a BPF file system. Raises `EvidenceError` when there is none, or it may not be read."""
    if not _is_bpffs(root):
        raise MissingEvidence(
            f"no BPF file system is mounted at {root}: in a container, mount the host's {root}; on the node, run "
            f"`mount -t bpf bpf {root}`, though a node without one does not run Calico's eBPF dataplane. Where it "
            f"is elsewhere, set {places.BPFFS_VARIABLE}"
        )
    yield str(root)

    def refuse(error: OSError) -> None:
        raise EvidenceError(f"cannot list {error.filename}: {error.strerror}; run as root") from error

    for parent, directories, files in os.walk(root, onerror=refuse):
        yield from (str(Path(parent) / name) for name in sorted((*directories, *files)))


def _is_bpffs(root: Path) -> bool:
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return root.is_dir()
    return any(fields[1] == str(root) and fields[2] == "bpf" for line in lines if len(fields := line.split(" ")) > 2)


def _policy_file(name: str) -> bytes:
    path = POLICY_DEBUG / name
    if "/" in name or not name.endswith(".json"):
        raise MissingEvidence(f"{name} is no policy debug file; they are named INTERFACE_DIRECTION_vN.json")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise MissingEvidence(
            f"{path} is not there: Felix writes it while BPFPolicyDebugEnabled is true; in a container, mount the "
            f"host's /var/run/calico; where it is elsewhere, set {places.RUN_VARIABLE}"
        ) from None
    except OSError as error:
        raise EvidenceError(f"cannot read {path}: {error.strerror}; run as root") from None
