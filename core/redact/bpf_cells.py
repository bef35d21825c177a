"""What registers and the stack of a policy program hold, as far as `bpf_constants` has to tell it apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from calico_debug.model.bytecode import MapReference
from calico_debug.walk.bpf_state import StateLayout

ADDRESS_FIELDS: Final = ("ip_src", "ip_dst", "pre_nat_ip_dst", "post_nat_ip_dst", "tun_ip")
"""Fields of the state that hold addresses."""

REGISTERS: Final = 11
STACK_REGISTER: Final = 10
CALLER_SAVED: Final = range(1, 6)


class Base(Enum):
    """What a pointer points into."""

    STATE = "state"
    STACK = "stack"
    CONTEXT = "context"


@dataclass(frozen=True, slots=True)
class Pointer:
    """``offset`` in bytes, None when it is not known."""

    base: Base
    offset: int | None = 0


@dataclass(frozen=True, slots=True)
class MapPointer:
    """A map that is to be looked into."""

    reference: MapReference


@dataclass(frozen=True, slots=True)
class Constant:
    """A number that the instruction at ``slot`` holds, unsigned."""

    value: int
    slot: int


@dataclass(frozen=True, slots=True)
class Word:
    """32 bits of an address in the state: the address begins at ``start``, ``place`` counts its words."""

    start: int
    place: int


@dataclass(frozen=True, slots=True)
class Masked:
    """Some bits of a word, ``mask`` in network order."""

    word: Word
    mask: int


class Taint(Enum):
    """Anything else that is made of an address, or may be."""

    TAINT = "taint"


TAINT: Final = Taint.TAINT

Cell = Pointer | MapPointer | Constant | Word | Masked | Taint | None
"""What a register holds; None is a number that has nothing of an address."""


def is_address(cell: Cell) -> bool:
    """Whether bits of an address may be in it."""
    return isinstance(cell, Word | Masked | Taint)


@dataclass(slots=True)
class Machine:
    """``stack`` has the constants stored there as 32 bits, by offset. ``facts`` are words of addresses, by start and
    place, of which the bits of a mask are known to be a number where the code has come to: number and mask.
    """

    registers: list[Cell] = field(default_factory=lambda: [None] * REGISTERS)
    stack: dict[int, Constant] = field(default_factory=dict)
    facts: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)

    def copy(self) -> Machine:
        """The same, to go another way."""
        return Machine(list(self.registers), dict(self.stack), dict(self.facts))

    def merge(self, other: Machine) -> None:
        """What holds whichever way the code came."""
        for number, (ours, theirs) in enumerate(zip(self.registers, other.registers, strict=True)):
            if ours != theirs:
                self.registers[number] = TAINT if is_address(ours) or is_address(theirs) else None
        self.stack = {at: cell for at, cell in self.stack.items() if other.stack.get(at) == cell}
        self.facts = {at: value for at, value in self.facts.items() if other.facts.get(at) == value}

    def store(self, at: int, size: int, cell: Cell) -> None:
        """Write to the stack."""
        for overlapped in [place for place in self.stack if at - 4 < place < at + size]:
            del self.stack[overlapped]
        if size == 4 and isinstance(cell, Constant):
            self.stack[at] = cell


class Memory:
    """What loads of a policy program give."""

    def __init__(self, layout: StateLayout) -> None:
        """``layout`` is that of the state."""
        self._addresses = [layout.fields[name] for name in ADDRESS_FIELDS]
        self._others = [span for name, span in layout.fields.items() if name not in ADDRESS_FIELDS]

    def load(self, pointer: Cell, offset: int, size: int) -> Cell:
        """What is ``offset`` bytes behind a pointer."""
        if not isinstance(pointer, Pointer) or pointer.base is Base.STACK or pointer.offset is None:
            return TAINT
        if pointer.base is Base.CONTEXT:
            return None
        at = pointer.offset + offset
        for start, width in self._addresses:
            if start <= at < start + width and size == 4 and (at - start) % 4 == 0:
                return Word(start, (at - start) // 4)
        known = any(start <= at and at + size <= start + width for start, width in self._others)
        return None if known else TAINT


def moved(pointer: Cell, by: Cell, number: int) -> Cell:
    """A pointer with something added to it: ``number`` where that is constant."""
    if not isinstance(pointer, Pointer) or is_address(by):
        return TAINT
    known = isinstance(by, Constant) and pointer.offset is not None
    return Pointer(pointer.base, (pointer.offset or 0) + number if known else None)
