"""Watches the packets of a flow, or all drops, on this node: see packets.bpf.c for what, loader.py for how it ends."""

from __future__ import annotations

import ctypes
import struct
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from calico_debug.agent.bpf_library import library, possible_cpus
from calico_debug.agent.packets.loader import DROPS, PROGRAMS, Loaded, load
from calico_debug.agent.packets.namespaces import find_namespaces
from calico_debug.agent.packets.program import program_object
from calico_debug.decode.btf import enumeration
from calico_debug.decode.kallsyms import Symbols
from calico_debug.decode.packet_events import (
    KINDS,
    ONE,
    REASONS_ENUM,
    TOTALS,
    decode_event,
    decode_losses,
    encode_settings,
    filter_entries,
    reason_name,
)
from calico_debug.errors import EvidenceError
from calico_debug.explain.packet_drops import PURGED
from calico_debug.model.packet_event import Losses
from calico_debug.state.workloads import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Any

    from calico_debug.agent.packets.namespaces import Namespaces
    from calico_debug.model.packet_event import Ends, PacketEvent

BTF = Path("/sys/kernel/btf/vmlinux")
SYMBOLS = Path("/proc/kallsyms")
TURN = 0.1
"""Seconds after which waiting for events is interrupted to look at the limits."""
LINGER = 0.2
"""Seconds that the last packet within the limit has to come to its end: a node takes much less."""
MOST_ENDS = 256
"""Of a service with more backends, the others are not looked for."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When enough was seen; with 0 ``packets`` neither these nor ``bytes`` are counted. ``rate`` is of events of
    each kind a second and CPU, others are counted; 0 for all of them.
    """

    seconds: float = 10.0
    packets: int = 1000
    bytes: int = 10 << 20
    rate: int = 1000


