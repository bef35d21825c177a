from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calico_debug.decode.nft_json import decode_ruleset
from calico_debug.errors import EvidenceError
from calico_debug.model.nft import (
    Bitwise,
    Harmless,
    Interval,
    Lookup,
    Match,
    Meta,
    NamePrefix,
    Payload,
    SetMeta,
    UnknownExpression,
    UnknownStatement,
    Verdict,
)
from calico_debug.state.ruleset import RecordedRuleset
from tests.decode.netlink_replay import LISTING, PLACES, refusal
from tests.lab import recorded

PORT = {"payload": {"protocol": "tcp", "field": "dport"}}
SPORT = {"payload": {"protocol": "tcp", "field": "sport"}}
DPORT = Payload("transport", 16, 16)
TCP = Match(Meta("l4proto"), "==", 6)


def listing(*objects: dict[str, Any]) -> str:
    return json.dumps({"nftables": [{"table": {"family": "inet", "name": "t", "handle": 1}}, *objects]})


def statements_of(*expressions: Any, family: str = "inet") -> tuple[object, ...]:
    chain = {"chain": {"family": family, "table": "t", "name": "c", "handle": 1}}
    rule = {"rule": {"family": family, "table": "t", "chain": "c", "handle": 2, "expr": list(expressions)}}
    (found,) = decode_ruleset(listing(chain, rule), "x").rules(family, "t", "c") or ()
    return found.statements


def match(left: Any, right: Any, operator: str = "==") -> dict[str, Any]:
    return {"match": {"op": operator, "left": left, "right": right}}


def test_protocol_is_asked_for_once() -> None:
    assert statements_of(match(PORT, 80), match(PORT, {"range": [1, 90]})) == (
        TCP,
        Match(DPORT, "==", 80),
        Match(DPORT, "==", Interval(1, 90)),
    )


def test_protocol_that_the_rule_names_is_not_asked_for_again() -> None:
    protocol = match({"payload": {"protocol": "ip", "field": "protocol"}}, "tcp")
    assert TCP not in statements_of(protocol, match(PORT, 80), family="ip")


def test_network_protocol_is_asked_for_where_the_family_leaves_it_open() -> None:
    saddr = match({"payload": {"protocol": "ip", "field": "saddr"}}, {"prefix": {"addr": "10.0.0.0", "len": 8}})
    prefix = Match(Bitwise(Payload("network", 96, 32), 0xFF000000, 0), "==", 0x0A000000)
    assert statements_of(saddr) == (Match(Meta("nfproto"), "==", 2), prefix)
    assert statements_of(saddr, family="ip") == (prefix,)


def test_any_of_flags_and_none_of_flags() -> None:
    state = {"ct": {"key": "state"}}
    (any_of,) = statements_of(match(state, ["established", "related"], "in"))
    (none_of,) = statements_of(match(state, "invalid", "!"))
    assert isinstance(any_of, Match)
    assert isinstance(none_of, Match)
    assert (any_of.operator, any_of.right, any_of.left.mask) == ("!=", 0, 6)  # type: ignore[union-attr]
    assert (none_of.operator, none_of.right, none_of.left.mask) == ("==", 0, 1)  # type: ignore[union-attr]


def test_newer_listing_with_many_operands() -> None:
    mark = {"meta": {"key": "mark"}}
    assert statements_of({"mangle": {"key": mark, "value": {"|": [mark, 1, 4, 8]}}}) == (
        SetMeta("mark", Bitwise(Meta("mark"), 0xFFFFFFFF & ~13, 13)),
    )


def test_wildcard_and_literal_star() -> None:
    name = {"meta": {"key": "iifname"}}
    assert statements_of(match(name, "cali*")) == (Match(Meta("iifname"), "==", NamePrefix("cali")),)
    assert statements_of(match(name, "cali\\*")) == (Match(Meta("iifname"), "==", "cali*"),)


def test_index_is_compared_by_name() -> None:
    assert statements_of(match({"meta": {"key": "iif"}}, "lo")) == (Match(Meta("iifname"), "==", "lo"),)


def test_named_set_stays_a_name() -> None:
    (_, lookup) = statements_of(match(PORT, "@ports", "!="))
    assert lookup == Lookup(DPORT, "ports", negated=True)


def test_time_of_day_is_not_guessed() -> None:
    (found,) = statements_of(match({"meta": {"key": "hour"}}, "10:00"))
    assert isinstance(found, Match)
    assert isinstance(found.left, UnknownExpression)
    assert "time zone" in found.left.text


@pytest.mark.parametrize(
    "item",
    [
        {"teleport": {"to": "mars"}},
        {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "colour"}}, "right": 5}},
        {"match": {"op": "almost", "left": PORT, "right": 5}},
        {"match": {"op": "==", "left": PORT, "right": "no-such-service"}},
        {"match": {"op": "==", "left": PORT, "right": 70000}},
        {"match": {"op": "==", "left": PORT}},
        {"match": None},
        {"reject": {"type": "harshly"}},
        {"limit": {}},
        {"mangle": {"key": {"payload": {"base": "nh", "offset": 0, "len": 100000000}}, "value": 1}},
        {"xt": {"type": "match", "name": "multiport"}},
        {"match": {"op": "in", "left": {"ct": {"key": "label"}}, "right": 2**100}},
        "accept",
        None,
        {"accept": None, "drop": None},
    ],
    ids=repr,
)
def test_what_is_not_understood_is_shown_and_the_rest_is_kept(item: Any) -> None:
    first, second = statements_of(item, {"drop": None})
    assert isinstance(first, UnknownStatement)
    assert second == Verdict("drop")


