"""The kernel's functions by address, from ``/proc/kallsyms``: lines of address (hexadecimal), type, name, module."""

from __future__ import annotations

from bisect import bisect_right

FARTHEST = 1 << 20
"""Bytes behind a function's start beyond which an address is not taken for one within it."""


class Symbols:
    """Looks addresses up. Reading the text takes a tenth of a second: make it when the first address is to be named."""

    def __init__(self, text: str) -> None:
        """``text`` as read. Where the kernel shows no addresses (kptr_restrict) nothing can be named."""
        found = []
        for line in text.splitlines():
            words = line.split()
            if len(words) >= 3 and words[1] in "tTwW" and (address := _number(words[0])):
                found.append((address, words[2]))
        found.sort()
        self._starts = [address for address, _ in found]
        self._names = [name for _, name in found]

    def name(self, address: int) -> str:
        """The function that an address is in; "" when that is not known."""
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address - self._starts[index] > FARTHEST:
            return ""
        return self._names[index]


def _number(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return 0
