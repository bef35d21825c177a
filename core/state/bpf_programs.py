"""Which programs a node's interfaces run, and through them which maps: from the attachments along the tail calls.

A kernel's lists of programs and maps can show more than one node's (nodes that share a kernel, leftovers of an older
Felix), and a pin can lead to a map that nothing uses any more. What attached programs reach is what decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from calico_debug.decode.bpf_globals import decode_tc_globals, decode_xdp_globals
from calico_debug.decode.bpf_layout_types import Role
from calico_debug.decode.bpf_layouts import identify
from calico_debug.decode.bpf_layouts_node import SUBPROGRAMS, TC_STRIDE, XDP_STRIDE
from calico_debug.errors import EvidenceError
from calico_debug.evidence.bpf import KernelMaps
from calico_debug.model.bpf import TcGlobals, XdpGlobals
from calico_debug.model.bpf_objects import Attachment, MapInfo, ProgramInfo
from calico_debug.model.bpf_words import JUMPS, POLICY_JUMP

TC_PREAMBLE, XDP_PREAMBLE = "cali_tc_preambl", "cali_xdp_preamb"
"""The first 15 characters, which is all that the kernel keeps of a name without BTF."""

DENY_ALL, ALLOW_ALL = "calico_tc_deny", "calico_tc_allow"
"""What a policy's slot holds until the real program is loaded (felix/dataplane/linux/bpf_ep_mgr.go)."""

CONNECT_PREFIXES = ("calico_connect_", "calico_sendmsg_", "calico_recvmsg_")

PROGRAM_ROLES = frozenset(
    {
        Role.PROGRAMS,
        Role.PROGRAMS_INGRESS,
        Role.PROGRAMS_EGRESS,
        Role.NETKIT_PROGRAMS_INGRESS,
        Role.NETKIT_PROGRAMS_EGRESS,
        Role.XDP_PROGRAMS,
    }
)
JUMP_ROLES = frozenset(
    {
        Role.JUMPS,
        Role.JUMPS_INGRESS,
        Role.JUMPS_EGRESS,
        Role.NETKIT_JUMPS_INGRESS,
        Role.NETKIT_JUMPS_EGRESS,
        Role.XDP_JUMPS,
    }
)
CONNECT_ROLES = frozenset({Role.CONNECT_PROGRAMS, Role.SENDMSG_PROGRAMS, Role.RECVMSG_PROGRAMS})

Globals = TcGlobals | XdpGlobals


@dataclass(frozen=True, slots=True)
class PolicyPrograms:
    """The policy that an interface runs at one hook for one IP version.

    ``index`` is its place in map ``jump_map`` (None: the chain has no policy), ``programs`` the program there with its
    sub-programs in order, empty when the slot is empty. ``placeholder`` is "deny" or "allow" while the slot holds one
    of Felix's default programs. ``problem`` says why it is not known whether there are programs, "" if it is.
    ``joint`` says that the jump map serves both hooks.
    """

    attachment: Attachment
    family: int
    index: int | None
    jump_map: int | None
    programs: tuple[int, ...] = ()
    placeholder: str = ""
    problem: str = ""
    joint: bool = False


