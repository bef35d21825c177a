"""The files of one eBPF node with addresses and names replaced: which file is what, and what the others tell of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

from calico_debug.decode.bpftool import decode_maps, decode_programs
from calico_debug.decode.bpftool_dumps import decode_dump
from calico_debug.decode.iproute import decode_interfaces
from calico_debug.decode.json_text import parse_json
from calico_debug.errors import EvidenceError
from calico_debug.model.bytecode import MapReference
from calico_debug.record.bpf_files import dump_json
from calico_debug.redact.bpf_entries import EntryRedactor
from calico_debug.redact.bpf_listings import FILES, POLICY_PROGRAM, ListingRedactor
from calico_debug.redact.bpf_programs import ProgramRedactor
from calico_debug.state.bpf import PROGRAM_DUMP
from calico_debug.state.bpf_recorded import FOLDER
from calico_debug.state.node import POLICY_DEBUG_FOLDER
from calico_debug.walk.bpf_roles import Role, role_of_map
from calico_debug.walk.bpf_state import StateLayout, layout_of_size

if TYPE_CHECKING:
    from calico_debug.evidence.source import NodeEvidence
    from calico_debug.model.bpf_objects import MapInfo, ProgramInfo, RawEntries
    from calico_debug.redact.numbers import NumberMap
    from calico_debug.redact.text import TextRedactor

MAPS: Final = f"{FOLDER}map-show.json"
PINS: Final = f"{FOLDER}pins.txt"
_MAP: Final = re.compile(rf"{FOLDER}(?:map|rodata)-(?!show\.json)(?P<which>.+)\.json")
_DEBUG: Final = re.compile(
    rf"{POLICY_DEBUG_FOLDER}(?P<interface>.+)(?P<behind>_(?:ingress|egress|xdp)_v(?P<family>[46])\.json)"
)
_DUMP_NAME: Final = re.compile(rf"(?P<before>{FOLDER}xlated-\d+-)(?P<name>.+)\.json")
INTERFACE_LENGTH: Final = 15
"""IFNAMSIZ without the end (Linux include/uapi/linux/if.h)."""


def is_taken(file: str) -> bool:
    """Whether a file of an eBPF node can be redacted at all."""
    return file in FILES or file == PINS or any(one.fullmatch(file) for one in (_MAP, _DEBUG, PROGRAM_DUMP))


class BpfRedactor:
    """Changes the files of one node."""

    def __init__(self, text: TextRedactor, numbers: NumberMap, tags: dict[str, str], evidence: NodeEvidence) -> None:
        """``tags`` gets what tags of programs become, of all nodes: several may share a kernel. Nothing is read yet."""
        self._text = text
        self._evidence = evidence
        self._tags = tags
        self._numbers = numbers
        self._entries = EntryRedactor(text, numbers)
        self._programs = ProgramRedactor(text, numbers)

    def prepare(self) -> None:
        """Read what decides how other files are changed: before anything is, and before `read_tags`."""
        self._text.fit(self._names, INTERFACE_LENGTH)

    @property
    def has_policies(self) -> bool:
        """Whether policy programs are loaded, of this node or of one that shares its kernel."""
        try:
            return any(POLICY_PROGRAM.fullmatch(info.name) for info in self._loaded.values())
        except EvidenceError:
            return False

    def read_tags(self) -> None:
        """Compute what the tags of policy programs become."""
        for file in self._evidence.files():
            found = _DEBUG.fullmatch(file)
            if found is None:
                continue
            try:
                self._tags.update(self._programs.tags(self._evidence.read(file), file, int(found["family"])))
            except EvidenceError:
                continue  # told where the file itself is left out

    def file_name(self, file: str) -> str:
        """What a file is called in the bundle."""
        if found := _DEBUG.fullmatch(file):
            return f"{POLICY_DEBUG_FOLDER}{self._text.text(found['interface'], is_name=True)}{found['behind']}"
        if found := _DUMP_NAME.fullmatch(file):
            return f"{found['before']}{self._listings.program(found['name'])}.json"
        return file

    def entries(self, info: MapInfo, batches: Iterator[RawEntries]) -> Iterator[RawEntries]:
        """Entries of a map. Raises `EvidenceError` for a map of unknown form."""
        return self._entries.batches(info, batches)

    def content(self, file: str, content: bytes) -> bytes:
        """What to write of a file. Raises `EvidenceError` for one that must be left out."""
        if file in FILES:
            return json.dumps(self._listings.listing(file, parse_json(content, file))).encode() + b"\n"
        if file == PINS:
            return self._listings.pins(content.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        if found := _MAP.fullmatch(file):
            return self._map(file, found["which"], content)
        if found := _DEBUG.fullmatch(file):
            return self._programs.debug_file(content, file, int(found["family"]))
        return self._dump(file, content)

    # ------------------------------------------------------------------------------------------------------ internals

    @cached_property
    def _listings(self) -> ListingRedactor:
        interfaces = {name: self._text.text(name, is_name=True) for name in self._names}
        return ListingRedactor(self._text, self._numbers, self._tags, interfaces)

    @cached_property
    def _names(self) -> Sequence[str]:
        """Interfaces that the node has, or had when Felix wrote of them."""
        names = [found["interface"] for file in self._evidence.files() if (found := _DEBUG.fullmatch(file))]
        try:
            links = decode_interfaces(self._evidence.read("ip-link.json"), "ip-link.json")
        except EvidenceError:
            links = ()
        return list(dict.fromkeys([*(link.name for link in links), *names]))

    @cached_property
    def _maps(self) -> Mapping[int, MapInfo]:
        return decode_maps(self._evidence.read(MAPS), MAPS)

    @cached_property
    def _loaded(self) -> Mapping[int, ProgramInfo]:
        return decode_programs(self._evidence.read(f"{FOLDER}prog-show.json"), "prog-show.json")

    def _map(self, file: str, which: str, content: bytes) -> bytes:
        found = [self._maps[int(which)]] if which.isdecimal() and int(which) in self._maps else []
        found += [info for info in self._maps.values() if info.name == which]
        distinct = {(info.type, info.key_size, info.value_size): info for info in found}
        # Values of per-CPU maps are filled up when they are read, so a larger map would take what is a smaller one's.
        forms = sorted(distinct.values(), key=lambda info: info.value_size)
        if not forms:
            raise EvidenceError("no map of that name or id is in map-show.json")
        for info in forms[:-1]:
            try:
                return self._written(info, content, file)
            except EvidenceError:
                continue  # the other map of that name is meant, or none
        return self._written(forms[-1], content, file)

    def _written(self, info: MapInfo, content: bytes, file: str) -> bytes:
        return b"".join(dump_json(self._entries.batches(info, decode_dump(content, info, file)), info))

    def _dump(self, file: str, content: bytes) -> bytes:
        found = PROGRAM_DUMP.fullmatch(file)
        info = self._loaded.get(int(found[1])) if found is not None else None
        policy = POLICY_PROGRAM.fullmatch(info.name) if info is not None else None
        if info is None or policy is None:
            raise EvidenceError("it is not known to be that of a policy program")
        maps = [self._maps[number] for number in info.map_ids if number in self._maps]
        roles = {MapReference("id", one.id): role for one in maps if (role := role_of_map(one.name)) is not None}
        return self._programs.dump(content, file, int(policy["family"]), _state_layout(maps), roles)


def _state_layout(maps: Sequence[MapInfo]) -> StateLayout:
    for info in maps:
        if role_of_map(info.name) is Role.STATE:
            return layout_of_size(info.value_size)
    raise EvidenceError("it names no state map")
