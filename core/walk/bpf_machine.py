"""A small eBPF machine: runs a program over memory of which parts may be open.

It takes what the kernel takes (Linux Documentation/bpf/standardization/instruction-set.rst) and is stricter nowhere a
verified program could notice. What the kernel's verifier would have refused ends a run with a `BytecodeError`; what
cannot be known ends it as `Undecided`; where only a branch is open, the chooser picks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from calico_debug.model.bytecode import MAX_INSTRUCTIONS, BytecodeError, MapReference, Program
from calico_debug.walk.bpf_branches import Branches
from calico_debug.walk.bpf_memory import Pointer, Region
from calico_debug.walk.bpf_values import Number, Unsettled
from calico_debug.walk.choices import Chooser, Unsure
from calico_debug.walk.context import Undecided

STACK_BYTES: Final = 512
MAX_CALL_FRAMES: Final = 8
MAX_TAIL_CALLS: Final = 33
"""Linux include/linux/bpf.h MAX_TAIL_CALL_CNT and bpf_verifier.h MAX_CALL_FRAMES; filter.h MAX_BPF_STACK."""
BUDGET: Final = 1_000_000
"""Instructions of one run, sub-programs and tail calls included."""

Cell = int | Unsettled | Pointer | MapReference | None
"""What a register holds; None before anything was written to it."""
Step = Callable[[list[Cell], "Execution"], int]
_EXITED: Final = -1
OPEN_HELPERS: Final[Mapping[str, str]] = {
    "bpf_ktime_get_ns": "the time of the packet",
    "bpf_ktime_get_boot_ns": "the time of the packet",
    "bpf_get_prandom_u32": "a random number",
    "bpf_get_smp_processor_id": "the CPU that handles the packet",
    "bpf_trace_printk": "what a log call returns",
    "bpf_trace_vprintk": "what a log call returns",
}
"""Helpers without an effect on a verdict, and what is open about their result."""


@dataclass(frozen=True, slots=True)
class Left:
    """A tail call to a program that is not followed: the map, and the index unless that is open."""

    reference: MapReference
    index: int | None


@dataclass(frozen=True, slots=True)
class Doubtful:
    """A look-up that depends on something open: ``region`` if it finds anything."""

    region: Region
    doubt: Unsure


class Maps(Protocol):
    """What a run asks about maps. Each method may raise `Undecided`, naming the map."""

    def sizes(self, reference: MapReference) -> tuple[int, int]:
        """Bytes of a key and of a value."""

    def lookup(self, reference: MapReference, key: bytes, known: bytes) -> Region | Doubtful | None:
        """The value under a key of which the bits in ``known`` are known; None if there is none."""

    def update(self, reference: MapReference, key: bytes, value: bytes, flags: int, /) -> int:
        """Store a value; 0, or a negative error number, as the helper returns it."""

    def delete(self, reference: MapReference, key: bytes, /) -> int:
        """Remove a value; 0, or a negative error number."""

    def jump(self, reference: MapReference, index: int | None) -> Compiled | Left | None:
        """The program behind a tail call, how the run leaves, or None if nothing is there. ``index`` None is open."""

    def value(self, reference: MapReference, offset: int, /) -> Pointer:
        """The address of a value that the program names without a look-up."""


class Compiled:
    """A program ready to run: one step for each slot."""

    __slots__ = ("name", "program", "steps")

    def __init__(self, program: Program, steps: Sequence[Step]) -> None:
        """Made by `bpf_compile.compiled`."""
        self.program = program
        self.steps = steps
        self.name = program.name or "the program"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: with the value of register 0, or by leaving (``left``) for another program.

    ``trace`` lists, program by program, the slots that ran, in order.
    """

    result: Number | None
    left: Left | None
    trace: tuple[tuple[Compiled, Sequence[int]], ...]


