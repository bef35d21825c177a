"""Which constants of a policy program stand for networks, IP sets and rules, by following what the code does with them.

Felix's policy programs (felix/bpf/polprog/pol_prog_builder.go, v3.28 to master) jump forward only. They load a word of
an address from the state, mask it, and compare it (writeCIDRSMatch); build the key of an IP set on the stack
(setUpIPSetKey); and store ids of rules into the state (writeRecordRuleID). A program that does anything else with an
address, or that holds a large number which none of that explains, is refused: it may hold an address.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Final, NoReturn

from calico_debug.decode.bpf_instructions import byte_swapped
from calico_debug.decode.bpf_layouts_node import JUMP_SLOTS
from calico_debug.errors import EvidenceError
from calico_debug.model.bytecode import (
    CALL,
    EXIT,
    JUMP,
    JUMP_LONG,
    LOAD_WIDE,
    MAP,
    MAP_VALUE,
    PLAIN,
    SECOND_HALF,
    Instruction,
    MapReference,
    Program,
)
from calico_debug.redact.bpf_cells import (
    CALLER_SAVED,
    STACK_REGISTER,
    TAINT,
    Base,
    Cell,
    Constant,
    Machine,
    MapPointer,
    Masked,
    Memory,
    Pointer,
    Word,
    is_address,
    moved,
)
from calico_debug.walk.bpf_roles import Role, inferred_roles
from calico_debug.walk.bpf_state import StateLayout

LARGEST_PLAIN: Final = 0xFFFF
"""Constants up to here may be anything that is not compared with an address: ports, offsets, indexes."""

_CLASS, _SOURCE, _OPERATION, _MODE, _SIZE = 0x07, 0x08, 0xF0, 0xE0, 0x18
_LOAD, _STORE_IMMEDIATE, _STORE, _ALU32, _JUMP, _JUMP32, _ALU64 = 1, 2, 3, 4, 5, 6, 7
_MEMORY: Final = 0x60
_SIZES: Final = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
_ADD, _AND, _MOVE = 0x00, 0x50, 0xB0
_EQUAL, _NOT_EQUAL = 0x10, 0x50
_WORD_MASK: Final = 0xFFFFFFFF
_SET_ID: Final = (4, 8)
"""Where the halves of an IP set's id are in the key (felix/bpf-gpl/policy.h)."""


class ShapeError(EvidenceError):
    """A program that is not understood well enough to be changed."""


@dataclass(frozen=True, slots=True)
class NetworkWord:
    """Word ``place`` of a network's address, in the order of bytes in the packet. What follows the word is zero."""

    network: IPv4Network | IPv6Network
    place: int


@dataclass(slots=True)
class Constants:
    """By the slot of the instruction that holds them: words of networks, halves of IP sets' ids, ids of rules."""

    words: dict[int, NetworkWord] = field(default_factory=dict)
    set_halves: dict[int, tuple[int, int]] = field(default_factory=dict)
    """The id, and 0 for the half that is first in memory, else 1."""
    rules: dict[int, int] = field(default_factory=dict)
    harmless: set[int] = field(default_factory=set)
    """Masks of networks, and indexes of tail calls."""

    def explains(self, slot: int) -> bool:
        """Whether the meaning of the number there is known."""
        return slot in self.words or slot in self.set_halves or slot in self.rules or slot in self.harmless


def constants_of(
    program: Program, family: int, layout: StateLayout, roles: Mapping[MapReference, Role] | None = None
) -> Constants:
    """The constants of a policy program for IP version ``family``; ``roles`` are those of maps, as far as known.

    Raises `ShapeError` when not all of it is understood.
    """
    reader = _Reader(program, family, layout, inferred_roles(program, layout) | dict(roles or {}))
    reader.read()
    return reader.found


