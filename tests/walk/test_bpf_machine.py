"""The machine: what no kernel would run is refused in words; nothing crashes it, nothing hangs it."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calico_debug.decode.bpf_instructions import from_bytes
from calico_debug.model.bytecode import BytecodeError, Instruction, MapReference, Program
from calico_debug.walk.bpf_compile import compiled
from calico_debug.walk.bpf_machine import Compiled, Doubtful, Execution, Left, Outcome, execute
from calico_debug.walk.bpf_memory import Pointer, Region
from calico_debug.walk.bpf_values import Unsettled
from calico_debug.walk.choices import Chooser, Kind, Unsure
from calico_debug.walk.context import Undecided
from tests.bytecode.assembler import ADD, JEQ, JGT, JNE, MOV, SUB, XOR, Assembler


class Maps:
    """Map 1 has one value of 8 bytes under every key; map 2 may have one; map 3 holds programs."""

    def __init__(self, *programs: Compiled) -> None:
        self.value_region = Region("value", (7).to_bytes(8, "little"))
        self.programs = programs

    def sizes(self, reference: MapReference) -> tuple[int, int]:
        if reference.number not in (1, 2):
            raise Undecided(f"{reference} is not known")
        return 4, 8

    def lookup(self, reference: MapReference, key: bytes, known: bytes) -> Region | Doubtful | None:
        assert len(key) == len(known) == 4
        return (
            self.value_region if reference.number == 1 else Doubtful(self.value_region, Unsure(Kind.UNKNOWN, "map 2"))
        )

    def update(self, _reference: MapReference, _key: bytes, _value: bytes, flags: int, /) -> int:
        return -7 if flags else 0

    def delete(self, _reference: MapReference, _key: bytes, /) -> int:
        return -2

    def jump(self, reference: MapReference, index: int | None) -> Compiled | Left | None:
        if index is None or index == 99:
            return Left(reference, index)
        return self.programs[index] if index < len(self.programs) else None

    def value(self, _reference: MapReference, offset: int, /) -> Pointer:
        return Pointer(self.value_region, offset)


def program(code: Assembler) -> Compiled:
    return compiled(Program(code.instructions(), name="p4I_eth0"))


def run(code: Assembler, chooser: Chooser | None = None, maps: Maps | None = None, budget: int = 10_000) -> Outcome:
    context = Region("context", bytes(range(64)), writable=False, aligned=True)
    context.known[32:64] = bytes(32)
    return execute(program(code), context, maps or Maps(), chooser or Chooser(), budget)


def code_of(*slots: tuple[int, int, int, int, int]) -> Assembler:
    code = Assembler()
    code.slots.extend(slots)
    return code


class TestRefused:
    @pytest.mark.parametrize(
        ("slots", "message"),
        [
            ([(0x05, 0, 0, 5, 0)], "instruction 0: a jump to 6, and the program has 1 instructions"),
            ([(0x05, 0, 0, -3, 0), (0x95, 0, 0, 0, 0)], "a jump to -2"),
            ([(0x05, 0, 0, 1, 0), (0x18, 1, 0, 0, 0), (0, 0, 0, 0, 0)], "a jump to 2, the middle of a 64-bit number"),
            ([(0xB7, 11, 0, 0, 0)], "no register has number 11"),
            ([(0xB7, 10, 0, 0, 0)], "register 10 cannot be written"),
            ([(0xD4, 1, 0, 0, 17)], "a byte swap of 17 bits"),
        ],
    )
    def test_before_it_runs(self, slots: list[tuple[int, int, int, int, int]], message: str) -> None:
        with pytest.raises(BytecodeError, match=message):
            run(code_of(*slots))

    @pytest.mark.parametrize(
        ("slots", "message"),
        [
            ([(0xB7, 0, 0, 0, 1)], "beyond its last instruction"),
            ([(0xBF, 0, 3, 0, 0), (0x95, 0, 0, 0, 0)], "instruction 0: register 3 is read before anything was written"),
            ([(0x95, 0, 0, 0, 0)], "without a result in register 0"),
            ([(0x79, 0, 10, -520, 0)], r"read of 8 bytes at stack 1-8, which has 512 bytes"),
            ([(0x79, 0, 10, 0, 0)], r"at stack 1\+512"),
            ([(0x79, 0, 10, -12, 0)], "not aligned"),
            ([(0x7A, 1, 0, 0, 0)], "read-only"),
            ([(0xB7, 1, 0, 0, 0), (0x79, 0, 1, 0, 0)], "null address: a look-up that found nothing"),
            ([(0xB7, 1, 0, 0, 9), (0x79, 0, 1, 0, 0)], "used as an address and is none"),
            ([(0x27, 1, 0, 0, 2)], "holds an address where a number is needed"),
            ([(0x0F, 1, 10, 0, 0)], "arithmetic on two addresses"),
            ([(0x1D, 1, 10, 0, 0), (0x95, 0, 0, 0, 0)], "comparison of address"),
            ([(0xB7, 1, 0, 0, 0), (0x85, 0, 0, 0, 1)], "register 1 is no map"),
            ([(0x18, 1, 1, 0, 1), (0, 0, 0, 0, 0), (0x85, 0, 0, 0, 1)], "register 2 does not point at a key"),
            ([(0x85, 0, 1, 0, -1), (0x95, 0, 0, 0, 0)], "nested more than 8 deep"),
        ],
    )
    def test_when_it_runs(self, slots: list[tuple[int, int, int, int, int]], message: str) -> None:
        with pytest.raises(BytecodeError, match=f"p4I_eth0: .*{message}"):
            run(code_of(*slots))

    def test_an_endless_loop(self) -> None:
        with pytest.raises(BytecodeError, match="instruction 0: it does not end"):
            run(code_of((0x05, 0, 0, -1, 0)))

    def test_nothing_at_all(self) -> None:
        with pytest.raises(BytecodeError, match="no instructions; record it again"):
            compiled(Program(()))


class TestUndecided:
    @pytest.mark.parametrize(
        ("slots", "message"),
        [
            ([(0x85, 0, 0, 0, 93)], "helper number 93"),
            ([(0x85, 0, 0, 0, 69)], "helper bpf_fib_lookup"),
            ([(0x85, 0, 0, 0, 0)], "kernel.kptr_restrict"),
            ([(0x85, 0, 2, 0, 5)], "of a kernel module or BTF"),
            ([(0x20, 0, 0, 0, 0)], "instruction 0x20"),
            ([(0xE5, 0, 0, 0, 0)], "instruction 0xe5"),
            ([(0x18, 1, 5, 0, 0), (0, 0, 0, 0, 0)], "instruction 0x18"),
            ([(0x61, 2, 1, 40, 0), (0x0F, 1, 2, 0, 0)], "an address depends on something open"),
            ([(0x18, 1, 1, 0, 9), (0, 0, 0, 0, 0), (0x85, 0, 0, 0, 1)], "map fd 9 is not known"),
        ],
    )
    def test_says_what_is_missing(self, slots: list[tuple[int, int, int, int, int]], message: str) -> None:
        with pytest.raises(Undecided, match=message):
            run(code_of(*slots))


def lookup(code: Assembler, number: int) -> None:
    code.emit(0x62, 10, 0, -4, 0)
    code.wide(1, number, 1)
    code.alu_register(MOV, 2, 10)
    code.alu(ADD, 2, -4)
    code.call(1)


class TestMaps:
    def test_a_value(self) -> None:
        code = Assembler()
        lookup(code, 1)
        code.load(8, 0, 0, 0)
        code.exit()
        assert run(code).result == 7

    def test_a_doubtful_value_is_chosen_once(self) -> None:
        code = Assembler()
        lookup(code, 2)
        code.alu_register(MOV, 6, 0)
        lookup(code, 2)
        code.branch(JEQ, 6, 0, "absent")
        code.branch(JEQ, 0, 0, "absent")
        code.exit(1)
        code.label("absent")
        code.exit(2)
        for script, result in (((0,), 1), ((1,), 2)):
            chooser = Chooser(script)
            assert run(code, chooser).result == result
            assert [choice.why for choice in chooser.choices] == ["map 2"]

    def test_an_open_value_is_not_written(self) -> None:
        code = Assembler()
        code.load(4, 3, 1, 40)
        code.store(4, 10, -4, 3)
        code.wide(1, 1, 1)
        code.alu_register(MOV, 2, 10)
        code.alu(ADD, 2, -4)
        code.call(3)
        with pytest.raises(Undecided, match="a key that is not fully known"):
            run(code)

    def test_the_address_of_a_value(self) -> None:
        code = Assembler()
        code.slots += [(0x18, 1, 2, 0, 1), (0, 0, 0, 0, 4)]
        code.load(4, 0, 1, 0)
        code.exit()
        assert run(code).result == 0


class TestTailCalls:
    def jumping(self, index: int) -> Assembler:
        code = Assembler()
        code.wide(2, 3, 1)
        code.alu(MOV, 3, index)
        code.call(12)
        code.exit(5)
        return code

    def test_to_another_program(self) -> None:
        code = Assembler()
        code.load(1, 0, 1, 3)
        code.exit()
        outcome = run(self.jumping(0), maps=Maps(program(code)))
        assert outcome.result == 3
        assert [list(slots) for _, slots in outcome.trace] == [[0, 2, 3], [0, 1]]

    def test_out_of_sight(self) -> None:
        assert run(self.jumping(99)).left == Left(MapReference("fd", 3), 99)

    def test_to_nothing(self) -> None:
        assert run(self.jumping(4)).result == 5

    def test_without_end(self) -> None:
        code = self.jumping(0)
        outcome = run(code, maps=Maps(program(code)))
        assert outcome.result == 5
        assert len(outcome.trace) == 34


class TestStretches:
    def stretch(self, code: Assembler, start: int, until: int) -> int:
        execution = Execution(Maps(), Chooser(), 100)
        return execution.run_stretch(program(code), start, {9: 5}, lambda _slot, following: following == until)

    def code(self) -> Assembler:
        code = Assembler()
        code.alu(MOV, 0, 1)
        code.alu_register(MOV, 1, 9)
        code.branch(JEQ, 1, 5, "far")
        code.exit(2)
        code.label("far")
        code.store(4, 10, -4, 9)
        code.exit(3)
        return code

    def test_from_the_middle_to_a_step_that_stops(self) -> None:
        assert self.stretch(self.code(), 1, 5) == 2  # the branch, which register 9 decides

    def test_a_program_that_ends_before(self) -> None:
        with pytest.raises(BytecodeError, match="ends at instruction 7"):
            self.stretch(self.code(), 5, 77)

    def test_one_that_does_not_get_on(self) -> None:
        code = Assembler()
        code.label("here")
        code.jump("here")
        with pytest.raises(BytecodeError, match="does not get on"):
            self.stretch(code, 0, 77)

    def test_registers_that_were_not_given_are_empty(self) -> None:
        code = Assembler()
        code.alu_register(MOV, 1, 8)
        with pytest.raises(BytecodeError, match="register 8 is read before"):
            self.stretch(code, 0, 77)


class TestAddresses:
    def test_distance_and_order(self) -> None:
        code = Assembler()
        code.alu_register(MOV, 2, 10)
        code.alu(SUB, 2, 16)
        code.alu_register(MOV, 3, 10)
        code.alu_register(SUB, 3, 2)
        code.branch_register(JGT, 2, 10, "wrong")
        code.branch(JNE, 2, 0, "right")
        code.label("wrong")
        code.exit(0)
        code.label("right")
        code.alu_register(MOV, 0, 3)
        code.exit()
        assert run(code).result == 16

    def test_open_results_are_results(self) -> None:
        code = Assembler()
        code.load(1, 0, 1, 40)
        code.alu(XOR, 0, 1)
        code.exit()
        assert isinstance(run(code).result, Unsettled)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(range(256)), st.integers(0, 10), st.integers(0, 10), st.integers(-4, 4), st.integers(-9, 9)
        ),
        max_size=14,
    ),
    st.randoms(),
)
def test_anything_ends_in_an_answer(slots: list[tuple[int, int, int, int, int]], rng: random.Random) -> None:
    instructions = tuple(
        Instruction(
            code, dst, src, off, imm, rng.choice(("", "bpf_map_lookup_elem", "bpf_tail_call", "bpf_ktime_get_ns"))
        )
        for code, dst, src, off, imm in slots
    )
    context = Region("context", bytes(64), aligned=True)
    with suppress(BytecodeError, Undecided):
        execute(compiled(Program(instructions)), context, Maps(), Chooser(), 500)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=160))
def test_any_bytes_end_in_an_answer(raw: bytes) -> None:
    with suppress(BytecodeError, Undecided):
        execute(compiled(Program(from_bytes(raw))), Region("context", bytes(64)), Maps(), Chooser(), 500)
