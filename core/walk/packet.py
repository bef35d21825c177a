"""A packet on its way: headers of which some bits are known, metadata, and its place in conntrack.

Header layouts: RFC 791 (IPv4), RFC 8200 (IPv6), RFC 9293 (TCP), RFC 768 (UDP), RFC 792 and RFC 4443 (ICMP),
RFC 9260 (SCTP).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from calico_debug.model.conntrack import STATE_BITS, STATUS_BITS
from calico_debug.model.values import Partial, Value, settle, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calico_debug.model.routing import Interface

ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
PORT_PROTOCOLS = frozenset({TCP, UDP, 33, SCTP, 136})
"""Protocols whose header begins with a source and a destination port (33 is DCCP, 136 UDP-Lite)."""

IPSET_PORT_PROTOCOLS = frozenset({TCP, UDP, SCTP, 136})
"""Protocols whose ports ipset reads (net/netfilter/ipset/ip_set_getport.c, get_port)."""

TCP_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32}
ECHO_REQUEST, ECHO_REPLY = 8, 0
ECHO_REQUEST_V6, ECHO_REPLY_V6 = 128, 129

SOURCE_PORT_OPEN = "the source port was not given"
"""Why a port of a flow is open for which none was named."""

_ETHERTYPE = {4: 0x0800, 6: 0x86DD}

Port = int | Partial | None


@dataclass(frozen=True, slots=True)
class Ends:
    """What conntrack calls a tuple, seen from the sender: addresses as integers, ports None without ports."""

    source: int
    destination: int
    source_port: Port
    destination_port: Port


@dataclass(slots=True)
class Tracking:
    """The packet's connection on one node.

    ``original`` and ``reply`` are what packets of each direction carry when they arrive; address translation changes
    ``reply``. ``done`` holds the translations ("src", "dst") that were decided for the connection.
    """

    state: int
    original: Ends
    reply: Ends
    in_reply: bool = False
    status: int = 0
    mark: int | Partial = 0
    done: set[str] = field(default_factory=set)
    existing: bool = False

    @property
    def untracked(self) -> bool:
        """Whether conntrack was told to leave the packet alone."""
        return self.state == STATE_BITS["untracked"]

    def translate(self, side: str, address: int, port: Port) -> None:
        """Record that the connection's source ("src") or destination ("dst") becomes ``address`` and ``port``."""
        before = self.reply
        if side == "dst":
            self.reply = replace(before, source=address, source_port=port)
            changed = address != before.source or port != before.source_port
        else:
            self.reply = replace(before, destination=address, destination_port=port)
            # A port that stays open is kept where no other connection uses it.
            changed = address != before.destination or (
                not isinstance(port, Partial) and port != before.destination_port
            )
        if changed:  # a translation to what is there already does not count (nf_nat_setup_info)
            self.status |= STATUS_BITS["dnat" if side == "dst" else "snat"]


