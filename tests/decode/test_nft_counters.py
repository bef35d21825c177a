"""Counters taken out of recorded messages and made-up ones are those that a full decoding finds."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode.netlink_attributes import attribute, nested, string_attribute
from calico_debug.decode.nft_counters import counted_chains, decode_rules
from calico_debug.decode.nft_netlink import decode_rule
from calico_debug.errors import EvidenceError
from tests.decode.netlink_replay import Replay, refusal
from tests.decode.test_nft_netlink import IP, NoSets

NFT_MSG_GETRULE = 7


def everything(_chain: str) -> bool:
    return True


def counter(packets: int, octets: int, *, padded: bool = False) -> bytes:
    pad = attribute(3, b"") if padded else b""
    data = pad + attribute(1, octets.to_bytes(8)) + pad + attribute(2, packets.to_bytes(8))
    return string_attribute(1, "counter") + attribute(2, data)


def rule(handle: int, *expressions: bytes, chain: str = "c", comment: bytes = b"") -> bytes:
    body = b"".join(attribute(1, expression) for expression in expressions)
    message = IP + string_attribute(1, "t") + string_attribute(2, chain) + attribute(3, handle.to_bytes(8))
    return message + attribute(6, bytes(8)) + nested(4, body) + (attribute(7, comment) if comment else b"")


def read(*messages: bytes) -> dict[str, list[tuple[int, tuple[int, int] | None]]]:
    return {
        chain.name: [(int.from_bytes(one.handle), one.counters) for one in chain.rules]
        for chain in counted_chains(messages, everything)
    }


def test_recorded_rules() -> None:
    """Of a real kernel: the same chains, rules in order, and counters as when everything is decoded."""
    exchanges = Replay()._answers
    messages = [one for asked, answers in exchanges.items() if asked[0] == NFT_MSG_GETRULE for one in answers]
    assert messages
    found = counted_chains(messages, everything)
    decoded = [decode_rule(message, NoSets()) for message in messages]
    assert sum(len(chain.rules) for chain in found) == len(messages)
    for chain in found:
        expected = [one for one in decoded if (one.family, one.table, one.chain) == chain[:3]]
        assert [int.from_bytes(one.handle) for one in chain.rules] == [one.handle for one in expected]
        for mine, theirs in zip(chain.rules, expected, strict=True):
            own = theirs.counter if theirs.counter is not None and not theirs.counter.name else None
            assert mine.counters == (None if own is None else (own.packets, own.bytes))
        assert [one.comment for one in decode_rules(chain)] == [one.comment for one in expected]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.booleans())
def test_numbers(packets: int, octets: int, padded: bool) -> None:
    assert read(rule(5, counter(packets, octets, padded=padded))) == {"c": [(5, (packets, octets))]}


def test_what_looks_like_a_counter_is_none() -> None:
    name = string_attribute(1, "counter")
    lookalike = string_attribute(1, "cmp") + attribute(2, attribute(3, attribute(1, name + bytes(4))))
    assert read(rule(1, lookalike)) == {"c": [(1, None)]}
    assert read(rule(1, lookalike, counter(3, 4))) == {"c": [(1, (3, 4))]}
    assert read(rule(1, comment=name)) == {"c": [(1, None)]}
    assert read(rule(1, counter(3, 4), comment=counter(8, 9))) == {"c": [(1, (3, 4))]}


def test_chains_are_told_apart_and_those_not_wanted_left_out() -> None:
    messages = [rule(1, chain="a"), rule(2, chain="ab"), rule(3, chain="a"), rule(4, chain="b")]
    assert read(*messages) == {"a": [(1, None), (3, None)], "ab": [(2, None)], "b": [(4, None)]}
    assert [chain.name for chain in counted_chains(messages, lambda name: name == "ab")] == ["ab"]


def test_handles_are_what_changes_with_a_rule() -> None:
    (before,), (after,) = (counted_chains([rule(n, counter(n, n))], everything) for n in (1, 2))
    assert before.handles != after.handles
    (again,) = counted_chains([rule(1, counter(9, 9))], everything)
    assert again.handles == before.handles


@given(st.binary(max_size=80))
def test_foreign_bytes_never_escape(data: bytes) -> None:
    for message in (data, IP + data, rule(1, counter(1, 1))[: len(data)]):
        said = refusal(partial(counted_chains, [message], everything))
        assert not said or "not understood" in said


def test_a_rule_whose_attributes_are_in_another_order() -> None:
    message = IP + string_attribute(2, "c") + string_attribute(1, "t") + attribute(3, bytes(8))
    with pytest.raises(EvidenceError, match="not understood"):
        counted_chains([message], everything)
