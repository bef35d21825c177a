"""Packets as bytes, and back: enough of Ethernet, IPv4, IPv6, TCP, UDP and ICMP for probes that are told apart."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
ETHERTYPES = {4: 0x0800, 6: 0x86DD}
TIME_TO_LIVE = 64
_WITH_PORTS = frozenset({TCP, UDP})
_ICMP_ERRORS = {ICMP: frozenset({3, 4, 5, 11, 12}), ICMPV6: frozenset({1, 2, 3, 4})}


@dataclass(frozen=True, slots=True)
class Datagram:
    """What an IP packet says. For ICMP ``sport`` is the type, ``dport`` the code; ``flags`` are TCP's."""

    source: Address
    destination: Address
    protocol: int
    sport: int
    dport: int
    flags: int = 0
    payload: bytes = b""

    @property
    def is_error(self) -> bool:
        """Whether it is an ICMP error about another packet."""
        return self.sport in _ICMP_ERRORS.get(self.protocol, ())


def checksum(data: bytes) -> int:
    """The Internet checksum, RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def transport(datagram: Datagram) -> bytes:
    """The packet behind the IP header, checksum filled in."""
    ports = struct.pack("!HH", datagram.sport, datagram.dport)
    payload = datagram.payload
    if datagram.protocol == TCP:
        body, at = ports + struct.pack("!IIBBHHH", 1, 1, 5 << 4, datagram.flags, 1000, 0, 0) + payload, 16
    elif datagram.protocol == UDP:
        body, at = ports + struct.pack("!HH", 8 + len(payload), 0) + payload, 6
    else:
        body, at = struct.pack("!BBH", datagram.sport, datagram.dport, 0) + payload, 2
    pseudo = b""
    if datagram.protocol != ICMP:
        pseudo = datagram.source.packed + datagram.destination.packed
        pseudo += struct.pack("!IHBB", len(body), 0, 0, datagram.protocol)
    return body[:at] + struct.pack("!H", checksum(pseudo + body)) + body[at + 2 :]


def packet(datagram: Datagram) -> bytes:
    """The whole IP packet."""
    body = transport(datagram)
    ends = datagram.source.packed + datagram.destination.packed
    if datagram.source.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(body), datagram.protocol, TIME_TO_LIVE) + ends + body
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0x4000, TIME_TO_LIVE, datagram.protocol, 0) + ends
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body


def parse(data: bytes) -> Datagram | None:
    """An IP packet's meaning, None for what is not one of ours."""
    if len(data) < 20:
        return None
    if data[0] >> 4 == 4:
        size = (data[0] & 15) * 4
        return parse_transport(ip_address(data[12:16]), ip_address(data[16:20]), data[9], data[size:])
    if data[0] >> 4 == 6 and len(data) >= 40:
        return parse_transport(ip_address(data[8:24]), ip_address(data[24:40]), data[6], data[40:])
    return None


def parse_transport(source: Address, destination: Address, protocol: int, body: bytes) -> Datagram | None:
    """What follows an IP header."""
    if protocol in _WITH_PORTS:
        sport, dport = struct.unpack_from("!HH", body)
        flags = body[13] if protocol == TCP else 0
        return Datagram(source, destination, protocol, sport, dport, flags, body[20 if protocol == TCP else 8 :])
    if protocol in (ICMP, ICMPV6):
        return Datagram(source, destination, protocol, body[0], body[1], 0, body[4:])
    return None
