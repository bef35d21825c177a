"""A node's eBPF dataplane: programs, attachments, and its maps by what they are for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

from calico_debug.decode.bpf_globals import decode_timeouts
from calico_debug.decode.bpf_layout_types import MapLayout, Role
from calico_debug.decode.bpf_layouts import find_layout, identify, is_calico
from calico_debug.decode.bpf_maps import decode_entries, decode_value
from calico_debug.decode.bpftool import (
    decode_cgroups,
    decode_links,
    decode_maps,
    decode_net,
    decode_pins,
    decode_programs,
    decode_tcx,
)
from calico_debug.errors import EvidenceError, MissingEvidence
from calico_debug.evidence.bpf import KernelMaps, LiveMaps
from calico_debug.evidence.source import NodeEvidence
from calico_debug.model.bpf import UnknownEntry
from calico_debug.model.bpf_conntrack import CleanupTimeouts
from calico_debug.model.bpf_objects import Attachment, LinkInfo, MapInfo, ProgramInfo
from calico_debug.model.explanation import Finding
from calico_debug.state.bpf_programs import Reach
from calico_debug.state.bpf_recorded import FOLDER, RecordedMaps

Decoded = TypeVar("Decoded")

PINS = "/sys/fs/bpf/tc/globals/"
OLD_JUMPS = f"{PINS}old_jumps/"
"""Where Felix keeps the previous program arrays after a restart, until every interface runs new programs."""

CLEANUP_PROGRAM = "conntrack_clean"

PROGRAM_DUMP = re.compile(rf"{FOLDER}xlated-(\d+)(?:-.*)?\.json")


@dataclass(frozen=True, slots=True)
class ChosenMap:
    """The map that plays a role on this node. ``used`` is False when no attached program names it."""

    info: MapInfo
    layout: MapLayout
    used: bool = True


class BpfState:
    """What a node's kernel holds for Calico's eBPF dataplane, each part read and decoded once, when first asked for.

    Programs and maps raise `EvidenceError` when they cannot be had: nothing can be said without them. What else is
    missing or odd is in `findings`, which grows as parts are read.
    """

    def __init__(self, evidence: NodeEvidence, kernel: KernelMaps | None = None) -> None:
        """Nothing is read yet. ``kernel`` defaults to the live maps of the evidence, else to its dumps."""
        self._evidence = evidence
        if kernel is None:
            kernel = evidence.kernel_maps if isinstance(evidence, LiveMaps) else RecordedMaps(evidence)
        self.kernel = kernel
        self._findings: dict[Finding, None] = {}
        self._chosen: dict[tuple[Role, int], ChosenMap | None] = {}

    @property
    def name(self) -> str:
        """The node's name."""
        return self._evidence.name

    @property
    def origin(self) -> str:
        """Where its evidence is from, for messages."""
        return self._evidence.origin

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is missing, unknown or odd among the parts read so far."""
        return (
            *self._findings,
            *(Finding("bpf-unreadable", "warning", problem) for problem in self.reach.problems),
        )

    # ------------------------------------------------------------------------------------------- programs and maps

    @cached_property
    def programs(self) -> Mapping[int, ProgramInfo]:
        """Every program of the kernel, by id. Raises `EvidenceError`."""
        return self._decoded("prog-show.json", decode_programs)

    @cached_property
    def maps(self) -> Mapping[int, MapInfo]:
        """Every map of the kernel, by id; where nodes share a kernel, of all of them. Raises `EvidenceError`."""
        return self._decoded("map-show.json", decode_maps)

    @cached_property
    def links(self) -> Mapping[int, LinkInfo]:
        """Links by id; empty when evidence has none."""
        return self._optional("link-show.json", decode_links, {}, "links are not known")

    @cached_property
    def pins(self) -> Sequence[str]:
        """Paths in the bpffs; empty when evidence has none."""
        return self._optional("pins.txt", lambda data, _what: decode_pins(data), (), "pins are not known")

    @cached_property
    def attachments(self) -> tuple[Attachment, ...]:
        """Every program at a hook of this node's interfaces and cgroups, Calico's or not, in the order of running.

        Of two listings that name the same program at the same hook, one counts. Raises `EvidenceError` when neither
        ``net-show.json`` nor ``tcx-query.json`` is there.
        """
        found: dict[tuple[str, str, int, int, str], Attachment] = {}
        listings = (("tcx-query.json", decode_tcx), ("net-show.json", decode_net), ("cgroup-tree.json", decode_cgroups))
        missing: list[MissingEvidence] = []
        for file, decode in listings:
            try:
                listed = self._decoded(file, decode)
            except MissingEvidence as error:
                missing.append(error)
                continue
            for one in listed:
                found.setdefault((one.mechanism, one.hook, one.ifindex, one.program_id, one.place), one)
        if len(missing) == len(listings):
            raise missing[0]
        for absent in missing:
            self._note("bpf-attachments-incomplete", "warning", f"attachments may be incomplete: {absent}")
        return tuple(self._named(one) for one in found.values())

    @cached_property
    def reach(self) -> Reach:
        """What this node's own programs lead to. Raises `EvidenceError`."""
        return Reach(self.programs, self.maps, self.attachments, self.kernel)

    def calico_attachments(self, interface: str) -> Sequence[Attachment]:
        """Calico's programs at an interface's hooks. Raises `EvidenceError`."""
        return [one for one in self.reach.attachments if one.interface == interface]

    # ---------------------------------------------------------------------------------------------- maps by role

    def map(self, role: Role, family: int = 0) -> ChosenMap | None:
        """The map of a role, None when this node has none. ``family`` is 4 or 6, 0 for maps of both.

        It is the one that this node's programs use. Where none uses it (a feature that is off) it is taken from its
        pin, and `ChosenMap.used` is False. Raises `EvidenceError` when programs or maps cannot be read.
        """
        key = (role, family)
        if key not in self._chosen:
            self._chosen[key] = self._choose(role, family)
        return self._chosen[key]

    def entries(self, role: Role, family: int = 0) -> Iterator[Any]:
        """Every entry of a role's map, of the type that belongs to it (`calico_debug.decode.bpf_maps.BUILDERS`).

        Entries that cannot be decoded are left out and become one finding. Raises `EvidenceError` when the map cannot
        be read; a node without the map has no entries.
        """
        chosen = self.map(role, family)
        if chosen is None:
            return
        damaged = 0
        first = ""
        for entry in decode_entries(chosen.layout, chosen.info, self.kernel.batches(chosen.info)):
            if isinstance(entry, UnknownEntry):
                damaged += 1
                first = first or entry.why
                continue
            yield entry
        if damaged:
            self._note(
                "bpf-unknown-entries",
                "warning",
                f"{damaged} entries of map {chosen.info.name} on {self.name} cannot be decoded: {first}",
            )

    def entry(self, role: Role, family: int, key: bytes) -> Any | None:
        """The entry that a lookup with ``key`` finds, None without one or without the map. Raises `EvidenceError`."""
        chosen = self.map(role, family)
        value = self.kernel.lookup(chosen.info, key) if chosen is not None else None
        if chosen is None or value is None:
            return None
        try:
            return decode_value(chosen.layout, chosen.info, key, value)
        except ValueError as error:
            what = f"an entry of map {chosen.info.name} of {self.origin}"
            raise EvidenceError(f"{what} cannot be decoded: {error}; use a newer calico-debug") from None

    def lookup(self, map_id: int, key: bytes) -> bytes | None:
        """The value in the map that an instruction names by its id. Raises `EvidenceError`."""
        info = self.maps.get(map_id)
        if info is None:
            raise MissingEvidence(f"map {map_id} of {self.origin} is not in its list of maps: record both again")
        return self.kernel.lookup(info, key)

    @cached_property
    def timeouts(self) -> CleanupTimeouts | None:
        """Conntrack's timeouts as the clean-up program has them (v3.30 and later), None when they are not known."""
        conntrack = {chosen.info.id for family in (4, 6) if (chosen := self.map(Role.CONNTRACK, family)) is not None}
        for program in self.programs.values():
            if not program.name.startswith(CLEANUP_PROGRAM) or not conntrack & set(program.map_ids):
                continue
            for number in program.map_ids:
                info = self.maps.get(number)
                if info is None or not info.name.endswith(".rodata"):
                    continue
                try:
                    value = self.kernel.lookup(info, bytes(4))
                    return decode_timeouts(value) if value is not None else None
                except (EvidenceError, ValueError) as error:
                    self._note("bpf-unreadable", "info", f"conntrack's timeouts are not known: {error}")
        return None

    @cached_property
    def program_dumps(self) -> Mapping[int, str]:
        """Files with the instructions of loaded programs, by their ids; live evidence lists none and has them all."""
        found = {}
        for file in self._evidence.files():
            match = PROGRAM_DUMP.fullmatch(file)
            if match is not None:
                found[int(match[1])] = file
        return found

    def program_dump(self, number: int) -> bytes:
        """``bpftool -j prog dump xlated id … opcodes`` of a loaded program. Raises `EvidenceError`."""
        return self._evidence.read(self.program_dumps.get(number, f"{FOLDER}xlated-{number}.json"))

    def check_maps(self) -> None:
        """Look at every map of Calico's that programs use, and at the pins, and add what is odd to `findings`."""
        for number in sorted(self.reach.map_ids):
            info = self.maps.get(number)
            if info is None:
                self._note("bpf-map-gone", "warning", f"map {number}, used by programs of {self.name}, is not listed")
            elif is_calico(info.name):
                layout = find_layout(info)
                if isinstance(layout, str):
                    self._note("bpf-unknown-map", "warning", f"map {info.name} of {self.name} {layout}")
        self._check_pins()

    # ------------------------------------------------------------------------------------------------------ internals

    def _choose(self, role: Role, family: int) -> ChosenMap | None:
        uses: Counter[int] = Counter()
        for numbers in self.reach.by_attachment.values():
            uses.update(number for number in numbers if self._plays(number, role, family))
        if uses:
            ranked = sorted(uses, key=lambda number: (self._version(number), uses[number], number), reverse=True)
            self._tell_several(ranked, role)
            return self._first_known(ranked, True)
        pinned = {path.removeprefix(PINS) for path in self.pins if path.startswith(PINS)}
        listed = [number for number in self.maps if self._plays(number, role, family)]
        if pinned:
            listed = [number for number in listed if self.maps[number].name in pinned]
        return self._first_known(sorted(listed, key=lambda n: (self._version(n), n), reverse=True), False)

    def _first_known(self, numbers: Sequence[int], used: bool) -> ChosenMap | None:
        for number in numbers:
            layout = find_layout(self.maps[number])
            if not isinstance(layout, str):
                return ChosenMap(self.maps[number], layout, used)
            self._note("bpf-unknown-map", "warning", f"map {self.maps[number].name} of {self.name} {layout}")
        return None

    def _plays(self, number: int, role: Role, family: int) -> bool:
        info = self.maps.get(number)
        place = identify(info.name) if info is not None else None
        return place is not None and place[:2] == (role, family)

    def _version(self, number: int) -> int:
        place = identify(self.maps[number].name)
        return place[2] if place is not None else 0

    def _tell_several(self, numbers: Sequence[int], role: Role) -> None:
        if len(numbers) > 1:
            names = ", ".join(f"{self.maps[number].name} (id {number})" for number in numbers)
            self._note(
                "bpf-several-maps",
                "warning",
                f"programs of {self.name} use several maps of {role.value}: {names}; Felix is replacing its "
                "programs or failed to, and the first is taken: look at the log of calico-node",
            )

    def _check_pins(self) -> None:
        for path in self.pins:
            name = path.removeprefix(PINS)
            if path == OLD_JUMPS.rstrip("/") or not path.startswith(PINS):
                continue
            if path.startswith(OLD_JUMPS):
                self._note(
                    "bpf-old-programs",
                    "info",
                    f"{OLD_JUMPS} exists on {self.name}: Felix has restarted and not yet reprogrammed every interface",
                )
            elif name.endswith("_old"):
                self._note(
                    "bpf-map-migration",
                    "warning",
                    f"{path} exists on {self.name}: Felix is copying that map into a new one, or died while doing so",
                )
            elif (used := self._used_instead(name)) is not None:
                self._note(
                    "bpf-leftover-map",
                    "info",
                    f"{path} on {self.name} is of another release; the programs use {used}",
                )

    def _used_instead(self, name: str) -> str | None:
        """The name of the map that programs use for the role of a pinned one, when it is another version's."""
        place = identify(name)
        chosen = self.map(*place[:2]) if place is not None else None
        return chosen.info.name if chosen is not None and chosen.used and chosen.info.name != name else None

    def _named(self, attachment: Attachment) -> Attachment:
        """With the program's full name, and the link where the listing of attachments does not tell."""
        info = self.programs.get(attachment.program_id)
        link = attachment.link_id
        if link is None and attachment.mechanism == "tcx":
            links = [one.id for one in self.links.values() if one.program_id == attachment.program_id]
            link = links[0] if len(links) == 1 else None
        return replace(attachment, name=info.name if info is not None else attachment.name, link_id=link)

    def _note(self, code: str, severity: str, message: str) -> None:
        self._findings.setdefault(Finding(code, severity, message))

    def _decoded(self, file: str, decode: Callable[[bytes, str], Decoded]) -> Decoded:
        name = f"{FOLDER}{file}"
        return decode(self._evidence.read(name), f"{name} of {self.origin}")

    def _optional(
        self, file: str, decode: Callable[[bytes, str], Decoded], absent: Decoded, consequence: str
    ) -> Decoded:
        try:
            return self._decoded(file, decode)
        except EvidenceError as error:
            self._note("bpf-unreadable", "info", f"{consequence}: {error}")
            return absent
