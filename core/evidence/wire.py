"""Evidence that is not a file, as bytes and JSON on the way between an agent and who asks it (docs/agent.md).

Both ends are here, so that they agree. Numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any

from calico_debug.errors import EvidenceError, UsageError
from calico_debug.model.bpf_objects import RawEntries
from calico_debug.model.conntrack import Tuple

LENGTH = struct.Struct("<I")
BATCH = struct.Struct("<IIII")
"""Of one batch: entries, possible CPUs (1 where values are not per CPU), bytes of keys, bytes of values."""

OBSERVATION_SECONDS = 60
"""Longest observation that an agent makes for others: it gives an exchange 90 s."""

LONGEST = 1 << 30
"""Bytes that one piece may claim to have; a kernel's answer or a batch of entries is far below."""

READ_REQUESTS = frozenset({1, 4, 7, 10, 13, 16})
"""NFT_MSG_GETTABLE, …GETCHAIN, …GETRULE, …GETSET, …GETSETELEM, …GETGEN: the requests that may be passed on."""
READ_FLAGS = 0x304
"""NLM_F_DUMP and NLM_F_ACK, the flags that a request which reads may have."""


def pack_messages(messages: Iterable[bytes]) -> Iterator[bytes]:
    """Each message behind its length."""
    for message in messages:
        yield LENGTH.pack(len(message)) + message


def unpack_messages(data: bytes) -> list[bytes]:
    """The messages of `pack_messages`. Raises `EvidenceError` when they do not add up."""
    found, position = [], 0
    while position < len(data):
        start = position + LENGTH.size
        if start > len(data):
            raise _torn()
        (length,) = LENGTH.unpack_from(data, position)
        position = start + length
        if position > len(data):
            raise _torn()
        found.append(data[start:position])
    return found


def pack_batches(batches: Iterable[RawEntries]) -> Iterator[bytes]:
    """Each batch behind a `BATCH`."""
    for batch in batches:
        yield BATCH.pack(batch.count, batch.cpus, len(batch.keys), len(batch.values)) + batch.keys + batch.values


def unpack_batches(read: Callable[[int], bytes]) -> Iterator[RawEntries]:
    """The batches of `pack_batches`, as they arrive. ``read`` gives that many bytes, fewer only at the end.

    Raises `EvidenceError` when it ends within a batch.
    """
    while head := read(BATCH.size):
        if len(head) < BATCH.size:
            raise _torn()
        count, cpus, key_bytes, value_bytes = BATCH.unpack(head)
        if key_bytes + value_bytes > LONGEST:
            raise EvidenceError("the agent sent a batch of map entries that is too large to be one")
        keys, values = read(key_bytes), read(value_bytes)
        if len(keys) < key_bytes or len(values) < value_bytes:
            raise _torn()
        yield RawEntries(keys, values, count, cpus)


def tuple_document(wanted: Tuple) -> dict[str, Any]:
    """A connection's tuple as JSON. Fields that are not known are left out."""
    document: dict[str, Any] = {
        "protocol": wanted.protocol,
        "source": str(wanted.source),
        "destination": str(wanted.destination),
        "sourcePort": wanted.source_port,
        "destinationPort": wanted.destination_port,
        "icmp": None if wanted.icmp is None else list(wanted.icmp),
        "zone": wanted.zone or None,
    }
    return {key: value for key, value in document.items() if value is not None}


def tuple_of(document: Mapping[str, Any]) -> Tuple:
    """The tuple of a document whose fields have the right types. Raises `UsageError` for addresses that are none."""
    try:
        source, destination = ip_address(document["source"]), ip_address(document["destination"])
    except ValueError as error:
        raise UsageError(f"not an IP address: {error}") from None
    if source.version != destination.version:
        raise UsageError("source and destination are of different IP versions")
    icmp = document.get("icmp")
    return Tuple(
        document["protocol"],
        source,
        destination,
        document.get("sourcePort"),
        document.get("destinationPort"),
        None if icmp is None else (icmp[0], icmp[1], icmp[2]),
        document.get("zone", 0),
    )


def _torn() -> EvidenceError:
    return EvidenceError("the agent's answer was cut off; try again, and look at the agent's log")
