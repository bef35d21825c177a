from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode.netlink_attributes import NESTED, attribute, nested, number, parse, parse_list, text


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=6))
def test_what_is_encoded_is_decoded(pairs: list[tuple[int, bytes]]) -> None:
    assert parse_list(b"".join(attribute(kind, value) for kind, value in pairs)) == pairs


def test_flag_of_nesting_is_not_part_of_the_type() -> None:
    assert nested(3, b"")[3] == NESTED >> 8
    assert parse(nested(3, attribute(1, b"abcd"))) == {3: attribute(1, b"abcd")}


@pytest.mark.parametrize("data", [b"\x03\x00\x01\x00", b"\x09\x00\x01\x00abcd", b"\x00\x00\x00\x00"])
def test_lengths_that_do_not_add_up(data: bytes) -> None:
    with pytest.raises(ValueError, match="attribute of"):
        parse(data)


def test_text_and_numbers() -> None:
    assert text(b"eth0\0rest") == "eth0"
    assert text(b"\xff\0") == "\\xff"
    assert number(b"\1\0") == 256
    assert number(b"") == 0
