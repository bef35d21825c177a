from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calico_debug.decode.netlink_attributes import attribute, nested, string_attribute
from calico_debug.decode.nft_netlink import (
    RegisteredHook,
    decode_chain,
    decode_registered_hook,
    decode_rule,
    decode_table,
    element_request,
    hook_request,
)
from calico_debug.model.nft import Hook, UnknownStatement
from calico_debug.state.ruleset import KernelRuleset, RecordedRuleset
from tests.decode.netlink_replay import LISTING, PLACES, Replay, refusal
from tests.decode.nft_equivalence import normalised, plain

IP = bytes((2, 0, 0, 0))


class NoSets:
    def describe(self, name: str) -> object:
        raise KeyError(name)

    def content(self, *_: object) -> object:
        raise AssertionError


def rule_of(*expressions: bytes) -> tuple[object, ...]:
    body = b"".join(nested(1, expression) for expression in expressions)
    message = IP + string_attribute(1, "t") + string_attribute(2, "c") + attribute(3, bytes(8)) + nested(4, body)
    return decode_rule(message, NoSets()).statements  # type: ignore[arg-type]


@pytest.mark.parametrize("place", PLACES, ids="/".join)
def test_recorded_messages_are_the_rules_that_nft_listed(place: tuple[str, str, str]) -> None:
    held, listed = KernelRuleset(Replay()), RecordedRuleset.read(LISTING, "listing")
    rules, expected = held.rules(*place), listed.rules(*place)
    if expected is None:
        assert plain(held.elements(*place)) == plain(listed.elements(*place))
        return
    assert [r.comment for r in rules or ()] == [r.comment for r in expected]
    assert [normalised(r.statements, {}) for r in rules or ()] == [normalised(r.statements, {}) for r in expected]


def test_table_that_is_dormant() -> None:
    message = IP + string_attribute(1, "t") + attribute(2, (1).to_bytes(4)) + attribute(4, (7).to_bytes(8))
    assert decode_table(message).dormant
    assert not decode_table(IP + string_attribute(1, "t")).dormant


def test_chain_of_devices() -> None:
    hook = attribute(1, (0).to_bytes(4)) + attribute(2, (-5).to_bytes(4, signed=True))
    hook += nested(4, string_attribute(1, "eth0") + string_attribute(1, "eth1"))
    names = string_attribute(1, "t") + attribute(2, (9).to_bytes(8)) + string_attribute(3, "c")
    chain = decode_chain(bytes((5, 0, 0, 0)) + names + nested(4, hook) + string_attribute(7, "filter"))
    assert chain.hook == Hook("filter", "ingress", -5, "accept", ("eth0", "eth1"))


def test_hook_with_a_base_chain_and_one_without() -> None:
    chain = string_attribute(1, "t") + attribute(2, b"\x02") + string_attribute(3, "c")
    own = attribute(2, (-100).to_bytes(4, signed=True)) + string_attribute(4, "ipv4_conntrack_in")
    assert decode_registered_hook(IP + own) == RegisteredHook(-100, "ipv4_conntrack_in", None)
    with_chain = own + nested(6, nested(1, chain) + attribute(2, (1).to_bytes(4)))
    assert decode_registered_hook(IP + with_chain).chain == ("ip", "t", "c")
    assert hook_request(0, "eth0") == attribute(1, bytes(4)) + string_attribute(3, "eth0")


def test_unknown_expression_is_shown_by_its_name() -> None:
    assert rule_of(string_attribute(1, "teleport")) == (UnknownStatement("teleport"),)


def test_expression_without_its_attributes_is_shown_as_unreadable() -> None:
    assert rule_of(string_attribute(1, "payload")) == (UnknownStatement("payload that could not be read"),)


def test_comparison_of_a_register_that_nothing_was_loaded_to() -> None:
    data = attribute(1, (1).to_bytes(4)) + attribute(2, (0).to_bytes(4)) + nested(3, attribute(1, b"\1\0\0\0"))
    (match,) = rule_of(string_attribute(1, "cmp") + nested(2, data))
    assert "nothing was loaded" in repr(match)


def test_sizes_that_no_register_has_are_refused() -> None:
    for size in (0, 65, 0xFFFFFFFF):
        numbers = ((1, 1), (2, 0), (3, 0), (4, size))
        data = b"".join(attribute(kind, value.to_bytes(4)) for kind, value in numbers)
        statements = rule_of(string_attribute(1, "payload") + nested(2, data))
        assert statements == (UnknownStatement("payload that could not be read"),)


def test_catch_all_is_asked_for_by_its_flag() -> None:
    assert attribute(3, (2).to_bytes(4)) in element_request("t", "s", None)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_messages_raise_nothing_but_evidence_errors(data: st.DataObject) -> None:
    def damaged(answer: bytes) -> bytes:
        changed = bytearray(answer)
        for _ in range(data.draw(st.integers(0, 3))):
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
        return bytes(changed[: data.draw(st.one_of(st.just(len(changed)), st.integers(0, len(changed))))])

    ruleset = KernelRuleset(Replay(damaged))
    for place in PLACES:
        for ask in (ruleset.rules, ruleset.elements):
            assert "\n" not in refusal(lambda ask=ask, place=place: ask(*place))  # type: ignore[misc]
