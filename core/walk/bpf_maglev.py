"""Which slot of a service's Maglev table a connection falls into.

Source: felix/bpf-gpl/maglev.h and jenkins_hash.h of v3.32 and master: Bob Jenkins' lookup3 (hashword, public domain) of
the packet's own ends, with a fixed seed. Addresses are hashed as the kernel loads them, in words of the host's order,
which is little-endian wherever Calico runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

SEED: Final = 0xCA71C0
_START: Final = 0xDEADBEEF
_MASK: Final = 0xFFFFFFFF
_MIXING: Final = (4, 6, 8, 16, 19, 4)
_FINISHING: Final = (14, 11, 25, 16, 4, 14, 24)


def maglev_hash(family: int, protocol: int, source: int, sport: int, destination: int, dport: int) -> int:
    """The hash of a packet to a service, 32 bits; its slot is the remainder by the table's size."""
    if family == 4:
        words = [*_words(source, 4), *_words(destination, 4), sport, dport, protocol]
    else:
        words = [*_words(source, 16), *_words(destination, 16), protocol, sport, dport]
    return _hashword(words, SEED)


def _words(address: int, size: int) -> list[int]:
    packed = address.to_bytes(size, "big")
    return [int.from_bytes(packed[at : at + 4], "little") for at in range(0, size, 4)]


def _rotated(word: int, by: int) -> int:
    return (word << by | word >> (32 - by)) & _MASK


def _hashword(words: Sequence[int], seed: int) -> int:
    """lookup3's hash of 1 or more words of 32 bits."""
    state = [(_START + 4 * len(words) + seed) & _MASK] * 3
    last = (len(words) - 1) // 3 * 3
    for start in range(0, last, 3):
        state = [(cell + word) & _MASK for cell, word in zip(state, words[start : start + 3], strict=True)]
        for step, by in enumerate(_MIXING):
            here, before, after = step % 3, (step + 2) % 3, (step + 1) % 3
            state[here] = (state[here] - state[before]) & _MASK ^ _rotated(state[before], by)
            state[before] = (state[before] + state[after]) & _MASK
    for position, word in enumerate(words[last:]):
        state[position] = (state[position] + word) & _MASK
    for step, by in enumerate(_FINISHING):
        here, before = (step + 2) % 3, (step + 1) % 3
        state[here] = ((state[here] ^ state[before]) - _rotated(state[before], by)) & _MASK
    return state[2]