class _Reader:
    def __init__(self, program: Program, family: int, layout: StateLayout, roles: Mapping[MapReference, Role]) -> None:
        self.found = Constants()
        self._instructions = program.instructions
        self._space = program.space
        self._name = program.name
        self._words = 1 if family == 4 else 4
        self._roles = roles
        self._memory = Memory(layout)
        self._waiting: dict[int, Machine] = {}
        self._slot = 0

    def read(self) -> None:
        start = Machine()
        start.registers[1] = Pointer(Base.CONTEXT)
        start.registers[STACK_REGISTER] = Pointer(Base.STACK)
        self._waiting[0] = start
        for slot, one in enumerate(self._instructions):
            machine = self._waiting.pop(slot, None)
            self._slot = slot
            if machine is not None:
                self._step(one, machine)
            elif one.code & _CLASS in (_JUMP, _JUMP32) and one.code & _OPERATION in (_EQUAL, _NOT_EQUAL):
                if one.immediate:
                    self._refuse("is a comparison that is never reached")
        for slot, one in enumerate(self._instructions):
            self._slot = slot
            self._account(slot, one)

    def _account(self, slot: int, one: Instruction) -> None:
        if one.code in (CALL, SECOND_HALF) or self.found.explains(slot):
            return
        if one.code == LOAD_WIDE and one.source in (MAP, MAP_VALUE):
            return
        if not -LARGEST_PLAIN <= one.immediate <= LARGEST_PLAIN:
            self._refuse(f"holds a number whose meaning is not known ({one.immediate:#x})")

    def _refuse(self, why: str) -> NoReturn:
        raise ShapeError(f"{self._name}: instruction {self._slot} {why}, so it may hold an address")

    def _go(self, target: int, machine: Machine) -> None:
        if not self._slot < target < len(self._instructions):
            self._refuse("jumps where no policy program jumps")
        known = self._waiting.get(target)
        if known is None:
            self._waiting[target] = machine
        else:
            known.merge(machine)

    # ---------------------------------------------------------------------------------------------------- instructions

    def _step(self, one: Instruction, machine: Machine) -> None:
        kind, registers = one.code & _CLASS, machine.registers
        following = self._slot + 1
        if one.code == LOAD_WIDE:
            registers[one.destination] = self._wide(one)
            following += 1
        elif kind == _LOAD and one.code & _MODE == _MEMORY:
            size = _SIZES[one.code & _SIZE]
            registers[one.destination] = self._memory.load(registers[one.source], one.offset, size)
        elif kind in (_STORE, _STORE_IMMEDIATE) and one.code & _MODE == _MEMORY:
            self._store(one, machine, kind)
        elif kind in (_ALU32, _ALU64):
            registers[one.destination] = self._alu(one, machine, kind)
        elif kind in (_JUMP, _JUMP32):
            self._jump(one, machine)
            return
        else:
            self._refuse("is none that policy programs have")
        self._go(following, machine)

    def _wide(self, one: Instruction) -> Cell:
        if one.source == PLAIN:
            return Constant(one.immediate, self._slot)
        if one.source == MAP:
            return MapPointer(MapReference(self._space, one.immediate & _WORD_MASK))
        if one.source != MAP_VALUE:
            self._refuse("loads what no policy program loads")
        return TAINT

    def _store(self, one: Instruction, machine: Machine, kind: int) -> None:
        pointer, size = machine.registers[one.destination], _SIZES[one.code & _SIZE]
        cell: Cell = machine.registers[one.source]
        if kind == _STORE_IMMEDIATE:
            cell = Constant(one.immediate & _WORD_MASK, self._slot)
        if not isinstance(pointer, Pointer):
            return
        if pointer.base is Base.STACK and pointer.offset is not None:
            machine.store(pointer.offset + one.offset, size, cell)
        elif pointer.base is Base.STATE and size == 8 and isinstance(cell, Constant):
            if self._instructions[cell.slot].code == LOAD_WIDE:
                self.found.rules[cell.slot] = cell.value

    def _alu(self, one: Instruction, machine: Machine, kind: int) -> Cell:
        operation, old = one.code & _OPERATION, machine.registers[one.destination]
        given: Cell = Constant(one.immediate & _WORD_MASK, self._slot)
        if one.code & _SOURCE:
            given = machine.registers[one.source]
        if operation == _MOVE:
            if one.offset or (kind == _ALU32 and isinstance(given, Pointer)):
                return TAINT if is_address(given) else None
            return given
        if operation == _ADD and kind == _ALU64 and (isinstance(old, Pointer) or isinstance(given, Pointer)):
            by = given if isinstance(old, Pointer) else old
            number = by.value if one.code & _SOURCE and isinstance(by, Constant) else one.immediate
            return moved(old if isinstance(old, Pointer) else given, by, number)
        if operation == _AND and kind == _ALU32 and one.code & _SOURCE:
            for word, mask in ((old, given), (given, old)):
                if isinstance(word, Word) and isinstance(mask, Constant):
                    self.found.harmless.add(mask.slot)
                    return Masked(word, byte_swapped(mask.value))
        return TAINT if is_address(old) or is_address(given) else None

    def _jump(self, one: Instruction, machine: Machine) -> None:
        following, target = self._slot + 1, self._slot + 1 + one.offset
        if one.code == EXIT:
            return
        if one.code == CALL:
            self._call(one, machine)
            self._go(following, machine)
            return
        if one.code == JUMP:
            self._go(target, machine)
            return
        if one.code == JUMP_LONG:
            self._go(following + one.immediate, machine)
            return
        cell, operation = machine.registers[one.destination], one.code & _OPERATION
        with_register = bool(one.code & _SOURCE)
        other = machine.copy()
        if isinstance(cell, Masked) and operation in (_EQUAL, _NOT_EQUAL) and not with_register:
            equal = other if operation == _EQUAL else machine
            self._compare(cell, one.immediate, equal)
        elif is_address(cell) or (with_register and is_address(machine.registers[one.source])):
            self._refuse("compares an address in another way than policy programs do")
        self._go(target, other)
        self._go(following, machine)

    def _call(self, one: Instruction, machine: Machine) -> None:
        if one.source != PLAIN:
            self._refuse("calls a function, which no policy program does")
        registers = machine.registers
        result: Cell = None
        if one.helper == "bpf_map_lookup_elem":
            looked, key = registers[1], registers[2]
            if not isinstance(looked, MapPointer):
                self._refuse("looks into an unknown map")
            if self._roles.get(looked.reference) is Role.STATE:
                result = Pointer(Base.STATE)
            else:
                self._key(key, machine)
        elif one.helper == "bpf_tail_call":
            index = registers[3]
            if isinstance(index, Constant) and index.value < JUMP_SLOTS:
                self.found.harmless.add(index.slot)
        for number in CALLER_SAVED:
            registers[number] = None
        registers[0] = result

    # ------------------------------------------------------------------------------------------------------- meanings

    def _key(self, pointer: Cell, machine: Machine) -> None:
        """The key of an IP set on the stack."""
        if not isinstance(pointer, Pointer) or pointer.base is not Base.STACK or pointer.offset is None:
            self._refuse("looks up a key that is not on the stack")
        halves = [machine.stack.get(pointer.offset + at) for at in _SET_ID]
        if any(half is None for half in halves):
            self._refuse("looks into an IP set whose id is not known")
        known = [half for half in halves if half is not None]
        number = int.from_bytes(b"".join(half.value.to_bytes(4, "little") for half in known))
        for place, half in enumerate(known):
            if self.found.set_halves.setdefault(half.slot, (number, place)) != (number, place):
                self._refuse("looks into two IP sets whose ids share a half")

    def _compare(self, cell: Masked, immediate: int, equal: Machine) -> None:
        """A word of a network; on the way where it is ``equal`` the word is known from here on."""
        start, place, mask = cell.word.start, cell.word.place, cell.mask
        value, ones = byte_swapped(immediate & _WORD_MASK), mask.bit_count()
        if mask != _WORD_MASK << (32 - ones) & _WORD_MASK or value & ~mask:
            self._refuse("compares bits of an address that are no network's")
        before = [equal.facts.get((start, number)) for number in range(place)]
        length, number = 0, 0
        for count, fact in enumerate((*before, (value, mask))):
            if fact is None or place >= self._words or (length < 32 * count and fact[1]):
                self._refuse("compares a word of an address without those before it")
            length, number = length + fact[1].bit_count(), number << 32 | fact[0]
        rest = 32 * (self._words - place - 1)
        kind = IPv4Network if self._words == 1 else IPv6Network
        found = NetworkWord(kind((number << rest, length)), place)
        if self.found.words.setdefault(self._slot, found) != found:
            self._refuse("compares an address with a word of several networks")
        equal.facts[start, place] = value, mask
