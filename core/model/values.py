"""Values of which only some bits are known.

A packet that has not been sent has fields nobody chose yet: the client's ephemeral port, the TTL, the length. An
expression over such a field is neither true nor false, and the walk has to see that. A value is therefore either a
plain ``int`` (every bit known, the fast and common case), a ``str`` (an interface name), or a `Partial`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Partial:
    """An integer of ``width`` bits of which those set in ``known`` have the value they have in ``value``.

    ``why`` names the field and the reason it is open ("tcp sport: not given"), for the user.
    """

    value: int
    known: int
    width: int
    why: str

    @property
    def lowest(self) -> int:
        """The smallest integer this value can be."""
        return self.value & self.known

    @property
    def highest(self) -> int:
        """The largest integer this value can be."""
        return (self.value & self.known) | (~self.known & ((1 << self.width) - 1))

    def may_equal(self, other: int) -> bool:
        """Whether ``other`` agrees with every known bit."""
        return (other ^ self.value) & self.known == 0 and other >> self.width == 0


@dataclass(frozen=True, slots=True)
class Drawn:
    """A number that the kernel picks, ``lowest`` ≤ n ≤ ``highest``; ``why`` says how (``numgen random mod 3``)."""

    lowest: int
    highest: int
    why: str

    def may_equal(self, other: int) -> bool:
        """Whether the kernel can pick ``other``."""
        return self.lowest <= other <= self.highest


Open = Partial | Drawn
"""A value that is not settled."""

Value = int | str | Partial | Drawn


def unknown(width: int, why: str) -> Partial:
    """A value of ``width`` bits of which nothing is known."""
    return Partial(0, 0, width, why)


def settle(value: int, known: int, width: int, why: str) -> int | Partial:
    """A plain ``int`` when every one of ``width`` bits is known, a `Partial` otherwise."""
    full = (1 << width) - 1
    if known & full == full:
        return value & full
    return Partial(value & known, known & full, width, why)
