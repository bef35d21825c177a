"""Regions: bounds, open bytes, stored addresses."""

from __future__ import annotations

import pytest

from calico_debug.model.bytecode import BytecodeError
from calico_debug.model.values import Partial
from calico_debug.walk.bpf_memory import Pointer, Region
from calico_debug.walk.bpf_values import Unsettled


def test_numbers_are_little_endian() -> None:
    region = Region("value", bytes(16))
    region.store(4, 4, 0x11223344AABBCCDD)
    assert bytes(region.data[4:8]) == b"\xdd\xcc\xbb\xaa"
    assert region.load(4, 2) == 0xCCDD


@pytest.mark.parametrize(("offset", "size"), [(-1, 1), (13, 4), (16, 1), (100, 8), (-8, 8)])
def test_outside(offset: int, size: int) -> None:
    region = Region("value", bytes(16))
    with pytest.raises(BytecodeError, match=rf"read of {size} bytes at value\{offset:+d}, which has 16 bytes"):
        region.load(offset, size)
    with pytest.raises(BytecodeError, match="write of"):
        region.store(offset, size, 0)


def test_refusals_say_why() -> None:
    with pytest.raises(BytecodeError, match="not aligned"):
        Region("stack", bytes(16), aligned=True).load(3, 2)
    with pytest.raises(BytecodeError, match="read-only"):
        Region("context", bytes(16), writable=False).store(0, 4, 1)
    assert Region("value", bytes(16)).load(3, 2) == 0


def test_open_fields_keep_their_reason() -> None:
    region = Region("state", bytes(16))
    region.put(4, 2, Partial(0x1200, 0xFF00, 16, "port: not given"))
    field = region.load(4, 2)
    assert isinstance(field, Unsettled)
    assert (field.value, field.mask, field.why) == (0x1200, 0xFF, "port: not given")
    assert region.load(5, 1) == 0x12
    again = region.load(4, 2)
    assert isinstance(again, Unsettled)
    assert again.origin == field.origin
    region.store(4, 1, 7)
    assert region.load(4, 2) == 0x1207


def test_a_field_that_was_written_is_another() -> None:
    region = Region("state", bytes(16))
    region.put(0, 4, Partial(0, 0, 32, "open"))
    before = region.load(0, 4)
    region.store(0, 1, 7)
    after = region.load(0, 4)
    assert isinstance(before, Unsettled)
    assert isinstance(after, Unsettled)
    assert before.origin != after.origin


def test_network_order() -> None:
    region = Region("state", bytes(16))
    region.put(0, 4, Partial(0x0A000000, 0xFF000000, 32, "open"), order="big")
    assert region.load(0, 1) == 10
    assert isinstance(region.load(1, 1), Unsettled)


def test_addresses() -> None:
    region = Region("stack", bytes(32), known=False)
    pointer = Pointer(region, 3)
    region.store(8, 8, pointer)
    assert region.load(8, 8) is pointer
    assert isinstance(region.load(8, 4), Unsettled)
    with pytest.raises(BytecodeError, match="cut to 4 bytes"):
        region.store(16, 4, pointer)
    region.store(12, 4, 0)
    assert isinstance(region.load(8, 8), Unsettled)
