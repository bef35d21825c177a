"""What kept the rules of a tier from taking a packet, found by running each comparison of their bytecode on its own.

A policy program leaves a rule at the first comparison that fails (felix/bpf/polprog, writeRule). To know the others
the code of each is run from its beginning, with the packet's state and nothing else: they share no registers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from calico_debug.model.bytecode import JUMP, BytecodeError, Clause, Section, SectionKind
from calico_debug.walk.bpf_machine import Compiled, Execution
from calico_debug.walk.bpf_memory import Pointer
from calico_debug.walk.bpf_policy import ACTION_LABELS, PolicyMaps, PolicyProgram, PolicyRun
from calico_debug.walk.bpf_state import PolicyPacket, state_of
from calico_debug.walk.choices import Chooser
from calico_debug.walk.context import Undecided

if TYPE_CHECKING:
    from calico_debug.model.bytecode import Program

_BUDGET: Final = 100_000
"""Instructions of one comparison: networks and ports of a rule are not bounded."""
_STATE_REGISTER: Final = 9
_PROFILE: Final = "Profile"
_NO_MATCH: Final = "_no_match"


@dataclass(frozen=True, slots=True)
class MissedRule:
    """A rule that did not take the packet, and the clauses that failed, in the program's order."""

    section: Section
    failed: tuple[Clause, ...]


def missed_rules(
    program: PolicyProgram, run: PolicyRun, packet: PolicyPacket, maps: PolicyMaps, *, host: bool
) -> tuple[MissedRule, ...]:
    """The allowing rules of the tier at whose end a run was denied; none at all where any of them is not certain.

    ``packet`` is the one that was run, ``host`` says that the program is a host endpoint's. Nothing is certain for code
    without Felix's comments, for rules that are split over two parts, for host endpoints' tiers in a pod's program
    (whose direction is the host's), and for a comparison that depends on something open.
    """
    if run.end is None or not run.hits:
        return ()
    ended = run.hits[-1].section
    if ended is None or ended.kind is not SectionKind.END_OF_TIER:
        return ()
    if not host and _belongs_to_host(run.end):
        return ()
    found = []
    for section, places in reversed(_stretches(program, run.end, ended)):
        if section.action != "allow":
            continue
        failed = _failed(program, places, packet, maps)
        if not failed:
            return ()
        found.append(MissedRule(section, failed))
    return tuple(found)


_Place = tuple[Compiled, int]


def _stretches(program: PolicyProgram, end: _Place, ended: Section) -> list[tuple[Section, list[_Place]]]:
    """The rules of the tier before its end, last first, with their slots; none if they cannot be told from others."""
    found: list[tuple[Section, list[_Place]]] = []
    for part, slot in _backwards(program, end):
        section = part.program.sections.get(slot)
        if section is None or section is ended or section.kind is SectionKind.NO_PROFILE:
            continue
        if section.kind is not SectionKind.RULE or section.tier != ended.tier or section.owner == _PROFILE:
            break
        if found and _place(found[-1][0]) == _place(section):
            found[-1][1].insert(0, (part, slot))
        else:
            found.append((section, [(part, slot)]))
    names = [_place(section) for section, _ in found]
    return found if len(set(names)) == len(names) else []


def _place(section: Section) -> tuple[str, str, str, int]:
    return section.owner, section.namespace, section.name, section.index


def _backwards(program: PolicyProgram, end: tuple[Compiled, int]) -> Iterator[tuple[Compiled, int]]:
    last = next((number for number, part in enumerate(program.parts) if part is end[0]), -1)
    for number in range(last, -1, -1):
        part = program.parts[number]
        start = end[1] if number == last else len(part.program.instructions) - 1
        yield from ((part, slot) for slot in range(start, -1, -1))


def _belongs_to_host(end: tuple[Compiled, int]) -> bool:
    """Whether a tier stands before the place where a pod's program goes on when the host's policy has allowed."""
    part, slot = end
    return any(slot < target for target in _targets(part.program, "allowed_by_host_policy"))


def _targets(program: Program, label: str) -> Iterator[int]:
    for slot, name in program.targets.items():
        if name == label:
            yield slot + 1 + program.instructions[slot].offset


def _failed(program: PolicyProgram, places: list[_Place], packet: PolicyPacket, maps: PolicyMaps) -> tuple[Clause, ...]:
    """The clauses of a rule that fail; empty when that is not certain."""
    starts = [(part, slot) for part, slot in places if slot in part.program.clauses]
    if len({id(part) for part, _ in starts}) != 1:
        return ()
    part = starts[0][0]
    clauses = {slot: part.program.clauses[slot] for _, slot in starts}
    failed = []
    for start, clause in clauses.items():
        if not clause.kind:
            return ()
        holds = _holds(program, part, start, frozenset(clauses) - {start}, packet, maps)
        if holds is None:
            return ()
        if not holds:
            failed.append(clause)
    return tuple(failed)


def _holds(
    program: PolicyProgram,
    part: Compiled,
    start: int,
    others: frozenset[int],
    packet: PolicyPacket,
    maps: PolicyMaps,
) -> bool | None:
    targets, instructions = part.program.targets, part.program.instructions
    left = ""

    def stop(position: int, following: int) -> bool:
        nonlocal left
        jumped = instructions[position].code == JUMP or following != position + 1
        label = targets.get(position, "")
        if jumped and (label.endswith(_NO_MATCH) or label in ACTION_LABELS):
            left = label
            return True
        return following in others

    state = state_of(packet, program.layout)
    chooser = Chooser()
    execution = Execution(program.answers(state, maps), chooser, _BUDGET)
    try:
        execution.run_stretch(part, start, {_STATE_REGISTER: Pointer(state, 0)}, stop)
    except (BytecodeError, Undecided):
        return None
    return None if chooser.choices else not left.endswith(_NO_MATCH)
