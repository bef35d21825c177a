"""What registers hold after loads, additions, and where ways of the code meet."""

from __future__ import annotations

from calico_debug.redact.bpf_cells import (
    TAINT,
    Base,
    Cell,
    Constant,
    Machine,
    Masked,
    Memory,
    Pointer,
    Word,
    is_address,
    moved,
)
from calico_debug.walk.bpf_state import LAYOUTS

STATE, STACK = Pointer(Base.STATE), Pointer(Base.STACK)
FIELDS = LAYOUTS[-1].fields


def merged(one: Cell, other: Cell) -> Cell:
    machines = Machine([one] * 11), Machine([other] * 11)
    machines[0].merge(machines[1])
    assert len(set(machines[0].registers)) == 1
    return machines[0].registers[0]


def test_ways_that_meet() -> None:
    word, constant = Word(8, 0), Constant(5, 1)
    assert merged(word, word) == word
    assert merged(constant, Constant(5, 2)) is None
    assert merged(STATE, None) is None
    for cell in (word, Masked(word, 255), TAINT):
        assert merged(cell, None) is TAINT
        assert merged(constant, cell) is TAINT


def test_facts_and_the_stack_hold_on_both_ways_only() -> None:
    one, other = Machine(), Machine()
    one.facts, other.facts = {(8, 0): (1, 2), (8, 1): (3, 4)}, {(8, 0): (1, 2), (8, 1): (3, 5)}
    one.stack, other.stack = {-8: Constant(5, 1), -4: Constant(6, 2)}, {-8: Constant(5, 1)}
    one.merge(other)
    assert (one.facts, one.stack) == ({(8, 0): (1, 2)}, {-8: Constant(5, 1)})


def test_a_copy_goes_its_own_way() -> None:
    one = Machine()
    other = one.copy()
    other.registers[1], other.facts[8, 0] = TAINT, (1, 2)
    other.store(-8, 4, Constant(5, 1))
    assert (one.registers[1], one.facts, one.stack) == (None, {}, {})


def test_the_stack_forgets_what_is_written_over() -> None:
    machine = Machine()
    for at, size, left in ((-8, 4, {-8}), (-5, 1, set()), (-8, 4, {-8}), (-16, 8, {-8}), (-12, 8, set())):
        machine.store(at, size, Constant(5, 1))
        assert set(machine.stack) == left
    machine.store(-8, 4, None)
    assert not machine.stack


def test_loads() -> None:
    memory = Memory(LAYOUTS[-1])
    start = FIELDS["ip_src"][0]
    assert [memory.load(STATE, start + 4 * place, 4) for place in range(4)] == [
        Word(start, place) for place in range(4)
    ]
    assert memory.load(Pointer(Base.STATE, start), 4, 4) == Word(start, 1)
    for offset, size in ((start, 8), (start, 2), (start + 2, 4), (0, 8), (600, 4)):
        assert memory.load(STATE, offset, size) is TAINT
    for name in ("sport", "flags", "ip_proto", "pol_rc", "rules_hit"):
        assert memory.load(STATE, *FIELDS[name]) is None
    assert memory.load(Pointer(Base.CONTEXT), 48, 4) is None
    for pointer in (STACK, Pointer(Base.STATE, None), None, TAINT, Constant(5, 1)):
        assert memory.load(pointer, start, 4) is TAINT


def test_additions() -> None:
    assert moved(STACK, Constant(0xFFFFFFFC, 1), -4) == Pointer(Base.STACK, -4)
    assert moved(STATE, None, 0) == Pointer(Base.STATE, None)
    assert moved(Pointer(Base.STATE, None), Constant(4, 1), 4) == Pointer(Base.STATE, None)
    assert moved(STATE, Word(8, 0), 0) is TAINT
    assert moved(None, STATE, 0) is TAINT


def test_what_may_hold_an_address() -> None:
    assert all(map(is_address, (TAINT, Word(8, 0), Masked(Word(8, 0), 255))))
    assert not any(map(is_address, (None, STATE, Constant(5, 1))))
