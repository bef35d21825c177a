from __future__ import annotations

import sys

import pytest

from calico_debug.decode.netlink_attributes import attribute, string_attribute
from calico_debug.decode.nft_fields import DATA_TYPES
from calico_debug.decode.nft_netlink_sets import KeyField, comment, decode_set, decode_verdict, encode_key, key_fields
from calico_debug.model.nft import Verdict

IPV4, PROTOCOL, SERVICE, MARK, NAME, INTEGER = 7, 12, 13, 19, 41, 4


def packed(*subtypes: int) -> int:
    number = 0
    for subtype in subtypes:
        number = number << 6 | subtype
    return number


def test_fields_of_a_concatenation() -> None:
    fields = key_fields(packed(IPV4, PROTOCOL, SERVICE), 12, ())
    assert fields is not None
    assert [(f.type.name, f.size) for f in fields] == [("ipv4_addr", 4), ("inet_proto", 1), ("inet_service", 2)]
    assert encode_key(fields, (0x0A000001, 6, 80)) == bytes((10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0))


def test_order_of_bytes_is_the_machines_own_unless_keys_must_sort() -> None:
    plain, sortable = key_fields(MARK, 4, ()), key_fields(MARK, 4, (), sortable=True)
    assert plain is not None
    assert sortable is not None
    assert encode_key(plain, 5) == (5).to_bytes(4, sys.byteorder)
    assert encode_key(sortable, 5) == (5).to_bytes(4)


def test_one_field_without_a_size_of_its_own_takes_the_rest() -> None:
    fields = key_fields(packed(IPV4, INTEGER), 8, ())
    assert fields is not None
    assert [f.size for f in fields] == [4, 4]


@pytest.mark.parametrize(
    ("subtypes", "total"),
    [
        ((INTEGER, INTEGER), 8),
        ((63,), 4),
        ((IPV4, 63), 8),
        ((IPV4, PROTOCOL), 12),
        ((IPV4,), 0),
        ((IPV4,), 65),
        ((), 4),
    ],
)
def test_types_that_do_not_tell_the_sizes(subtypes: tuple[int, ...], total: int) -> None:
    assert key_fields(packed(*subtypes), total, ()) is None


@pytest.mark.parametrize("key", [1, ("eth0",), ("eth0", 2), (1, 2, 3), ("a" * 17, 2), (1, 2**32), ("x", -1)])
def test_keys_that_do_not_fit(key: int | tuple[int | str, ...]) -> None:
    fields = [KeyField(DATA_TYPES["ifname"], 16, "big"), KeyField(DATA_TYPES["ipv4_addr"], 4, "big")]
    if key == ("eth0", 2):
        assert encode_key(fields, key)[:5] == b"eth0\0"
        return
    with pytest.raises((ValueError, OverflowError)):
        encode_key(fields, key)


def test_set_with_keys_of_no_size() -> None:
    message = bytes((2, 0, 0, 0)) + string_attribute(2, "s") + attribute(5, bytes(4))
    with pytest.raises(ValueError, match="keys of 0 bytes"):
        decode_set(message)


def test_verdicts() -> None:
    assert decode_verdict(attribute(1, (1).to_bytes(4))) == Verdict("accept")
    assert decode_verdict(attribute(1, (0).to_bytes(4))) == Verdict("drop")
    assert decode_verdict(attribute(1, (0x00050003).to_bytes(4))) == Verdict("queue")
    goto = attribute(1, (-4).to_bytes(4, signed=True)) + string_attribute(2, "c")
    assert decode_verdict(goto) == Verdict("goto", "c")
    with pytest.raises(ValueError, match="verdict -9"):
        decode_verdict(attribute(1, (-9).to_bytes(4, signed=True)))


def test_comment_among_other_user_data() -> None:
    assert comment(b"\x01\x02ab\x00\x04xyz\0") == "xyz"
    assert comment(b"\x01\x02ab") == ""
    assert comment(b"\x00\xffcut") == "cut"
