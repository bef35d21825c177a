"""Trace events of nf_tables (NFT_MSG_TRACE), as ``nft monitor trace`` gets them.

Source: include/uapi/linux/netfilter/nf_tables.h, net/netfilter/nf_tables_trace.c. How much of a packet's headers an
event has: nf_trace_fill_pkt_info, at most the first 20 bytes of a transport header, 40 of a network header.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, NamedTuple

from calico_debug.decode.netlink_attributes import NFGENMSG_SIZE, parse, text
from calico_debug.decode.nft_netlink import family_of
from calico_debug.decode.nft_netlink_constants import CT_DIRECTIONS, VERDICTS
from calico_debug.model.observation import Headers, TraceEvent

if TYPE_CHECKING:
    from collections.abc import Mapping

NFT_MSG_TRACE = 17
NFNLGRP_NFTRACE = 9
"""The multicast group of trace events (include/uapi/linux/netfilter/nfnetlink.h)."""


class TraceAttribute(NamedTuple):
    """An attribute of an event: its number, and the Linux that had it first."""

    number: int
    since: str


ATTRIBUTES: Mapping[str, TraceAttribute] = {
    "table": TraceAttribute(1, "4.5"),
    "chain": TraceAttribute(2, "4.5"),
    "rule_handle": TraceAttribute(3, "4.5"),
    "type": TraceAttribute(4, "4.5"),
    "verdict": TraceAttribute(5, "4.5"),
    "id": TraceAttribute(6, "4.5"),
    "network_header": TraceAttribute(8, "4.5"),
    "transport_header": TraceAttribute(9, "4.5"),
    "iif": TraceAttribute(10, "4.5"),
    "oif": TraceAttribute(12, "4.5"),
    "mark": TraceAttribute(14, "4.5"),
    "policy": TraceAttribute(16, "4.5"),
    "ct_direction": TraceAttribute(19, "6.16"),
}
"""NFTA_TRACE_… that are read (enum nft_trace_attributes)."""

KINDS: Mapping[int, str] = {1: "policy", 2: "return", 3: "rule"}
"""enum nft_trace_types."""
_RETURN, _RULE = 2, 3

_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
"""NFTA_VERDICT_CODE and NFTA_VERDICT_CHAIN."""

_TCP, _ICMPS = 6, (1, 58)
_WITH_PORTS = frozenset({6, 17, 33, 132, 136})
"""Protocols whose header begins with the ports: TCP, UDP, DCCP, SCTP, UDP-Lite."""
_FRAGMENT_OFFSET = 0x1FFF
_IPV6_FRAGMENT = 44


def decode_event(message: bytes) -> TraceEvent:
    """One NFT_MSG_TRACE payload. Raises ValueError or KeyError when it is malformed."""
    attributes = parse(message[NFGENMSG_SIZE:])
    found = {name: attributes[row.number] for name, row in ATTRIBUTES.items() if row.number in attributes}
    kind = _number(found.get("type", b""))
    if kind == _RULE and "rule_handle" not in found:
        # The end of a chain comes as an event of a rule that is none (nft_rule_is_last).
        kind = _RETURN
    verdict, target = _verdict(found.get("verdict", b""))
    if "policy" in found and kind == 1:
        verdict = VERDICTS.get(_number(found["policy"]) & 0xFF, "unknown")
    direction = _number(found["ct_direction"]) if "ct_direction" in found else None
    return TraceEvent(
        family_of(message),
        text(found["table"]),
        text(found.get("chain", b"")),
        KINDS.get(kind, f"type {kind}"),
        _number(found["id"]),
        verdict,
        target,
        _optional(found.get("rule_handle")),
        _optional(found.get("iif")),
        _optional(found.get("oif")),
        _optional(found.get("mark")),
        CT_DIRECTIONS[direction] if direction is not None and direction < len(CT_DIRECTIONS) else "",
        _headers(found.get("network_header", b""), found.get("transport_header", b"")),
    )


def _number(data: bytes) -> int:
    return int.from_bytes(data)


def _optional(data: bytes | None) -> int | None:
    return None if data is None else _number(data)


def _verdict(data: bytes) -> tuple[str, str]:
    if not data:
        return "", ""
    attributes = parse(data)
    code = int.from_bytes(attributes.get(_VERDICT_CODE, b"\xff\xff\xff\xff"), signed=True)
    # The low byte of a verdict that ends a packet is the verdict; the rest is an errno or a queue.
    word = VERDICTS.get(code) or (VERDICTS.get(code & 0xFF) if code >= 0 else None) or f"verdict {code}"
    return word, text(attributes.get(_VERDICT_CHAIN, b""))


def _headers(network: bytes, transport: bytes) -> Headers | None:
    """The headers as far as the event has them; None when it has not even the addresses."""
    if len(network) >= 20 and network[0] >> 4 == 4:
        protocol = network[9]
        ends: tuple[IPv4Address | IPv6Address, ...] = (IPv4Address(network[12:16]), IPv4Address(network[16:20]))
        whole = not int.from_bytes(network[6:8]) & _FRAGMENT_OFFSET
    elif len(network) >= 40 and network[0] >> 4 == 6:
        protocol = network[6]
        ends = (IPv6Address(network[8:24]), IPv6Address(network[24:40]))
        whole = protocol != _IPV6_FRAGMENT
    else:
        return None
    ports: tuple[int | None, int | None] = (None, None)
    flags = icmp = None
    if whole and protocol in _WITH_PORTS and len(transport) >= 4:
        ports = int.from_bytes(transport[:2]), int.from_bytes(transport[2:4])
        flags = transport[13] if protocol == _TCP and len(transport) >= 14 else None
    elif whole and protocol in _ICMPS and len(transport) >= 2:
        icmp = transport[0], transport[1]
    return Headers(protocol, ends[0], ends[1], *ports, flags, icmp)
