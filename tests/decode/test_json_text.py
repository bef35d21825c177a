"""Everything that can be wrong with JSON is one line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode.json_text import first_wins, parse_json, parse_objects
from calico_debug.errors import EvidenceError


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "x.json of b is empty"),
        (b" \n", "is empty"),
        (b'[{"a": 1}, ', "at line 1, column 12.*truncated"),
        (b"<html>", "not complete JSON"),
        (b'["\xff"]', "byte 2 is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5000, "digits"),
    ],
)
def test_damage_is_named(data: bytes, message: str) -> None:
    with pytest.raises(EvidenceError, match=message) as caught:
        parse_json(data, "x.json of b")
    assert "record it again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_objects_of_a_list() -> None:
    assert parse_objects(b'[{"a": 1}, {}, {"b": 2}]', "x") == [{"a": 1}, {"b": 2}]
    for foreign in (b"{}", b"[1]", b"null", b'"x"'):
        with pytest.raises(EvidenceError, match="is not a list of objects"):
            parse_objects(foreign, "x")


def test_the_first_of_repeated_keys() -> None:
    assert parse_json(b'{"dst": "a", "x": 1, "dst": "b"}', "x", object_pairs_hook=first_wins) == {"dst": "a", "x": 1}


@given(
    st.binary(max_size=60)
    | st.text(max_size=60).map(str.encode)
    | st.lists(st.integers()).map(json.dumps).map(str.encode)
)
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    try:
        parse_json(data, "x")
    except EvidenceError:
        return
    json.loads(data)
