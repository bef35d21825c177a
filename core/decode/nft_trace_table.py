"""The table that makes the kernel trace one flow, as netlink messages. Only bytes are made here.

The table has the flag NFT_TABLE_F_OWNER (Linux 5.12): nobody but the socket that made it may change it, and the kernel
deletes it when that socket closes, however its process ends. Its rules set nothing but the packet's trace bit, so no
packet fares otherwise for it. Each hook has a last chain without rules: a packet is seen there when it got through.

Source: include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h; attributes' numbers stand beside their use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.decode.netlink_attributes import attribute, nested, string_attribute
from calico_debug.decode.nft_netlink_constants import CT_KEYS, FAMILY_NUMBERS, HOOKS, META_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from calico_debug.model.observation import FlowTuple

NFT_MSG_NEWTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE = 0, 3, 6
NFT_TABLE_F_OWNER = 0x2
NFTA_TABLE_OWNER = 7
"""Attribute of a table that somebody owns."""

PREFIX = "calico-debug-"
"""How the names of observers' tables begin."""

FIRST, TRACKED, LAST = -(2**31) + 1, -199, 2**31 - 2
"""Priorities: before everything, right behind conntrack (NF_IP_PRI_CONNTRACK is -200), behind everything."""

STARTS = ("prerouting", "output")
"""Hooks where a packet enters nf_tables."""
ENDS = ("prerouting", "input", "forward", "output", "postrouting")

FIRST_CHAIN, TRACKED_CHAIN, LAST_CHAIN = "first-", "tracked-", "last-"
"""What stands before the hook in the names of the table's chains."""

_REGISTER = 1
_PAYLOAD_NETWORK, _PAYLOAD_TRANSPORT = 1, 2
_WITH_PORTS = frozenset({6, 17, 132})
_SECOND = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What a rule traces at the most, kept by the kernel: packets a second, packets at once, bytes altogether.

    ``burst`` packets of the largest size (64 KiB) are within ``bytes``: who saw fewer packets missed none.
    """

    rate: int = 200
    burst: int = 100
    bytes: int = 8 << 20


Message = tuple[int, int, bytes]
"""Message type, NFPROTO_… number and attributes."""


def table_messages(name: str, version: int, flows: Sequence[FlowTuple], limits: Limits) -> Iterator[Message]:
    """The messages of one transaction that makes the table for flows of IP ``version``."""
    family = FAMILY_NUMBERS["ip" if version == 4 else "ip6"]
    yield NFT_MSG_NEWTABLE, family, string_attribute(1, name) + attribute(2, NFT_TABLE_F_OWNER.to_bytes(4))
    for hook in STARTS:
        yield NFT_MSG_NEWCHAIN, family, _chain(name, FIRST_CHAIN + hook, hook, FIRST)
        yield NFT_MSG_NEWCHAIN, family, _chain(name, TRACKED_CHAIN + hook, hook, TRACKED)
    for hook in ENDS:
        yield NFT_MSG_NEWCHAIN, family, _chain(name, LAST_CHAIN + hook, hook, LAST)
    for hook in STARTS:
        for flow in flows:
            for chain, matches in ((FIRST_CHAIN, _by_headers(flow)), (TRACKED_CHAIN, _by_connection(flow))):
                rule = b"".join((*matches, *_bounded(limits), *_trace()))
                # NFTA_RULE_TABLE=1, NFTA_RULE_CHAIN=2, NFTA_RULE_EXPRESSIONS=4
                place = string_attribute(1, name) + string_attribute(2, chain + hook)
                yield NFT_MSG_NEWRULE, family, place + nested(4, rule)


def _chain(table: str, name: str, hook: str, priority: int) -> bytes:
    """NFTA_CHAIN_TABLE=1, …_NAME=3, …_HOOK=4 with NFTA_HOOK_HOOKNUM=1 and …_PRIORITY=2, …_TYPE=7."""
    number = HOOKS["ip"].index(hook)
    place = attribute(1, number.to_bytes(4)) + attribute(2, priority.to_bytes(4, signed=True))
    return string_attribute(1, table) + string_attribute(3, name) + nested(4, place) + string_attribute(7, "filter")


def _by_headers(flow: FlowTuple) -> Iterator[bytes]:
    """The packet's own addresses and ports are the flow's."""
    offset, size = (12, 4) if flow.source.version == 4 else (8, 16)
    yield from _compared(_load_meta("l4proto"), bytes([flow.protocol]))
    yield from _compared(_load_payload(_PAYLOAD_NETWORK, offset, size), flow.source.packed)
    yield from _compared(_load_payload(_PAYLOAD_NETWORK, offset + size, size), flow.destination.packed)
    for place, port in _ports(flow):
        yield from _compared(_load_payload(_PAYLOAD_TRANSPORT, 2 * place, 2), port.to_bytes(2))


def _by_connection(flow: FlowTuple) -> Iterator[bytes]:
    """The connection's original direction is the flow: its answers, too, and whatever was translated since."""
    yield from _compared(_load_meta("l4proto"), bytes([flow.protocol]))
    yield from _compared(_load_original("saddr"), flow.source.packed)
    yield from _compared(_load_original("daddr"), flow.destination.packed)
    for place, port in _ports(flow):
        yield from _compared(_load_original(("proto-src", "proto-dst")[place]), port.to_bytes(2))


