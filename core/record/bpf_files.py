"""The files of an eBPF node that no listing names: dumps of the maps and programs that an explanation may ask for.

A live node offers its maps entry by entry and its programs by id; a bundle has a file for each (docs/bundle.md). Dumps
are written as ``bpftool -j map dump`` writes them, piece by piece: a full conntrack map is 365 MiB of JSON.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

from calico_debug.decode.bpf_layout_types import Role
from calico_debug.decode.bpf_layouts import is_calico
from calico_debug.errors import EvidenceError
from calico_debug.evidence.bpf import LiveMaps
from calico_debug.state.bpf import CLEANUP_PROGRAM, BpfState
from calico_debug.state.bpf_recorded import FOLDER
from calico_debug.state.node import POLICY_DEBUG_FOLDER

if TYPE_CHECKING:
    from calico_debug.evidence.source import NodeEvidence
    from calico_debug.model.bpf_objects import MapInfo, RawEntries

FAMILIES = (0, 4, 6)
"""IP versions of a map, 0 for maps of both."""

UNREADABLE = frozenset({"perf_event_array", "ringbuf", "user_ringbuf", "stack_trace"})
"""Types of maps that hold no entries to be looked up."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_.]")

Opener = Callable[[], Iterator[bytes]]

Changer = Callable[["MapInfo", "Iterator[RawEntries]"], "Iterator[RawEntries]"]
"""Makes other entries of a map's. May raise `EvidenceError`."""


def bpf_files(evidence: NodeEvidence, change: Changer | None = None) -> tuple[Mapping[str, Opener], str]:
    """Files of the maps and programs that the node's own programs lead to, and what hinders listing them ("").

    Only live evidence has such: a bundle lists its files itself. Entries of maps pass ``change``; what is written of
    programs does not.
    """
    if not isinstance(evidence, LiveMaps):
        return {}, ""
    state = BpfState(evidence)
    try:
        if not state.reach.attachments and not any(is_calico(info.name) for info in state.maps.values()):
            return {}, ""
        files: dict[str, Opener] = {}
        for number in sorted(_programs(state)):
            name = _UNSAFE.sub("_", state.programs[number].name) if number in state.programs else ""
            files[f"{FOLDER}xlated-{number}{f'-{name}' if name else ''}.json"] = _program_opener(state, number)
        for file in _debug_files(state) - set(evidence.files()):
            # Felix has not written it: what the node says to that is kept, as answers quote it.
            files[file] = partial(_read, evidence, file)
        names = Counter(info.name for info in state.maps.values())
        for number in sorted(_maps(state)):
            info = state.maps.get(number)
            if info is not None and info.type not in UNREADABLE:
                files[_file_of(info, names)] = _map_opener(state, info, change)
    except EvidenceError as error:
        return {}, str(error)
    return files, ""


def dump_json(batches: Iterator[RawEntries], info: MapInfo) -> Iterator[bytes]:
    """Entries as ``bpftool -j map dump`` prints them, a piece for each batch. Raises what ``batches`` raises."""
    separator = b"["
    for batch in batches:
        entries = ",".join(_entry(batch, info, place) for place in range(batch.count))
        if entries:
            yield separator + entries.encode()
            separator = b","
    yield b"[]\n" if separator == b"[" else b"]\n"


def _entry(batch: RawEntries, info: MapInfo, place: int) -> str:
    size, stride = info.key_size, info.value_stride
    key = _listed(batch.keys[place * size : (place + 1) * size])
    start = place * stride * batch.cpus
    if not info.per_cpu:
        return f'{{"key":{key},"value":{_listed(batch.values[start : start + stride])}}}'
    values = (batch.values[start + cpu * stride : start + (cpu + 1) * stride] for cpu in range(batch.cpus))
    listed = ",".join(
        f'{{"cpu":{cpu},"value":{_listed(value[: info.value_size])}}}' for cpu, value in enumerate(values)
    )
    return f'{{"key":{key},"values":[{listed}]}}'


def _listed(data: bytes) -> str:
    return f'["0x{data.hex(",").replace(",", chr(34) + "," + chr(34) + "0x")}"]' if data else "[]"


def _file_of(info: MapInfo, names: Counter[str]) -> str:
    """By its id for settings of programs, and where the kernel has several maps of the name."""
    if info.name.endswith(".rodata"):
        return f"{FOLDER}rodata-{info.id}.json"
    plain = not _UNSAFE.search(info.name) and names[info.name] == 1
    return f"{FOLDER}map-{info.name if plain and info.name else info.id}.json"


def _maps(state: BpfState) -> set[int]:
    wanted = set(state.reach.map_ids)
    for role, family in product(Role, FAMILIES):
        chosen = state.map(role, family)
        if chosen is not None:
            wanted.add(chosen.info.id)
    for program in state.programs.values():
        if program.name.startswith(CLEANUP_PROGRAM) and wanted & set(program.map_ids):
            wanted |= {n for n in program.map_ids if n in state.maps and state.maps[n].name.endswith(".rodata")}
    return wanted


def _programs(state: BpfState) -> set[int]:
    reach = state.reach
    return {
        number
        for attachment in reach.attachments
        for family in reach.globals(attachment.program_id)
        for number in reach.policy(attachment, family).programs
    }


def _debug_files(state: BpfState) -> set[str]:
    """Felix's debug files of the policies that run."""
    reach = state.reach
    return {
        f"{POLICY_DEBUG_FOLDER}{attachment.interface}_{direction}_v{family}.json"
        for attachment in reach.attachments
        for family in reach.globals(attachment.program_id)
        if reach.policy(attachment, family).programs
        for direction in (("xdp",) if attachment.mechanism == "xdp" else ("ingress", "egress"))
    }


def _read(evidence: NodeEvidence, file: str) -> Iterator[bytes]:
    yield evidence.read(file)


def _map_opener(state: BpfState, info: MapInfo, change: Changer | None) -> Opener:
    def opened() -> Iterator[bytes]:
        batches = state.kernel.batches(info)
        return dump_json(change(info, batches) if change is not None else batches, info)

    return opened


def _program_opener(state: BpfState, number: int) -> Opener:
    return lambda: iter((state.program_dump(number),))
