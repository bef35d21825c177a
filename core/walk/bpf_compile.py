"""From instructions to steps: one closure a slot, made once and run for many packets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

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
    BytecodeError,
    Instruction,
    MapReference,
    Program,
)
from calico_debug.walk.bpf_branches import CONDITIONS, EQUAL, UNEQUAL, condition
from calico_debug.walk.bpf_machine import Cell, Compiled, Execution, Step
from calico_debug.walk.bpf_memory import Pointer
from calico_debug.walk.bpf_values import (
    MASK64,
    Number,
    Unsettled,
    alu,
    combined,
    extend,
    extended,
    swap,
    swap_open,
    truncated,
)
from calico_debug.walk.context import Undecided

_SIZES: Final = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
_LOAD, _LOAD_REGISTER, _STORE, _STORE_REGISTER = 0, 1, 2, 3
_ALU32, _JUMPS, _JUMPS32, _ALU64 = 4, 5, 6, 7
_MEMORY, _MEMORY_SIGNED, _ATOMIC = 0x60, 0x80, 0xC0
_NEGATE, _MOVE, _ENDIAN = 0x80, 0xB0, 0xD0
_NO_SPECULATION: Final = 0xC0
"""BPF_ST | BPF_NOSPEC: a barrier that the verifier puts into loaded programs."""
_PER_CPU: Final = -1
"""``offset`` of a move that turns the address of a per-CPU value into this CPU's (filter.h BPF_ADDR_PERCPU)."""
_FETCH: Final = 0x01
_ATOMIC_OPERATIONS: Final = {0x00: 0x00, 0x40: 0x40, 0x50: 0x50, 0xA0: 0xA0}
_EXCHANGE, _COMPARE_EXCHANGE = 0xE1, 0xF1


def compiled(program: Program) -> Compiled:
    """The steps of a program. Raises `BytecodeError` for a bad jump, register or end; what is unknown, when it runs."""
    name = program.name or "the program"
    if not program.instructions:
        raise BytecodeError(f"{name}: it has no instructions; record it again")
    steps = []
    for position, instruction in enumerate(program.instructions):
        try:
            steps.append(_step(program, position, instruction))
        except BytecodeError as error:
            raise BytecodeError(f"{name}: instruction {position}: {error}") from None
    steps.append(_refusing("the program runs beyond its last instruction"))
    return Compiled(program, steps)


def _step(program: Program, position: int, one: Instruction) -> Step:
    if one.destination > 10 or (one.source > 10):
        raise BytecodeError(f"no register has number {max(one.destination, one.source)}")
    family = one.code & 7
    if one.code == LOAD_WIDE:
        return _wide(program, position, one)
    if one.code == SECOND_HALF:
        return _refusing("a jump into the middle of a 64-bit number")
    if one.code == _NO_SPECULATION:
        return lambda _registers, _run: position + 1
    if family in (_ALU32, _ALU64):
        return _arithmetic(one, position + 1, 64 if family == _ALU64 else 32)
    if family in (_JUMPS, _JUMPS32):
        return _jump(program, position, one, 64 if family == _JUMPS else 32)
    if family == _LOAD_REGISTER and one.code & 0xE0 in (_MEMORY, _MEMORY_SIGNED):
        return _load(one, position + 1)
    if family in (_STORE, _STORE_REGISTER) and one.code & 0xE0 == _MEMORY:
        return _store(one, position + 1)
    if family == _STORE_REGISTER and one.code & 0xE0 == _ATOMIC:
        return _atomic(one, position + 1)
    return _unknown(one)


def _refusing(message: str) -> Step:
    def refuse(_registers: list[Cell], _run: Execution) -> int:
        raise BytecodeError(message)

    return refuse


def _unknown(one: Instruction) -> Step:
    def stop(_registers: list[Cell], _run: Execution) -> int:
        raise Undecided(f"the program uses instruction {one.code:#04x}, which is not understood")

    return stop


def _number(cell: Cell, register: int) -> Number:
    if isinstance(cell, int | Unsettled):
        return cell
    if cell is None:
        raise BytecodeError(f"register {register} is read before anything was written to it")
    raise BytecodeError(f"register {register} holds an address where a number is needed")


def _wide(program: Program, position: int, one: Instruction) -> Step:
    destination, following = one.destination, position + 2
    if one.destination == 10:
        raise BytecodeError("register 10 cannot be written")
    if [half.code for half in program.instructions[position + 1 : following]] != [SECOND_HALF]:
        raise BytecodeError("the second half of a 64-bit number is missing")
    if one.source in (PLAIN, MAP):
        value: Cell = one.immediate if one.source == PLAIN else MapReference(program.space, one.immediate & 0xFFFFFFFF)

        def load(registers: list[Cell], _run: Execution) -> int:
            registers[destination] = value
            return following

        return load
    if one.source == MAP_VALUE:
        reference, offset = MapReference(program.space, one.immediate & 0xFFFFFFFF), one.immediate >> 32

        def load_address(registers: list[Cell], run: Execution) -> int:
            registers[destination] = run.maps.value(reference, offset)
            return following

        return load_address
    return _unknown(one)