def _ports(flow: FlowTuple) -> Iterator[tuple[int, int]]:
    if flow.protocol in _WITH_PORTS:
        for place, port in enumerate((flow.source_port, flow.destination_port)):
            if port is not None:
                yield place, port


def _compared(load: bytes, value: bytes) -> tuple[bytes, bytes]:
    """NFTA_CMP_SREG=1, …_OP=2 (NFT_CMP_EQ is 0), …_DATA=3 with NFTA_DATA_VALUE=1."""
    compare = attribute(1, _REGISTER.to_bytes(4)) + attribute(2, bytes(4)) + nested(3, attribute(1, value))
    return load, _expression("cmp", compare)


def _load_meta(key: str) -> bytes:
    """NFTA_META_DREG=1, NFTA_META_KEY=2."""
    number = META_KEYS.index(key).to_bytes(4)
    return _expression("meta", attribute(1, _REGISTER.to_bytes(4)) + attribute(2, number))


def _load_payload(base: int, offset: int, size: int) -> bytes:
    """NFTA_PAYLOAD_DREG=1, …_BASE=2, …_OFFSET=3, …_LEN=4."""
    values = (_REGISTER, base, offset, size)
    fields = b"".join(attribute(kind, value.to_bytes(4)) for kind, value in enumerate(values, 1))
    return _expression("payload", fields)


def _load_original(key: str) -> bytes:
    """NFTA_CT_DREG=1, …_KEY=2, …_DIRECTION=3 (IP_CT_DIR_ORIGINAL is 0)."""
    number = CT_KEYS.index(key).to_bytes(4)
    return _expression("ct", attribute(1, _REGISTER.to_bytes(4)) + attribute(2, number) + attribute(3, bytes(1)))


def _bounded(limits: Limits) -> Iterator[bytes]:
    """NFTA_LIMIT_RATE=1, …_UNIT=2 (seconds), …_BURST=3; NFTA_QUOTA_BYTES=1."""
    rate = attribute(1, limits.rate.to_bytes(8)) + attribute(2, _SECOND.to_bytes(8))
    yield _expression("limit", rate + attribute(3, limits.burst.to_bytes(4)))
    yield _expression("quota", attribute(1, limits.bytes.to_bytes(8)))


def _trace() -> Iterator[bytes]:
    """``meta nftrace set 1``: NFTA_IMMEDIATE_DREG=1, …_DATA=2; NFTA_META_KEY=2, NFTA_META_SREG=3."""
    value = nested(2, attribute(1, b"\x01"))
    yield _expression("immediate", attribute(1, _REGISTER.to_bytes(4)) + value)
    number = META_KEYS.index("nftrace").to_bytes(4)
    yield _expression("meta", attribute(2, number) + attribute(3, _REGISTER.to_bytes(4)))


def _expression(name: str, data: bytes) -> bytes:
    """NFTA_LIST_ELEM=1 with NFTA_EXPR_NAME=1 and NFTA_EXPR_DATA=2."""
    return nested(1, string_attribute(1, name) + nested(2, data))
