"""The generation of nf_tables from the kernel's answer."""

from __future__ import annotations

from collections.abc import Iterable

from calico_debug.errors import EvidenceError, UsageError
from calico_debug.state.generation import generation
from tests.evidence.memory import MemoryNode

ANSWER = bytes.fromhex("00000000 0800 0100 0000002a 0800 0200 00000001")


def test_number() -> None:
    node = MemoryNode({})
    node.nftables = lambda kind, _flags, _family, _attributes: [ANSWER] if kind == 16 else []
    assert generation(node) == 42


def test_not_known() -> None:
    def refuse(*_: object) -> Iterable[bytes]:
        raise EvidenceError("not allowed")

    node = MemoryNode({})
    assert generation(node) is None
    node.nftables = refuse
    assert generation(node) is None

    def not_known(*_: object) -> Iterable[bytes]:
        raise UsageError("an agent of an earlier version does not pass the question on")

    node.nftables = not_known
    assert generation(node) is None
