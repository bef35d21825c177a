"""IP sets of the eBPF dataplane: look-ups as the kernel's longest-prefix trie answers them.

Key (felix/bpf/ipsets/map.go, felix/bpf-gpl/policy.h, packed, unchanged from v3.28 to v3.32): prefix length u32; set id
u64 big-endian; address 4 or 16 bytes; port u16 in host order; protocol u8; padding u8. The prefix counts from the id.
Trie: Linux kernel/bpf/lpm_trie.c trie_lookup_elem.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from calico_debug.walk.choices import Kind, Unsure

KEY_BYTES: Final = {4: 20, 6: 32}
"""Bytes of an IP set key by IP version."""
VALUE_BYTES: Final = 4


class PrefixTrie:
    """Keys of a longest-prefix map: ``prefix length (u32, little-endian), data``."""

    __slots__ = ("_bits", "_by_length", "_lengths")

    def __init__(self, key_bytes: int, keys: Iterable[bytes]) -> None:
        """``key_bytes`` as the map has it; keys of another size are not this map's and are left out."""
        self._bits = (key_bytes - 4) * 8
        self._by_length: dict[int, set[int]] = {}
        for key in keys:
            length = int.from_bytes(key[:4], "little")
            if len(key) == key_bytes and length <= self._bits:
                prefix = int.from_bytes(key[4:], "big") >> (self._bits - length)
                self._by_length.setdefault(length, set()).add(prefix)
        self._lengths = sorted(self._by_length, reverse=True)

    def contains(self, key: bytes, known: bytes | None = None) -> bool | Unsure:
        """Whether any stored prefix, no longer than the key's own, covers the key.

        ``known`` has the key's settled bits set; None means all. The answer is open when a prefix reaches into others.
        """
        length = int.from_bytes(key[:4], "little")
        if length > self._bits:
            return False
        data = int.from_bytes(key[4:], "big")
        whole = (1 << self._bits) - 1
        settled = whole if known is None else int.from_bytes(known[4:], "big")
        doubt = False
        for stored in self._lengths:
            if stored > length:
                continue
            shift = self._bits - stored
            bits = settled >> shift
            if bits == whole >> shift:
                if data >> shift in self._by_length[stored]:
                    return True
            elif not doubt:
                doubt = any(not (prefix ^ data >> shift) & bits for prefix in self._by_length[stored])
        return Unsure(Kind.UNKNOWN, "membership of an IP set") if doubt else False