def _arithmetic(one: Instruction, following: int, bits: int) -> Step:
    operation, destination = one.code & 0xF0, one.destination
    if destination == 10:
        raise BytecodeError("register 10 cannot be written")
    if operation == _MOVE:
        return _move(one, following, bits)
    if operation == _ENDIAN:
        return _endian(one, following, bits)
    whole = (1 << bits) - 1
    if operation == _NEGATE:

        def negate(registers: list[Cell], _run: Execution) -> int:
            number = _number(registers[destination], destination)
            registers[destination] = -number & whole if isinstance(number, int) else combined(bits, 0x10, 0, number)
            return following

        return negate
    signed = one.offset == 1
    try:
        function = alu(bits, operation, signed)
    except KeyError:
        return _unknown(one)
    source, from_register, immediate = one.source, bool(one.code & 8), one.immediate & whole
    addresses = bits == 64 and operation in (0x00, 0x10)

    def compute(registers: list[Cell], _run: Execution) -> int:
        left = registers[destination]
        right = registers[source] if from_register else immediate
        if isinstance(left, int) and isinstance(right, int):
            registers[destination] = function(left & whole, right & whole) & whole
        elif addresses and (isinstance(left, Pointer) or isinstance(right, Pointer)):
            registers[destination] = _address(operation, left, right)
        else:
            registers[destination] = combined(
                bits, operation, _number(left, destination), _number(right, source), signed
            )
        return following

    return compute


def _address(operation: int, left: Cell, right: Cell) -> Cell:
    """Addition to and subtraction from an address, and the distance of two."""
    if isinstance(left, Pointer) and isinstance(right, Pointer):
        if operation == 0x10 and left.region is right.region:
            return (left.offset - right.offset) & MASK64
        raise BytecodeError(f"arithmetic on two addresses, {left!r} and {right!r}")
    pointer, number = (left, right) if isinstance(left, Pointer) else (right, left)
    assert isinstance(pointer, Pointer)
    if isinstance(number, Unsettled):
        raise Undecided(f"an address depends on something open ({number.why})")
    if not isinstance(number, int) or (operation == 0x10 and pointer is right):
        raise BytecodeError(f"arithmetic on address {pointer!r} that gives none")
    distance = number - (1 << 64) if number >> 63 else number
    return Pointer(pointer.region, pointer.offset + (distance if operation == 0x00 else -distance))


def _move(one: Instruction, following: int, bits: int) -> Step:
    destination, source, width = one.destination, one.source, one.offset
    if not one.code & 8:
        value = one.immediate & ((1 << bits) - 1)

        def set_number(registers: list[Cell], _run: Execution) -> int:
            registers[destination] = value
            return following

        return set_number
    if width in (0, _PER_CPU) and bits == 64:

        def copy(registers: list[Cell], _run: Execution) -> int:
            value = registers[source]
            if value is None:
                raise BytecodeError(f"register {source} is read before anything was written to it")
            registers[destination] = value
            return following

        return copy
    if width not in (0, 8, 16, 32):
        return _unknown(one)

    def move(registers: list[Cell], _run: Execution) -> int:
        number = _number(registers[source], source)
        if width:
            number = extend(number, width) if isinstance(number, int) else extended(number, width)
        registers[destination] = truncated(number, bits)
        return following

    return move