class Execution:
    """One run's registers, memory and assumptions."""

    __slots__ = ("_budget", "_frames", "_regions", "_tail_calls", "branches", "left", "maps", "next", "registers")

    def __init__(self, maps: Maps, chooser: Chooser, budget: int) -> None:
        """An execution runs one packet."""
        self.maps = maps
        self.branches = Branches(chooser)
        self.left: Left | None = None
        self.next: Compiled | None = None
        self.registers: list[Cell] = [None] * 11
        self._frames: list[tuple[int, list[Cell]]] = []
        self._budget = budget
        self._regions = 0
        self._tail_calls = 0

    def run(self, program: Compiled, context: Region) -> Outcome:
        """Run to the end. Raises `BytecodeError`, or `Undecided`."""
        trace: list[tuple[Compiled, Sequence[int]]] = []
        current: Compiled | None = program
        while current is not None:
            self.registers[:] = [None] * 11
            self.registers[1] = Pointer(context, 0)
            self.registers[10] = self._stack()
            self._frames.clear()
            self.next = None
            slots: list[int] = []
            trace.append((current, slots))
            self._run_one(current, slots)
            current = self.next
        result = self.registers[0]
        if self.left is None and not isinstance(result, int | Unsettled):
            raise BytecodeError(f"{trace[-1][0].name}: it ends without a result in register 0")
        return Outcome(result if isinstance(result, int | Unsettled) else None, self.left, tuple(trace))

    def _run_one(self, program: Compiled, slots: list[int]) -> None:
        steps, registers, note = program.steps, self.registers, slots.append
        position, budget = 0, self._budget
        try:
            while position >= 0:
                if budget <= 0:
                    raise BytecodeError("it does not end: an endless loop, or more than the kernel would run")
                budget -= 1
                note(position)
                position = steps[position](registers, self)
        except BytecodeError as error:
            raise BytecodeError(f"{program.name}: instruction {slots[-1]}: {error}") from None
        self._budget = budget

    def run_stretch(
        self, program: Compiled, start: int, registers: Mapping[int, Cell], stop: Callable[[int, int], bool]
    ) -> int:
        """Run from a slot in the middle, with these registers and a stack, until a step (its slot, the next one) stops.

        Returns the slot of that step. Raises as `run`, and `BytecodeError` when the program ends before.
        """
        self.registers[:] = [registers.get(number) for number in range(11)]
        self.registers[10] = self._stack()
        position, budget = start, self._budget
        while budget > 0:
            budget -= 1
            following = program.steps[position](self.registers, self)
            if stop(position, following):
                return position
            if following < 0:
                raise BytecodeError(f"{program.name}: it ends at instruction {position}")
            position = following
        raise BytecodeError(f"{program.name}: it does not get on from instruction {start}")

    def _stack(self) -> Pointer:
        self._regions += 1
        stack = Region(f"stack {self._regions}", bytes(STACK_BYTES), known=False, aligned=True)
        return Pointer(stack, STACK_BYTES)

    def enter(self, position: int, target: int) -> int:
        """Call a function of the program: registers 6 to 9 and the stack are the caller's afterwards."""
        if len(self._frames) + 1 >= MAX_CALL_FRAMES:
            raise BytecodeError(f"calls are nested more than {MAX_CALL_FRAMES} deep")
        self._frames.append((position + 1, self.registers[6:]))
        self.registers[6:] = [None] * 4 + [self._stack()]
        return target

    def exit(self) -> int:
        """Return from a function, or end the program."""
        if not self._frames:
            return _EXITED
        position, saved = self._frames.pop()
        self.registers[6:] = saved
        self.registers[1:6] = [None] * 5
        return position

    def call(self, helper: str, number: int, position: int) -> int:
        """Call a helper of the kernel."""
        registers = self.registers
        if helper == "bpf_map_lookup_elem":
            registers[0] = self._lookup()
        elif helper == "bpf_tail_call":
            if self._tail_call():
                return _EXITED
            registers[0] = self.open_number("what a tail call that fails leaves behind")
        elif helper == "bpf_map_update_elem":
            registers[0] = self._update()
        elif helper == "bpf_map_delete_elem":
            reference = self._map(1)
            key, _ = self._settled_bytes(2, self.maps.sizes(reference)[0], "a key")
            registers[0] = self.maps.delete(reference, key) & ((1 << 64) - 1)
        elif helper in OPEN_HELPERS:
            registers[0] = self.open_number(OPEN_HELPERS[helper])
        else:
            what = helper or (
                f"number {number}" if number else "whose name the kernel hides (sysctl kernel.kptr_restrict)"
            )
            raise Undecided(f"the program calls helper {what}, which is not understood")
        registers[1:6] = [None] * 5
        return position + 1

    def open_number(self, why: str) -> Unsettled:
        """A number nothing is known of, equal to no other."""
        self._regions += 1
        return Unsettled(0, (1 << 64) - 1, why, ("open", self._regions))

    def _map(self, register: int) -> MapReference:
        reference = self.registers[register]
        if not isinstance(reference, MapReference):
            raise BytecodeError(f"register {register} is no map")
        return reference

    def _bytes(self, register: int, size: int, what: str) -> tuple[bytes, bytes]:
        pointer = self.registers[register]
        if not isinstance(pointer, Pointer):
            raise BytecodeError(f"register {register} does not point at {what}")
        region, start = pointer.region, pointer.offset
        if start < 0 or start + size > len(region.data):
            raise BytecodeError(
                f"{what} of {size} bytes at {region.name}{start:+d}, which has {len(region.data)} bytes"
            )
        return bytes(region.data[start : start + size]), bytes(region.known[start : start + size])

    def _settled_bytes(self, register: int, size: int, what: str) -> tuple[bytes, bytes]:
        data, known = self._bytes(register, size, what)
        if known.count(0xFF) != size:
            raise Undecided(f"the program writes a map with {what} that is not fully known")
        return data, known

    def _lookup(self) -> Cell:
        reference = self._map(1)
        key, known = self._bytes(2, self.maps.sizes(reference)[0], "a key")
        found = self.maps.lookup(reference, key, known)
        if isinstance(found, Doubtful):
            settled = bytes(octet & bits for octet, bits in zip(key, known, strict=True))
            found = found.region if self.branches.ask((reference, settled, known), found.doubt.why) else None
        return Pointer(found, 0) if found is not None else 0

    def _update(self) -> int:
        reference = self._map(1)
        key_size, value_size = self.maps.sizes(reference)
        key, _ = self._settled_bytes(2, key_size, "a key")
        value, _ = self._settled_bytes(3, value_size, "a value")
        flags = self.registers[4]
        if not isinstance(flags, int):
            raise Undecided("the program updates a map with flags that are not known")
        return self.maps.update(reference, key, value, flags) & ((1 << 64) - 1)

    def _tail_call(self) -> bool:
        reference = self._map(2)
        index = self.registers[3]
        if not isinstance(index, int | Unsettled):
            raise BytecodeError("register 3 is no index for a tail call")
        if self._frames:
            raise Undecided("the program makes a tail call inside a function, which is not understood")
        if self._tail_calls >= MAX_TAIL_CALLS:
            return False
        target = self.maps.jump(reference, index & 0xFFFFFFFF if isinstance(index, int) else None)
        if target is None:
            return False
        self._tail_calls += 1
        if isinstance(target, Left):
            self.left = target
        else:
            self.next = target
        return True


def execute(program: Compiled, context: Region, maps: Maps, chooser: Chooser, budget: int = BUDGET) -> Outcome:
    """Run a program over a context.

    Raises `BytecodeError` for what no verified program does and for a run of more than ``budget`` instructions,
    `Undecided` where something that decides is neither known nor a matter of one branch.
    """
    if len(program.steps) > MAX_INSTRUCTIONS:
        raise BytecodeError(f"{program.name}: more than {MAX_INSTRUCTIONS} instructions")
    return Execution(maps, chooser, budget).run(program, context)
