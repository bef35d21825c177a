"""The tables of fields and names against nft itself, which describes its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from calico_debug.decode.nft_fields import (
    CT_TYPES,
    DATA_TYPES,
    FIB_TYPES,
    HEADERS,
    META_TYPES,
    SUB_BYTE_FIELDS,
    field_payload,
)
from calico_debug.decode.nft_symbols import SYMBOLS
from calico_debug.model.nft import Payload

SWAPPED = {"ether_type", "arp_op"}
"""Types whose values nft describes as the bytes lie in memory."""


def described(what: str) -> str:
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed")
    done = subprocess.run(["nft", "describe", *what.split()], capture_output=True, text=True)
    return done.stdout


@pytest.mark.parametrize(
    "name", sorted(set(SYMBOLS) - {"inet_proto", "ecn", "ct_event", "igmp_type", "devgroup", "day"})
)
def test_symbols(name: str) -> None:
    width = DATA_TYPES[name].width
    found = {}
    for symbol, value in re.findall(r"^\t(\S+)\s+(0x[0-9a-f]+|\d+)$", described(name), re.MULTILINE):
        number = int(value, 0)
        if name in SWAPPED and sys.byteorder == "little":
            number = int.from_bytes(number.to_bytes(width // 8, "little"))
        found[symbol] = number
    assert found
    assert {symbol: SYMBOLS[name].get(symbol) for symbol in found} == found


@pytest.mark.parametrize(
    ("protocol", "field"),
    [(protocol, field) for protocol, header in HEADERS.items() for field in header.fields if protocol != "th"],
)
def test_widths_of_fields(protocol: str, field: str) -> None:
    text = described(f"{protocol} {field}")
    if "payload expression" not in text:
        pytest.skip("this nft has no such field")
    match = re.search(r"(\d+) bits", text)
    assert match
    payload, kind = field_payload(protocol, field)
    assert payload.width == int(match[1])
    assert kind.width in (payload.width, 0)


def test_every_key_has_a_type() -> None:
    for table in (META_TYPES, CT_TYPES, FIB_TYPES):
        assert all(kind in DATA_TYPES for kind in table.values())


def test_fields_within_bytes() -> None:
    assert field_payload("ip", "dscp")[0] == Payload("network", 8, 6)
    assert SUB_BYTE_FIELDS["network", 8, 8, 0xFC] == (8, 6)
    assert SUB_BYTE_FIELDS["network", 0, 16, 0x0FC0] == (4, 6)
    assert SUB_BYTE_FIELDS["link", 112, 16, 0x0FFF] == (116, 12)