class Packet:
    """One packet. The walk changes it in place, as the kernel does."""

    __slots__ = (
        "_slices",
        "destination",
        "dport",
        "family",
        "icmp_code",
        "icmp_type",
        "incoming",
        "local",
        "mark",
        "outgoing",
        "protocol",
        "service",
        "source",
        "sport",
        "tcp_flags",
        "tracking",
        "written",
    )

    def __init__(
        self,
        family: int,
        protocol: int,
        source: int,
        destination: int,
        sport: Port = None,
        dport: Port = None,
        icmp: tuple[int, int] | None = None,
        tcp_flags: int | None = None,
    ) -> None:
        """A packet before it meets the first hook; ``family`` is 4 or 6, a TCP packet is a SYN by default."""
        self.family = family
        self.protocol = protocol
        self.source = source
        self.destination = destination
        self.sport = sport
        self.dport = dport
        self.icmp_type = icmp[0] if icmp else None
        self.icmp_code = icmp[1] if icmp else None
        self.tcp_flags = TCP_FLAGS["syn"] if tcp_flags is None and protocol == TCP else tcp_flags
        self.mark: int | Partial = 0
        self.incoming: Interface | None = None
        self.outgoing: Interface | None = None
        self.local = False
        self.tracking: Tracking | None = None
        self.service: tuple[int, int | None] | None = None
        """Address and port of the service that the packet was sent to, and still has in an eBPF program's tunnel."""
        self.written: dict[str, Value | tuple[Value, ...] | None] = {}
        """Metadata other than the mark that rules wrote (pkttype, priority, …)."""
        self._slices: dict[tuple[str, int, int], int | Partial] = {}

    def ends(self) -> Ends:
        """The addresses and ports it carries now."""
        return Ends(self.source, self.destination, self.sport, self.dport)

    def readdress(self, ends: Ends) -> None:
        """Write addresses and ports into the headers."""
        self.source, self.destination = ends.source, ends.destination
        self.sport, self.dport = ends.source_port, ends.destination_port
        self._slices.clear()

    @contextmanager
    def assuming(self, ends: Ends) -> Iterator[None]:
        """As if it had these addresses and ports, for a while."""
        before, slices = self.ends(), self._slices.copy()
        self.readdress(ends)
        try:
            yield
        finally:
            self.readdress(before)
            self._slices.update(slices)

    def on_the_wire(self, keep_mark: bool) -> Packet:
        """The packet as the next node gets it, without metadata; a tunnel's other end keeps the mark."""
        icmp = (self.icmp_type, self.icmp_code) if self.icmp_type is not None and self.icmp_code is not None else None
        fresh = Packet(
            self.family, self.protocol, self.source, self.destination, self.sport, self.dport, icmp, self.tcp_flags
        )
        if keep_mark:
            fresh.mark = self.mark
        fresh.service = self.service
        return fresh

    def field(self, base: str, offset: int, width: int) -> int | Partial:
        """``width`` bits at ``offset`` bits behind ``base``, as far as they follow from the question."""
        key = (base, offset, width)
        known = self._slices.get(key)
        if known is not None:
            return known
        if base == "transport" and width == 16 and self.protocol in PORT_PROTOCOLS and offset in (0, 16):
            # Ports that nobody gave bring their own reason: a reply's destination port is the request's source port.
            port = self.sport if offset == 0 else self.dport
            if port is not None:
                return port
        if base == "network":
            header = self._network()
        elif base == "transport":
            header = self._transport()
        elif base == "ipset":
            header = self._ipset_ports()
        elif base == "link" and (offset, width) == (96, 16) and self.incoming is not None:
            return _ETHERTYPE[self.family]  # nft asks for it behind ``iiftype ether``
        else:
            return unknown(width, f"{base} header: not part of the question")
        value, mask, size = header
        if offset + width > size:
            return unknown(width, f"{base} header beyond byte {size // 8}: depends on the data sent")
        shift = size - offset - width
        result = settle(value >> shift, mask >> shift, width, _field_name(base, offset))
        self._slices[key] = result
        return result

    def overwrite(self, base: str, offset: int, width: int, value: int | Partial) -> None:
        """Remember that a rule rewrote bits that no one else derives from (DSCP, TTL)."""
        self._slices[(base, offset, width)] = value

    def _network(self) -> tuple[int, int, int]:
        header = _Header(160 if self.family == 4 else 320)
        if self.family == 4:
            header.put(0, 8, 0x45)  # without options
            header.put(50, 14, 0)  # not a fragment; "don't fragment" stays open
            header.put(72, 8, self.protocol)
            header.put(96, 32, self.source)
            header.put(128, 32, self.destination)
        else:
            header.put(0, 4, 6)
            header.put(48, 8, self.protocol)  # without extension headers
            header.put(64, 128, self.source)
            header.put(192, 128, self.destination)
        return header.value, header.known, header.size

    def _transport(self) -> tuple[int, int, int]:
        header = _Header(160)
        if self.protocol in PORT_PROTOCOLS:
            header.put(0, 16, self.sport)
            header.put(16, 16, self.dport)
            if self.protocol == TCP and self.tcp_flags is not None:
                header.put(104, 8, self.tcp_flags)
        elif self.protocol in (ICMP, ICMPV6) and self.icmp_type is not None:
            header.put(0, 8, self.icmp_type)
            header.put(8, 8, self.icmp_code)
        return header.value, header.known, header.size

    def _ipset_ports(self) -> tuple[int, int, int]:
        header = _Header(32)
        if self.protocol in IPSET_PORT_PROTOCOLS:
            header.put(0, 16, self.sport)
            header.put(16, 16, self.dport)
        elif self.protocol in (ICMP, ICMPV6):
            for offset in (0, 16):
                header.put(offset, 8, self.icmp_type)
                header.put(offset + 8, 8, self.icmp_code)
        else:
            header.put(0, 32, 0)
        return header.value, header.known, header.size


class _Header:
    """Bits of a header as one big integer, most significant bit first on the wire."""

    __slots__ = ("known", "size", "value")

    def __init__(self, size: int) -> None:
        self.size = size
        self.value = 0
        self.known = 0

    def put(self, offset: int, width: int, value: int | Partial | None) -> None:
        shift = self.size - offset - width
        if isinstance(value, Partial):
            self.value |= (value.value & value.known) << shift
            self.known |= value.known << shift
        elif value is not None:
            self.value |= value << shift
            self.known |= ((1 << width) - 1) << shift


_OPEN_FIELDS = {
    ("transport", 0): SOURCE_PORT_OPEN,
    ("transport", 16): "the destination port was not given",
    ("ipset", 0): SOURCE_PORT_OPEN,
    ("ipset", 16): "the destination port was not given",
    ("network", 8): "the type of service was not given",
    ("network", 16): "the packet's length was not given",
    ("network", 64): "the time to live was not given",
}


def _field_name(base: str, offset: int) -> str:
    return _OPEN_FIELDS.get((base, offset), f"bytes at {base} header + {offset // 8}: not given")