def _endian(one: Instruction, following: int, bits: int) -> Step:
    destination, width = one.destination, one.immediate
    if width not in (16, 32, 64):
        raise BytecodeError(f"a byte swap of {width} bits")
    swapping = bits == 64 or bool(one.code & 8)

    def convert(registers: list[Cell], _run: Execution) -> int:
        number = _number(registers[destination], destination)
        if not swapping:
            registers[destination] = truncated(number, width)
        elif isinstance(number, int):
            registers[destination] = swap(number, width // 8)
        else:
            registers[destination] = swap_open(number, width // 8)
        return following

    return convert


def _jump(program: Program, position: int, one: Instruction, bits: int) -> Step:
    if one.code == EXIT:
        return lambda _registers, run: run.exit()
    if one.code == CALL:
        return _call(program, position, one)
    distance = one.immediate if one.code == JUMP_LONG else one.offset
    operation, following = one.code & 0xF0, position + 1
    if one.code in (JUMP, JUMP_LONG):
        target = _target(program, position, distance)
        return lambda _registers, _run: target
    if operation not in CONDITIONS:
        return _unknown(one)
    target = _target(program, position, distance)
    holds = condition(operation, bits)
    destination, source, from_register = one.destination, one.source, bool(one.code & 8)
    immediate = one.immediate & MASK64

    def branch(registers: list[Cell], run: Execution) -> int:
        left = registers[destination]
        right = registers[source] if from_register else immediate
        if isinstance(left, int) and isinstance(right, int):
            return target if holds(left, right) else following
        if isinstance(left, Pointer) or isinstance(right, Pointer):
            return target if _compare_addresses(operation, holds, left, right) else following
        numbers = _number(left, destination), _number(right, source)
        return target if run.branches.holds(operation, bits, *numbers) else following

    return branch


def _compare_addresses(operation: int, holds: Callable[[int, int], bool], left: Cell, right: Cell) -> bool:
    """Two addresses of one region, or an address with zero, which it never equals."""
    if isinstance(left, Pointer) and isinstance(right, Pointer) and left.region is right.region:
        return holds(left.offset + (1 << 32), right.offset + (1 << 32))
    if operation in (EQUAL, UNEQUAL) and 0 in (left, right):
        return operation == UNEQUAL
    raise BytecodeError(f"comparison of address {left!r} with {right!r}")


def _target(program: Program, position: int, distance: int) -> int:
    target = position + 1 + distance
    if not 0 <= target < len(program.instructions):
        raise BytecodeError(f"a jump to {target}, and the program has {len(program.instructions)} instructions")
    if program.instructions[target].code == SECOND_HALF:
        raise BytecodeError(f"a jump to {target}, the middle of a 64-bit number")
    return target


def _call(program: Program, position: int, one: Instruction) -> Step:
    if one.source == MAP:
        target = _target(program, position, one.immediate)
        return lambda _registers, run: run.enter(position, target)
    helper = one.helper if one.source == PLAIN else "of a kernel module or BTF"
    return lambda _registers, run: run.call(helper, one.immediate, position)


def _load(one: Instruction, following: int) -> Step:
    destination, source, offset, size = one.destination, one.source, one.offset, _SIZES[one.code & 0x18]
    signed = one.code & 0xE0 == _MEMORY_SIGNED
    if destination == 10:
        raise BytecodeError("register 10 cannot be written")

    def load(registers: list[Cell], _run: Execution) -> int:
        pointer = registers[source]
        if not isinstance(pointer, Pointer):
            raise _no_address(pointer, source)
        value = pointer.region.load(pointer.offset + offset, size)
        if signed and not isinstance(value, Pointer):
            value = extend(value, size * 8) if isinstance(value, int) else extended(value, size * 8)
        registers[destination] = value
        return following

    return load


def _store(one: Instruction, following: int) -> Step:
    destination, source, offset, size = one.destination, one.source, one.offset, _SIZES[one.code & 0x18]
    from_register, immediate = one.code & 7 == _STORE_REGISTER, one.immediate & MASK64

    def store(registers: list[Cell], _run: Execution) -> int:
        pointer = registers[destination]
        if not isinstance(pointer, Pointer):
            raise _no_address(pointer, destination)
        value = registers[source] if from_register else immediate
        if not isinstance(value, Pointer):
            value = _number(value, source)
        pointer.region.store(pointer.offset + offset, size, value)
        return following

    return store


def _atomic(one: Instruction, following: int) -> Step:
    destination, source, offset, size = one.destination, one.source, one.offset, _SIZES[one.code & 0x18]
    kind, bits = one.immediate, size * 8
    if size < 4 or (kind not in (_EXCHANGE, _COMPARE_EXCHANGE) and kind & ~_FETCH not in _ATOMIC_OPERATIONS):
        return _unknown(one)

    def change(registers: list[Cell], run: Execution) -> int:
        pointer = registers[destination]
        if not isinstance(pointer, Pointer):
            raise _no_address(pointer, destination)
        at = pointer.offset + offset
        before = pointer.region.load(at, size)
        given = _number(registers[source], source)
        if isinstance(before, Pointer):
            raise BytecodeError("an atomic operation on a stored address")
        if kind == _COMPARE_EXCHANGE:
            if run.branches.holds(EQUAL, bits, before, _number(registers[0], 0)):
                pointer.region.store(at, size, truncated(given, bits))
            registers[0] = before
            return following
        after = given if kind == _EXCHANGE else combined(bits, _ATOMIC_OPERATIONS[kind & ~_FETCH], before, given)
        pointer.region.store(at, size, truncated(after, bits))
        if kind & _FETCH:
            registers[source] = before
        return following

    return change


def _no_address(cell: Cell, register: int) -> BytecodeError:
    if cell is None:
        return BytecodeError(f"register {register} is read before anything was written to it")
    if cell == 0:
        return BytecodeError(f"register {register} is a null address: a look-up that found nothing")
    return BytecodeError(f"register {register} is used as an address and is none")