class Reach:
    """What follows from a node's attachments. Problems met on the way are in `problems`, one sentence each."""

    def __init__(
        self,
        programs: Mapping[int, ProgramInfo],
        maps: Mapping[int, MapInfo],
        attachments: Sequence[Attachment],
        kernel: KernelMaps,
    ) -> None:
        """``attachments`` are this node's own; ``programs`` and ``maps`` may hold more."""
        self._programs = programs
        self._maps = maps
        self._kernel = kernel
        self._problems: dict[str, None] = {}
        self._slots: dict[tuple[int, int], int | None] = {}
        self._globals: dict[int, Mapping[int, Globals]] = {}
        self._unread: dict[int | tuple[int, int], str] = {}
        self.attachments = tuple(one for one in attachments if self.is_calico(one.program_id))

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be read so far."""
        return tuple(self._problems)

    def is_calico(self, program: int) -> bool:
        """Whether a program is Calico's entry to a hook, by its name or by the maps it uses."""
        info = self._programs.get(program)
        if info is None:
            return False
        if info.name.startswith((TC_PREAMBLE, XDP_PREAMBLE, *CONNECT_PREFIXES)):
            return True
        return any(identify(self._maps[number].name) for number in info.map_ids if number in self._maps)

    def globals(self, program: int) -> Mapping[int, Globals]:
        """A preamble's settings by IP version; empty when it has none or they cannot be read (see `problems`)."""
        if program not in self._globals:
            self._globals[program] = self._read_globals(program)
        return self._globals[program]

    def map_of(self, program: int, roles: frozenset[Role]) -> MapInfo | None:
        """The map with one of ``roles`` that a program names, None when there is none."""
        info = self._programs.get(program)
        for number in info.map_ids if info is not None else ():
            found = self._maps.get(number)
            place = identify(found.name) if found is not None else None
            if place is not None and place[0] in roles:
                return found
        return None

    def slot(self, info: MapInfo, index: int) -> int | None:
        """The program at ``index`` of a program array, None when the slot is empty or cannot be read."""
        key = (info.id, index)
        if key not in self._slots:
            self._slots[key] = self._read_slot(info, index)
        return self._slots[key]

    def families(self, attachment: Attachment) -> tuple[int, ...]:
        """IP versions that an interface's programs are loaded for; where that cannot be read, those of the maps."""
        settings = self.globals(attachment.program_id)
        if attachment.program_id in self._unread:
            places = [identify(found.name) for found in self._maps.values()]
            return tuple(sorted({place[1] for place in places if place is not None and place[0] is Role.CONNTRACK}))
        return tuple(family for family, found in settings.items() if found.jumps and found.jumps[0] is not None)

    def policy(self, attachment: Attachment, family: int) -> PolicyPrograms:
        """The policy at an attachment, along the preamble's settings and its jump map."""
        settings = self.globals(attachment.program_id).get(family)
        jumps = self.map_of(attachment.program_id, JUMP_ROLES) or self._later_jump_map(attachment, family)
        index = settings.jumps[POLICY_JUMP] if settings is not None else None
        if index is None or jumps is None:
            problem = self._unread.get(attachment.program_id, "")
            return PolicyPrograms(attachment, family, index, jumps.id if jumps else None, problem=problem)
        programs = self.subprograms(jumps, index)
        stride = self._stride(jumps)
        # A part that cannot be read is not the end of the policy
        problem = self._unread.get((jumps.id, index + len(programs) * stride), "")
        if problem:
            return PolicyPrograms(attachment, family, index, jumps.id, problem=problem)
        place = identify(jumps.name)
        joint = place is not None and place[0] is Role.JUMPS
        return PolicyPrograms(attachment, family, index, jumps.id, programs, self._placeholder(programs), joint=joint)

    def subprograms(self, jumps: MapInfo, index: int) -> tuple[int, ...]:
        """The program at ``index`` and the parts that a long policy was split into."""
        stride = self._stride(jumps)
        found: list[int] = []
        for part in range(SUBPROGRAMS):
            position = index + part * stride
            program = self.slot(jumps, position) if position < (jumps.max_entries or SUBPROGRAMS * stride) else None
            if program is None:
                break
            found.append(program)
        return tuple(found)

    @staticmethod
    def _stride(jumps: MapInfo) -> int:
        place = identify(jumps.name)
        return XDP_STRIDE if place is not None and place[0] is Role.XDP_JUMPS else TC_STRIDE

    @cached_property
    def by_attachment(self) -> Mapping[Attachment, frozenset[int]]:
        """Ids of the maps that the programs behind each attachment use."""
        return {one: frozenset(self._reach(one)) for one in self.attachments}

    @cached_property
    def map_ids(self) -> frozenset[int]:
        """Ids of every map that this node's programs use."""
        return frozenset().union(*self.by_attachment.values())

    # ------------------------------------------------------------------------------------------------------ internals

    def _reach(self, attachment: Attachment) -> Iterator[int]:
        for program in self._chain(attachment):
            info = self._programs.get(program)
            if info is not None:
                yield from info.map_ids

    def _chain(self, attachment: Attachment) -> Iterator[int]:
        yield attachment.program_id
        programs = self.map_of(attachment.program_id, PROGRAM_ROLES)
        if programs is not None:
            for settings in self.globals(attachment.program_id).values():
                for number, index in enumerate(settings.jumps[: 2 * len(JUMPS)]):
                    # Behind the numbers in use stand copies that log, whose second one is the policy again.
                    if index is not None and number != POLICY_JUMP and index < programs.max_entries:
                        found = self.slot(programs, index)
                        if found is not None:
                            yield found
            for family in self.globals(attachment.program_id):
                yield from self.policy(attachment, family).programs
        connect = self.map_of(attachment.program_id, CONNECT_ROLES)
        if connect is not None:
            found = self.slot(connect, 0)
            if found is not None:
                yield found

    def _later_jump_map(self, attachment: Attachment, family: int) -> MapInfo | None:
        """The jump map where the preamble itself does not name it: that of the program it leads to."""
        settings = self.globals(attachment.program_id).get(family)
        programs = self.map_of(attachment.program_id, PROGRAM_ROLES)
        first = settings.jumps[0] if settings is not None else None
        main = self.slot(programs, first) if programs is not None and first is not None else None
        return self.map_of(main, JUMP_ROLES) if main is not None else None

    def _placeholder(self, programs: tuple[int, ...]) -> str:
        info = self._programs.get(programs[0]) if programs else None
        return {DENY_ALL: "deny", ALLOW_ALL: "allow"}.get(info.name, "") if info is not None else ""

    def _read_slot(self, info: MapInfo, index: int) -> int | None:
        try:
            value = self._kernel.lookup(info, index.to_bytes(4, "little"))
        except EvidenceError as error:
            self._problems.setdefault(str(error))
            self._unread[info.id, index] = str(error)
            return None
        return int.from_bytes(value, "little") if value is not None else None

    def _read_globals(self, program: int) -> Mapping[int, Globals]:
        info = self._programs.get(program)
        if info is None or not info.name.startswith((TC_PREAMBLE, XDP_PREAMBLE)):
            return {}
        decode = decode_tc_globals if info.name.startswith(TC_PREAMBLE) else decode_xdp_globals
        for number in info.map_ids:
            found = self._maps.get(number)
            if found is None or not found.name.endswith(".rodata"):
                continue
            try:
                value = self._kernel.lookup(found, bytes(4))
                if value is not None:
                    return dict(decode(value))
            except (EvidenceError, ValueError) as error:
                self._unread[program] = f"settings of program {program} cannot be read: {error}"
                break
        else:
            self._unread[program] = f"program {program} ({info.name}) names no map with its settings"
        self._problems.setdefault(self._unread[program])
        return {}