class PacketObserver:
    """A context manager: at its start the tracepoints are watched, and at its end they are no more."""

    def __init__(
        self,
        flows: Sequence[Ends] | None,
        limits: Limits | None = None,
        *,
        prefixes: Sequence[str] = (DEFAULT,),
        data: int = 0,
        drops: bool = False,
    ) -> None:
        """``flows`` are the flow's ends before and behind translation, or what pods send and get (`everything_of`);
        with None all drops are watched. ``prefixes`` begin the names of pods' interfaces. ``data`` is how many bytes of
        each packet are wanted. With ``drops`` only packets are told that are dropped. Nothing is touched yet.
        """
        self._prefixes = tuple(prefixes)
        self._flows = None if flows is None else tuple(flows)[:MOST_ENDS]
        self._drops = drops or flows is None
        self.limits = limits or Limits()
        self._data = data
        self._loaded: Loaded | None = None
        self._lock = Lock()
        self._ring: Any = None
        self._raw: list[bytes] = []
        self._boot = 0
        self._stopped = False
        self.namespaces: Namespaces | None = None
        """Where packets are looked for, known from the start on."""
        self.losses = Losses()
        """What was not told, known when `events` has ended."""
        self.unknown = 0
        """Events that this version does not understand."""
        self.limited_by = ""
        """The limit that ended the observation: "seconds", "packets" or "bytes"; "" when something else did."""

    def __enter__(self) -> PacketObserver:
        """Load, fill the filter, attach. Raises `EvidenceError`."""
        try:
            self.namespaces = find_namespaces(self._prefixes)
            self._loaded = load(program_object())
            self._fill(self._loaded.maps, self.namespaces)
            self._boot = time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            self._listen(self._loaded.maps["cdebug_events"])
            self._loaded.attach((DROPS,) if self._drops else PROGRAMS)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See `close`."""
        self.close()

    def close(self) -> None:
        """Let the program go."""
        if self._ring is not None:
            library().bpf_free_ringbuf(self._ring)
            self._ring = None
        with self._lock:
            if self._loaded is not None:
                self._loaded.close()
                self._loaded = None

    def add(self, flows: Sequence[Ends]) -> int:
        """Look for these, too; how many found no room. From any thread. Raises `EvidenceError`."""
        with self._lock:
            if self._loaded is None or self._flows is None or self.namespaces is None:
                return 0
            known = self._flows
            more = [one for one in dict.fromkeys(flows) if one not in known]
            self._flows = (*known, *more)[:MOST_ENDS]
            for key, value in filter_entries(self._flows[len(known) :], len(known)).items():
                _write(self._loaded.maps["cdebug_tuples"], key, value)
            self._set(self._loaded.maps, self.namespaces)
            return len(known) + len(more) - len(self._flows)

    def find_namespaces(self) -> bool:
        """Look for namespaces of pods again, and watch new ones, too; whether there is any. From any thread.

        Raises `EvidenceError`.
        """
        found = find_namespaces(self._prefixes)
        with self._lock:
            if self._loaded is None or found == self.namespaces:
                return False
            for inode in found.all:
                _write(self._loaded.maps["cdebug_namespaces"], struct.pack("=I", inode), struct.pack("=I", 1))
            self.namespaces = found
            return True

    def events(self, passed: float = 0.0) -> Iterator[PacketEvent]:
        """Events as they come, until a limit is reached; ``passed`` are seconds of it that have gone by already.

        May be left early; `finish` gives what was queued.
        """
        for turn in self.turns(passed):
            yield from turn

    def turns(self, passed: float = 0.0) -> Iterator[Iterator[PacketEvent]]:
        """The same, as what came in each `TURN`, which may be nothing."""
        end = time.monotonic() + self.limits.seconds - passed
        packets: set[tuple[int, int]] = set()
        size = 0

        def within(events: Iterator[PacketEvent]) -> Iterator[PacketEvent]:
            nonlocal size
            for event in events:
                if event.packet not in packets and len(packets) >= self.limits.packets:
                    continue
                packets.add(event.packet)
                size += event.length
                yield event

        while not self._stopped and (left := end - time.monotonic()) > 0:
            came = self._wait(min(left, TURN))
            yield within(came) if self.limits.packets else came
            if self.limits.packets and size >= self.limits.bytes:
                self.limited_by = "bytes"
                return
            if not self.limited_by and self.limits.packets and len(packets) >= self.limits.packets:
                # The last one may still be on its way.
                self.limited_by = "packets"
                end = min(end, time.monotonic() + LINGER)
        if not self._stopped:
            self.limited_by = self.limited_by or "seconds"

    def stop(self) -> None:
        """Let `events` end soon, with everything told that was seen; for handlers of signals."""
        self._stopped = True

    def finish(self) -> list[PacketEvent]:
        """Stop watching, and give what is queued; `losses` are known then."""
        if self._loaded is None:
            return []
        self._loaded.detach()
        library().bpf_consume_ringbuf(self._ring)
        rest = list(self._decoded())
        self.losses = self._totals(self._loaded)
        return [] if self.limited_by in ("packets", "bytes") else rest

    def _wait(self, seconds: float) -> Iterator[PacketEvent]:
        # Events that are few wake nobody: that would cost the packets' own time.
        library().bpf_poll_ringbuf(self._ring, max(1, round(seconds * 1000)))
        library().bpf_consume_ringbuf(self._ring)
        return self._decoded()

    def _decoded(self) -> Iterator[PacketEvent]:
        raw, self._raw[:] = list(self._raw), []
        for data in raw:
            try:
                yield decode_event(data, boot=self._boot, filtered=not self._many, reasons=reasons(), place=_place)
            except ValueError:
                self.unknown += 1

    def _fill(self, maps: Mapping[str, int], namespaces: Namespaces) -> None:
        for inode in namespaces.all:
            _write(maps["cdebug_namespaces"], struct.pack("=I", inode), struct.pack("=I", 1))
        for key, value in filter_entries(self._flows or ()).items():
            _write(maps["cdebug_tuples"], key, value)
        self._set(maps, namespaces)

    def _set(self, maps: Mapping[str, int], namespaces: Namespaces) -> None:
        settings = encode_settings(
            self._flows,
            rate=self.limits.rate,
            vxlan_port=namespaces.vxlan_port,
            data=self._data,
            purged=_number_of(PURGED) if self._drops else 0,
        )
        _write(maps["cdebug_settings"], ONE, settings)

    @property
    def _many(self) -> bool:
        """Whether more than one flow is looked for."""
        return not self._flows or any(not ends.protocol for ends in self._flows)

    def _listen(self, descriptor: int) -> None:
        lib = library()
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

        def take(_: int, data: int, size: int) -> int:
            self._raw.append(ctypes.string_at(data, size))
            return 0

        # Kept: the library calls it as long as the ring is open.
        self._taker = kind(take)
        lib.bpf_new_ringbuf.restype = ctypes.c_void_p
        lib.bpf_new_ringbuf.argtypes = [ctypes.c_int, kind, ctypes.c_void_p]
        for name in ("bpf_free_ringbuf", "bpf_poll_ringbuf", "bpf_consume_ringbuf"):
            getattr(lib, name).argtypes = [ctypes.c_void_p, *([ctypes.c_int] if name == "bpf_poll_ringbuf" else [])]
        self._ring = lib.bpf_new_ringbuf(descriptor, self._taker, None)
        if not self._ring:
            raise EvidenceError("the events of the tracing program cannot be read; try again when memory is free")

    def losses_so_far(self) -> Losses:
        """What was not told until now. From any thread."""
        with self._lock:
            return self._totals(self._loaded) if self._loaded is not None else self.losses

    def _totals(self, loaded: Loaded) -> Losses:
        descriptor = loaded.maps["cdebug_totals"]
        # Values of a CPU are padded to eight bytes each, which these are.
        room = ctypes.create_string_buffer(TOTALS.size * possible_cpus())
        values = b""
        for kind in KINDS:
            if library().bpf_lookup_elem(descriptor, struct.pack("=I", kind), room) != 0:
                raise EvidenceError("the counts of lost events cannot be read; observe again")
            values += room.raw
        return decode_losses(values, loaded.misses())


def _write(descriptor: int, key: bytes, value: bytes) -> None:
    if library().bpf_update_elem(descriptor, key, value, 0) != 0:
        raise EvidenceError("the filter of the tracing program cannot be written; look for fewer flows")


def _place(address: int) -> str:
    # The kernel's functions are read when the first packet is dropped: that takes as long as ten thousand events.
    return symbols().name(address)


def _number_of(reason: str) -> int:
    """A reason's number in the running kernel, 0 where it has none."""
    known = reasons()
    return next((number for number in known if reason_name(number, known) == reason), 0)


@lru_cache(maxsize=1)
def reasons() -> Mapping[int, str]:
    """The running kernel's reasons of drops; empty where it has no BTF, and numbers stand for them then."""
    try:
        return enumeration(BTF.read_bytes(), REASONS_ENUM)
    except (OSError, ValueError):
        return {}


@lru_cache(maxsize=1)
def symbols() -> Symbols:
    """The running kernel's functions; without names where it does not show them."""
    try:
        return Symbols(SYMBOLS.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return Symbols("")
