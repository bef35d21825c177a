"""Arithmetic on numbers of which some bits are open: what is called known holds for every value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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

WORDS = st.one_of(st.integers(0, MASK64), st.sampled_from([0, 1, 63, 64, 1 << 31, 1 << 32, 1 << 63, MASK64]))
OPERATIONS = (0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x90, 0xA0, 0xC0)


def opened(value: int, mask: int, name: str = "x") -> Number:
    return Unsettled(value, mask, "a field", name) if mask else value


def holds(number: Number, value: int) -> bool:
    return number == value if isinstance(number, int) else (number.value ^ value) & ~number.mask & MASK64 == 0


@given(WORDS, WORDS, WORDS, WORDS, st.sampled_from(OPERATIONS), st.sampled_from([32, 64]), st.booleans())
def test_known_bits_hold(left: int, right: int, mask: int, other: int, operation: int, bits: int, signed: bool) -> None:
    whole = (1 << bits) - 1
    exact = alu(bits, operation, signed)(left & whole, right & whole) & whole
    assert holds(combined(bits, operation, opened(left, mask), opened(right, other, "y"), signed), exact)


@given(WORDS, WORDS, st.sampled_from([8, 16, 32]))
def test_conversions_hold(value: int, mask: int, bits: int) -> None:
    number = Unsettled(value, mask, "a field", "x")
    assert holds(extended(number, bits), extend(value, bits))
    assert holds(truncated(number, bits), value & ((1 << bits) - 1))
    assert holds(swap_open(number, bits // 8 if bits > 8 else 8), swap(value, bits // 8 if bits > 8 else 8))


def test_masks_settle_what_they_cover() -> None:
    port = Unsettled(0, 0xFFFF, "source port: not given", "port")
    assert combined(64, 0x50, port, 0xFF0000) == 0
    flags = combined(64, 0x40, port, 0x400)
    assert isinstance(flags, Unsettled)
    assert (flags.value, flags.mask, flags.why) == (0x400, 0xFBFF, "source port: not given")


@pytest.mark.parametrize(
    ("bits", "operation", "left", "right", "result"),
    [
        (64, 0x30, 1 << 63, MASK64, 1 << 63),  # the most negative number by -1
        (64, 0x90, 1 << 63, MASK64, 0),
        (64, 0x30, 5, 0, 0),
        (64, 0x90, 5, 0, 5),
        (32, 0x30, (-7) & 0xFFFFFFFF, 2, (-3) & 0xFFFFFFFF),
        (32, 0x90, (-7) & 0xFFFFFFFF, 2, (-1) & 0xFFFFFFFF),
    ],
)
def test_signed_division(bits: int, operation: int, left: int, right: int, result: int) -> None:
    assert alu(bits, operation, signed=True)(left, right) & ((1 << bits) - 1) == result


def test_what_is_no_operation() -> None:
    with pytest.raises(KeyError):
        alu(64, 0xE0)
