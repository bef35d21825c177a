"""Single instructions, as the standard describes them."""

from __future__ import annotations

import struct

import pytest

from calico_debug.decode.bpf_instructions import from_bytes
from calico_debug.model.bytecode import Program
from calico_debug.walk.bpf_compile import compiled
from calico_debug.walk.bpf_machine import Outcome, execute
from calico_debug.walk.bpf_memory import Region
from calico_debug.walk.bpf_values import MASK64
from calico_debug.walk.choices import Chooser
from tests.walk.test_bpf_machine import Maps


def run(*slots: tuple[int, int, int, int, int], given: tuple[int, int] = (0, 0)) -> tuple[Outcome, Region]:
    """Registers 0 and 2 start from ``given``, which also is what the context holds."""
    context = Region("context", struct.pack("<QQ", *given))
    start = ((0x79, 0, 1, 0, 0), (0x79, 2, 1, 8, 0))
    code = b"".join(
        struct.pack("<BBhI", code, src << 4 | dst, off, imm & 0xFFFFFFFF)
        for code, dst, src, off, imm in (*start, *slots, (0x95, 0, 0, 0, 0))
    )
    return execute(compiled(Program(from_bytes(code))), context, Maps(), Chooser()), context


@pytest.mark.parametrize(
    ("slot", "given", "result"),
    [
        ((0x07, 0, 0, 0, -1), (0, 0), MASK64),
        ((0x04, 0, 0, 0, -1), (1 << 40, 0), 0xFFFFFFFF),
        ((0x1F, 0, 2, 0, 0), (1, 2), MASK64),
        ((0x2C, 0, 2, 0, 0), (0x1_0000_0003, 5), 15),
        ((0x3F, 0, 2, 0, 0), (7, 0), 0),
        ((0x9F, 0, 2, 0, 0), (7, 0), 7),
        ((0x9C, 0, 2, 0, 0), (0x5_0000_0007, 0), 7),
        ((0x3F, 0, 2, 1, 0), (1 << 63, MASK64), 1 << 63),
        ((0x6F, 0, 2, 0, 0), (1, 65), 2),
        ((0x7C, 0, 2, 0, 0), (0x8000_0000, 33), 0x4000_0000),
        ((0xC7, 0, 0, 0, 4), (1 << 63, 0), 0xF8 << 56),
        ((0xC4, 0, 0, 0, 4), (0x8000_0000, 0), 0xF800_0000),
        ((0x87, 0, 0, 0, 0), (1, 0), MASK64),
        ((0x84, 0, 0, 0, 0), (1, 0), 0xFFFFFFFF),
        ((0xB7, 0, 0, 0, -2), (0, 0), MASK64 - 1),
        ((0xB4, 0, 0, 0, -2), (0, 0), 0xFFFFFFFE),
        ((0xBF, 0, 2, 8, 0), (0, 0x80), MASK64 - 0x7F),
        ((0xBC, 0, 2, 8, 0), (0, 0x80), 0xFFFFFF80),
        ((0xBC, 0, 2, 0, 0), (0, MASK64), 0xFFFFFFFF),
        ((0xDC, 0, 0, 0, 16), (0x11223344, 0), 0x4433),
        ((0xD4, 0, 0, 0, 16), (0x11223344, 0), 0x3344),
        ((0xD7, 0, 0, 0, 32), (0x11223344, 0), 0x44332211),
        ((0x91, 0, 1, 0, 0), (0x80, 0), MASK64 - 0x7F),
        ((0x71, 0, 1, 0, 0), (0x1FF, 0), 0xFF),
        ((0xC0, 0, 0, 0, 0), (5, 0), 5),
    ],
)
def test_arithmetic_and_loads(slot: tuple[int, int, int, int, int], given: tuple[int, int], result: int) -> None:
    assert run(slot, given=given)[0].result == result


@pytest.mark.parametrize(
    ("code", "given", "taken"),
    [
        (0x1D, (5, 5), True),
        (0x1E, (1 << 32 | 5, 5), True),
        (0x2D, (MASK64, 1), True),
        (0x6D, (MASK64, 1), False),
        (0x6E, (0xFFFFFFFF, 1), False),
        (0xCD, (MASK64, 1), True),
        (0xDD, (5, 5), True),
        (0x4D, (6, 8), False),
        (0x4D, (6, 2), True),
        (0xAD, (1, 1), False),
        (0xBD, (1, 1), True),
    ],
)
def test_branches(code: int, given: tuple[int, int], taken: bool) -> None:
    outcome, _ = run((code, 0, 2, 1, 0), (0xB7, 0, 0, 0, 7), given=given)
    assert (outcome.result == given[0]) == taken


@pytest.mark.parametrize(
    ("operation", "memory", "source"),
    [(0x00, 12, 7), (0x01, 12, 5), (0x41, 7, 5), (0x51, 5, 5), (0xA1, 2, 5), (0xE1, 7, 5)],
)
def test_atomic_operations(operation: int, memory: int, source: int) -> None:
    outcome, region = run((0xDB, 1, 2, 0, operation), (0xBF, 0, 2, 0, 0), given=(5, 7))
    assert (outcome.result, int.from_bytes(region.data[:8], "little")) == (source, memory)


@pytest.mark.parametrize(("expected", "memory"), [(5, 7), (6, 5)])
def test_compare_and_exchange(expected: int, memory: int) -> None:
    outcome, region = run((0xB7, 0, 0, 0, expected), (0xDB, 1, 2, 0, 0xF1), given=(5, 7))
    assert (outcome.result, int.from_bytes(region.data[:8], "little")) == (5, memory)


def test_stores() -> None:
    _, region = run((0x6A, 1, 0, 2, 0x1234), (0x73, 1, 2, 4, 0), given=(0, 0xAB))
    assert bytes(region.data[:8]) == b"\0\0\x34\x12\xab\0\0\0"
