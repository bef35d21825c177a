from __future__ import annotations

import io
import json
from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.errors import EvidenceError, UsageError
from calico_debug.evidence.wire import (
    BATCH,
    pack_batches,
    pack_messages,
    tuple_document,
    tuple_of,
    unpack_batches,
    unpack_messages,
)
from calico_debug.model.bpf_objects import RawEntries
from calico_debug.model.conntrack import Tuple

octets = st.binary(max_size=40)
batches = st.lists(st.builds(RawEntries, octets, octets, st.integers(0, 2**32 - 1), st.integers(1, 512)), max_size=4)
ports = st.none() | st.integers(0, 65535)
addresses = st.ip_addresses(v=4)
tuples = st.builds(
    Tuple,
    st.integers(0, 255),
    addresses,
    addresses,
    ports,
    ports,
    st.none() | st.tuples(*[st.integers(0, 65535)] * 3),
    st.integers(0, 65535),
)


@given(st.lists(octets, max_size=6))
def test_messages_come_back(messages: list[bytes]) -> None:
    assert unpack_messages(b"".join(pack_messages(messages))) == messages


@given(batches)
def test_batches_come_back(wanted: list[RawEntries]) -> None:
    assert list(unpack_batches(io.BytesIO(b"".join(pack_batches(wanted))).read)) == wanted


@given(tuples)
def test_tuples_come_back_through_json(wanted: Tuple) -> None:
    assert tuple_of(json.loads(json.dumps(tuple_document(wanted)))) == wanted


@given(st.lists(octets, min_size=1, max_size=4), st.data())
def test_what_was_cut_off_is_noticed(messages: list[bytes], data: st.DataObject) -> None:
    packed = b"".join(pack_messages(messages))
    cut = packed[: data.draw(st.integers(0, len(packed) - 1))]
    whole = [b"".join(pack_messages(messages[:count])) for count in range(len(messages))]
    if cut in whole:  # between two messages nothing can be noticed here; HTTP tells that the end is missing
        assert unpack_messages(cut) == messages[: whole.index(cut)]
    else:
        with pytest.raises(EvidenceError, match="cut off"):
            unpack_messages(cut)


@pytest.mark.parametrize("data", [b"\1", BATCH.pack(1, 1, 4, 8) + bytes(11), BATCH.pack(1, 1, 1 << 31, 0)])
def test_batches_that_are_none(data: bytes) -> None:
    with pytest.raises(EvidenceError):
        list(unpack_batches(io.BytesIO(data).read))


def test_tuples_that_are_none() -> None:
    document = tuple_document(Tuple(6, IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")))
    for change in ({"source": "nobody"}, {"destination": str(ip_address("fd00::1"))}):
        with pytest.raises(UsageError):
            tuple_of(document | change)