def test_only_neighbours_that_both_must_differ_are_doubted() -> None:
    sport, dport = match(SPORT, 5, "!="), match(PORT, 6, "!=")
    both = statements_of(sport, dport, {"drop": None})
    unknown = [s for s in both if isinstance(getattr(s, "left", 0), UnknownExpression)]
    assert len(unknown) == 1
    for apart in ([dport, sport], [sport, {"counter": None}, dport], [sport, match(PORT, 6)], [match(SPORT, 5), dport]):
        assert not any(isinstance(getattr(s, "left", 0), UnknownExpression) for s in statements_of(*apart))


def test_a_field_behind_the_ethernet_link_type_is_doubted() -> None:
    ethernet, port = match({"meta": {"key": "iiftype"}}, "ether"), match(PORT, 6)
    assert any(isinstance(getattr(s, "left", 0), UnknownExpression) for s in statements_of(ethernet, port))
    for apart in ([port, ethernet], [ethernet, {"drop": None}]):
        assert not any(isinstance(getattr(s, "left", 0), UnknownExpression) for s in statements_of(*apart))


def test_xt_extensions_are_named() -> None:
    assert statements_of({"xt": {"type": "target", "name": "MARK"}}) == (UnknownStatement("xt target MARK"),)
    assert statements_of({"xt": {"type": "match", "name": "comment"}}) == (Harmless("xt match comment"),)


def test_element_that_is_not_understood_makes_the_set_unusable() -> None:
    broken = {"set": {"family": "inet", "table": "t", "name": "s", "type": "ipv4_addr", "elem": ["10.0.0.1", "moon"]}}
    with pytest.raises(EvidenceError, match=r"x: set s of table inet t has an element .*moon"):
        decode_ruleset(listing(broken), "x").elements("inet", "t", "s")


def test_set_typed_by_an_expression() -> None:
    kind = {"typeof": {"concat": [{"payload": {"protocol": "ip", "field": "dscp"}}, {"meta": {"key": "mark"}}]}}
    typed = {"set": {"family": "ip", "table": "t", "name": "s", "type": kind, "elem": [{"concat": ["cs1", 5]}]}}
    content = decode_ruleset(listing(typed), "x").elements("ip", "t", "s")
    assert content is not None
    assert content.widths == (6, 32)
    assert list(content.exact) == [(8, 5)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "node/nft-ruleset.json is empty; record it again with: nft -j list ruleset"),
        (b"  \n", "is empty"),
        (b'{"nftables": [', r"not JSON, or was cut off \(line 1, column 15"),
        (b"# table ip calico", "not JSON"),
        (b"[]", 'no list "nftables"'),
        (b'{"items": []}', 'no list "nftables"'),
        (b'{"nftables": {}}', 'no list "nftables"'),
        (b"\xff\xfe\xfd", "is not text"),
        (b"[" * 100_000, "is not the JSON of a ruleset"),
        (b'{"nftables": [5]}', "object 0 of the ruleset is malformed"),
        (b'{"nftables": [{"chain": {"family": "ip"}}]}', "object 0 of the ruleset is malformed"),
        (b'{"nftables": [' + b"9" * 5000 + b"]}", "is not the JSON of a ruleset"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_bad_files(text: bytes, message: str) -> None:
    with pytest.raises(EvidenceError, match=message) as caught:
        decode_ruleset(text, "node/nft-ruleset.json")
    assert "\n" not in str(caught.value)
    assert "nft -j list ruleset" in str(caught.value)


def read_everything(text: str | bytes) -> None:
    ruleset = RecordedRuleset.read(text, "x")
    ruleset.tables()
    ruleset.base_chains()
    for place in PLACES:
        ruleset.rules(*place)
        ruleset.elements(*place)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(LISTING)), st.integers(0, len(LISTING) - 1), st.characters())
def test_cut_and_damaged_text(end: int, position: int, character: str) -> None:
    for text in (LISTING[:end], LISTING[:position] + character + LISTING[position + 1 :]):
        assert "\n" not in refusal(lambda text=text: read_everything(text))  # type: ignore[misc]


words = st.sampled_from(["*", "@x", "tcp"])
names = st.sampled_from(["set", "map", "elem", "val", "concat", "range", "prefix", "|"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_replaced_pieces(data: st.DataObject) -> None:
    document = json.loads(LISTING)
    target: Any = document
    for _ in range(data.draw(st.integers(1, 9))):
        if not isinstance(target, list | dict) or not target:
            break
        keys = list(target) if isinstance(target, dict) else list(range(len(target)))
        key = data.draw(st.sampled_from(keys))
        if data.draw(st.integers(0, 4)) == 0:
            target[key] = data.draw(values)
            break
        target = target[key]
    assert "\n" not in refusal(lambda: read_everything(json.dumps(document)))


def test_recordings_are_understood() -> None:
    root = recorded.recordings()
    if root is None:
        pytest.skip("no recordings: set CALICO_DEBUG_RECORDINGS to their directory")
    rules = 0
    for path in root.glob("*/nodes/*/nft-ruleset.json"):
        tables = decode_ruleset(path.read_bytes(), str(path))
        assert all(tables.elements(*place) is not None for place in tables.sets())
        for chain in tables.chains():
            for rule in tables.rules(chain.family, chain.table, chain.name) or ():
                rules += 1
                unknown = [s.text for s in rule.statements if isinstance(s, UnknownStatement)]
                assert all(text.startswith("xt ") for text in unknown), (path, rule)
                assert not any(isinstance(getattr(s, "left", None), UnknownExpression) for s in rule.statements)
    assert rules > 1000
