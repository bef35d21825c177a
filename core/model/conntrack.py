"""Connections that the kernel tracks. Source: ``conntrack -L`` of conntrack-tools, Linux nf_conntrack_common.h."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address

STATE_BITS = {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}
"""Bits of ``ct state`` (include/uapi/linux/netfilter/nf_conntrack_common.h, NF_CT_STATE_BIT)."""

STATUS_BITS = {
    "expected": 0x1,
    "seen-reply": 0x2,
    "assured": 0x4,
    "confirmed": 0x8,
    "snat": 0x10,
    "dnat": 0x20,
    "dying": 0x200,
}
"""Bits of ``ct status`` (enum ip_conntrack_status)."""


TAKEN = frozenset({"SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT"})
"""TCP states that only an answer to the SYN leads to that was no refusal (nf_conntrack_proto_tcp.c, tcp_conntracks)."""


@dataclass(frozen=True, slots=True)
class Tuple:
    """One direction of a connection. For ICMP the "ports" are None and ``icmp`` is (type, code, id)."""

    protocol: int
    source: Address
    destination: Address
    source_port: int | None = None
    destination_port: int | None = None
    icmp: tuple[int, int, int] | None = None
    zone: int = 0


@dataclass(frozen=True, slots=True)
class Connection:
    """A tracked connection: both directions as the packets carry them, so NAT shows as a difference between the two.

    ``timeout`` is in seconds, ``state`` the protocol's own (TCP: ESTABLISHED, SYN_SENT, …; else ""). Packets and bytes
    are None where accounting is off. ``age`` (seconds) is known only with conntrack timestamps.
    """

    original: Tuple
    reply: Tuple
    timeout: int | None = None
    state: str = ""
    replied: bool = True
    assured: bool = False
    mark: int = 0
    zone: int = 0
    packets: tuple[int | None, int | None] = (None, None)
    bytes: tuple[int | None, int | None] = (None, None)
    age: int | None = None

    @property
    def status(self) -> int:
        """The bits of ``ct status`` that follow from the two tuples and flags."""
        bits = STATUS_BITS["confirmed"]
        if self.replied:
            bits |= STATUS_BITS["seen-reply"]
        if self.assured:
            bits |= STATUS_BITS["assured"]
        if (self.original.destination, self.original.destination_port) != (self.reply.source, self.reply.source_port):
            bits |= STATUS_BITS["dnat"]
        if (self.original.source, self.original.source_port) != (self.reply.destination, self.reply.destination_port):
            bits |= STATUS_BITS["snat"]
        return bits
