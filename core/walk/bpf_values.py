"""Arithmetic of eBPF: on numbers, and on numbers of which only some bits are known.

Semantics: Linux Documentation/bpf/standardization/instruction-set.rst; division by zero gives 0 and the remainder by
zero the dividend. Known bits are followed as kernel/bpf/tnum.c does it: what is called known is true of every value.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable
from typing import Final

MASK64: Final = (1 << 64) - 1
MASK32: Final = (1 << 32) - 1


class Unsettled:
    """A 64-bit number: bits set in ``mask`` are open, the others are those of ``value``.

    ``origin`` is equal for numbers that are surely equal (the same open field, the same way computed); ``why`` names
    what is open, for the user.
    """

    __slots__ = ("mask", "origin", "value", "why")

    def __init__(self, value: int, mask: int, why: str, origin: Hashable) -> None:
        """Bits of ``value`` under ``mask`` are ignored."""
        self.value = value & ~mask
        self.mask = mask
        self.why = why
        self.origin = origin

    def __repr__(self) -> str:
        """The known bits and what is open."""
        return f"Unsettled({self.value:#x}, open {self.mask:#x}: {self.why})"


Number = int | Unsettled


def _divide(left: int, right: int) -> int:
    return left // right if right else 0


def _remainder(left: int, right: int) -> int:
    return left % right if right else left


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def _signed_divide(bits: int) -> Callable[[int, int], int]:
    def divide(left: int, right: int) -> int:
        one, other = _signed(left, bits), _signed(right, bits)
        if other == 0:
            return 0
        quotient = abs(one) // abs(other)
        return -quotient if (one < 0) != (other < 0) else quotient

    return divide


def _signed_remainder(bits: int) -> Callable[[int, int], int]:
    def remainder(left: int, right: int) -> int:
        one, other = _signed(left, bits), _signed(right, bits)
        if other == 0:
            return left
        rest = abs(one) % abs(other)
        return -rest if one < 0 else rest

    return remainder


def alu(bits: int, operation: int, signed: bool = False) -> Callable[[int, int], int]:
    """The function of an arithmetic instruction: upper four bits of its code, operands and result of ``bits`` bits.

    Raises KeyError for an operation that is none of arithmetic on two operands.
    """
    shift = bits - 1
    if signed and operation in (0x30, 0x90):
        return _signed_divide(bits) if operation == 0x30 else _signed_remainder(bits)
    return {
        0x00: operator.add,
        0x10: operator.sub,
        0x20: operator.mul,
        0x30: _divide,
        0x40: operator.or_,
        0x50: operator.and_,
        0x60: lambda left, right: left << (right & shift),
        0x70: lambda left, right: left >> (right & shift),
        0x90: _remainder,
        0xA0: operator.xor,
        0xC0: lambda left, right: _signed(left, bits) >> (right & shift),
    }[operation]


def extend(value: int, bits: int) -> int:
    """The lowest ``bits`` bits, sign-extended to 64."""
    return _signed(value & ((1 << bits) - 1), bits) & MASK64


def swap(value: int, size: int) -> int:
    """The lowest ``size`` bytes in the opposite order, the others zero."""
    return int.from_bytes((value & ((1 << size * 8) - 1)).to_bytes(size, "little"), "big")


def swap_open(number: Unsettled, size: int) -> Number:
    """`swap` of a number with open bits."""
    return settled(swap(number.value, size), swap(number.mask, size), number.why, ("swap", size, number.origin))


def settled(value: int, mask: int, why: str, origin: Hashable) -> Number:
    """A plain number when no bit is open."""
    return Unsettled(value, mask, why, origin) if mask else value


def truncated(number: Number, bits: int) -> Number:
    """The lowest ``bits`` bits, the others zero."""
    whole = (1 << bits) - 1
    if isinstance(number, int):
        return number & whole
    if not (number.value | number.mask) & ~whole:
        return number
    return settled(number.value & whole, number.mask & whole, number.why, ("low", bits, number.origin))


def extended(number: Unsettled, bits: int) -> Number:
    """`extend` of a number with open bits."""
    return settled(extend(number.value, bits), extend(number.mask, bits), number.why, ("extend", bits, number.origin))


def combined(bits: int, operation: int, left: Number, right: Number, signed: bool = False) -> Number:
    """Arithmetic with at least one open operand. Operands and result have ``bits`` bits, zero-extended."""
    left, right = truncated(left, bits), truncated(right, bits)
    whole = (1 << bits) - 1
    if isinstance(left, int) and isinstance(right, int):
        return alu(bits, operation, signed)(left, right) & whole
    known, value = _known(bits, operation, left, right)
    open_one = left if isinstance(left, Unsettled) else right
    why = open_one.why if isinstance(open_one, Unsettled) else ""
    return settled(value & whole, ~known & whole, why, (operation, bits, signed, _origin(left), _origin(right)))


def _origin(number: Number) -> Hashable:
    return number if isinstance(number, int) else number.origin


def _parts(number: Number) -> tuple[int, int]:
    return (number, 0) if isinstance(number, int) else (number.value, number.mask)


def _known(bits: int, operation: int, left: Number, right: Number) -> tuple[int, int]:
    """Which bits of the result are known, and their values. Both are cut to ``bits`` bits by the caller."""
    (value, mask), (other, open_bits) = _parts(left), _parts(right)
    if operation == 0x50:
        zeros = (~value & ~mask) | (~other & ~open_bits)
        return zeros | ~(mask | open_bits), value & other
    if operation == 0x40:
        ones = value | other
        return ones | ~(mask | open_bits), ones
    if operation == 0xA0:
        return ~(mask | open_bits), value ^ other
    if operation == 0x00:
        carries = (value + other) ^ (value + other + mask + open_bits)
        return ~(carries | mask | open_bits), value + other
    if operation == 0x10:
        lowest = value - other
        borrows = (lowest + mask) ^ (lowest - open_bits)
        return ~(borrows | mask | open_bits), lowest
    if operation in (0x60, 0x70, 0xC0) and isinstance(right, int):
        shift = alu(bits, operation)
        return ~shift(mask, right), shift(value, right)
    return 0, 0
