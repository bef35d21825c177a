"""C structs as tables."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from calico_debug.decode.bpf_structs import Field, Kind, Layout, address, uint

EVERY_KIND = Layout(
    48,
    (
        uint("small", 0, 1),
        uint("port", 2, 2),
        Field("network", 4, 4, Kind.UINT_BE),
        Field("signed", 8, 4, Kind.INT),
        address("v4", 12, 4),
        address("v6", 16, 6),
        Field("name", 32, 4, Kind.TEXT),
        Field("mac", 36, 6, Kind.MAC),
        Field("pair", 42, 4, Kind.UINTS, 2),
        Field("rest", 46, 2, Kind.BYTES),
    ),
    "test",
)
BYTES = bytes.fromhex(
    "01ff" "5000" "00000102" "feffffff" "0a000001" "fd000000000000000000000000000009" "65746800" "0a0b0c0d0e0f"
    "0100" "0002" "beef"
)  # fmt: skip
VALUES = {
    "small": 1,
    "port": 80,
    "network": 0x0102,
    "signed": -2,
    "v4": IPv4Address("10.0.0.1"),
    "v6": IPv6Address("fd00::9"),
    "name": "eth",
    "mac": "0a:0b:0c:0d:0e:0f",
    "pair": (1, 0x200),
    "rest": b"\xbe\xef",
}

UNION = Layout(
    8,
    (uint("kind", 0, 1),),
    selector="kind",
    variants=((1, Layout(8, (uint("number", 4),))), (2, Layout(8, (address("ip", 4, 4),)))),
)


def test_every_kind_of_field() -> None:
    assert EVERY_KIND.unpack(BYTES) == VALUES
    assert EVERY_KIND.pack(VALUES) == BYTES[:1] + b"\0" + BYTES[2:]  # padding is not kept
    assert EVERY_KIND.raw_names == tuple(VALUES)


def test_a_union_is_read_by_its_selector() -> None:
    data = bytes.fromhex("010000000a000001")
    assert UNION.unpack(data) == {"kind": 1, "number": 0x0100000A}
    assert UNION.unpack(b"\x02" + data[1:]) == {"kind": 2, "ip": IPv4Address("10.0.0.1")}
    assert UNION.unpack(b"\x09" + data[1:]) == {"kind": 9}
    assert UNION.pack({"kind": 2, "ip": IPv4Address("10.0.0.1")}) == b"\x02" + data[1:]


def test_many_at_once() -> None:
    rows = list(UNION.unpack_all(bytes.fromhex("01000000000000000200000000000000")))
    assert rows == [(1,), (2,)]
    assert UNION.name_values(rows[1], bytes.fromhex("020000000a000001"))["ip"] == IPv4Address("10.0.0.1")


@pytest.mark.parametrize("size", [0, 47, 49])
def test_another_size_is_an_error(size: int) -> None:
    with pytest.raises(ValueError, match=f"it has {size} bytes instead of 48"):
        EVERY_KIND.unpack(bytes(size))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("small", 256),
        ("port", -1),
        ("network", 1 << 32),
        ("signed", 1 << 31),
        ("v4", IPv6Address("::1")),
        ("name", "too long"),
        ("mac", "0a:0b"),
        ("pair", (1,)),
        ("pair", (1, 1 << 16)),
        ("rest", b"x"),
    ],
)
def test_what_does_not_fit_is_an_error(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        EVERY_KIND.pack({field: value})


@pytest.mark.parametrize("fields", [(uint("a", 0), uint("b", 2)), (uint("a", 6),)])
def test_a_table_with_overlaps_is_refused(fields: tuple[Field, ...]) -> None:
    with pytest.raises(ValueError, match="overlaps another or the end"):
        Layout(8, fields, "test").unpack(bytes(8))
