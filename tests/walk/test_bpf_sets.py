"""IP sets: the longest prefix, and keys of which a part is open."""

from __future__ import annotations

import struct

import pytest

from calico_debug.walk.bpf_sets import KEY_BYTES, PrefixTrie
from calico_debug.walk.choices import Unsure

SET = 0x1122334455667788


def key(length: int, address: int, port: int = 0, protocol: int = 0, number: int = SET) -> bytes:
    return struct.pack("<I", length) + struct.pack(">QI", number, address) + struct.pack("<HBB", port, protocol, 0)


def asked(address: int, port: int, protocol: int = 6, number: int = SET) -> bytes:
    return key(128, address, port, protocol, number)


TRIE = PrefixTrie(KEY_BYTES[4], [key(64 + 24, 0x0A010200), key(120, 0x0A090909, 80, 6), b"short", key(200, 1)])


@pytest.mark.parametrize(
    ("lookup", "found"),
    [
        (asked(0x0A010205, 99), True),
        (asked(0x0A010305, 99), False),
        (asked(0x0A010205, 99, number=SET + 1), False),
        (asked(0x0A090909, 80), True),
        (asked(0x0A090909, 81), False),
        (asked(0x0A090909, 80, 17), False),
        (key(87, 0x0A010200), False),
        (key(129, 0x0A010200), False),
    ],
)
def test_members(lookup: bytes, found: bool) -> None:
    assert TRIE.contains(lookup) is found


def test_open_ports() -> None:
    known = b"\xff" * 16 + b"\0\0" + b"\xff" * 2
    assert TRIE.contains(asked(0x0A010205, 0), known) is True
    assert TRIE.contains(asked(0x0B000000, 0), known) is False
    assert isinstance(TRIE.contains(asked(0x0A090909, 0), known), Unsure)
    assert TRIE.contains(asked(0x0A090909, 0, 17), known) is False


def test_open_addresses() -> None:
    known = b"\xff" * 15 + b"\0" + b"\xff" * 4
    assert TRIE.contains(asked(0x0A010200, 1), known) is True
    wider = b"\xff" * 12 + b"\0" * 4 + b"\xff" * 4
    assert isinstance(TRIE.contains(asked(0, 1), wider), Unsure)
    assert TRIE.contains(asked(0, 1, number=SET + 1), wider) is False
