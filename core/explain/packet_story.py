"""Where the packets of a flow were seen and where they ended, as one witness."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING

from calico_debug.model.explanation import Witness
from calico_debug.model.flow import PROTOCOL_NUMBERS
from calico_debug.model.packet_event import DROPPED, RECEIVED, SENT, Ends

if TYPE_CHECKING:
    from calico_debug.model.explanation import FlowExplanation
    from calico_debug.model.packet_event import PacketEvent

MOST_PACKETS = 100_000
"""Packets that are told apart; of more, those that come later are only counted."""
TCP_RESET, TCP_SYN, TCP_ACK = 0x04, 0x02, 0x10
NO_SOCKET = "NO_SOCKET"
VERBS = {RECEIVED: "received by", SENT: "sent by", DROPPED: "DROPPED at"}
AT_SOCKETS = ("TCP_", "SOCKET_", "UDP_", "PROTO_MEM", NO_SOCKET)
"""How reasons begin of drops behind the last hook, where the packet had arrived (include/net/dropreason-core.h)."""

MEANINGS: Mapping[str, str] = {
    "NETFILTER_DROP": "a rule of nftables or iptables",
    "TC_INGRESS": "an eBPF program at the interface, where packets come in",
    "TC_EGRESS": "an eBPF program at the interface, where packets go out",
    "XDP": "an XDP program at the interface",
    "IP_RPFILTER": "the kernel's reverse path filter, rp_filter",
    "IP_INNOROUTES": "no route there",
    "IP_OUTNOROUTES": "no route there",
    "IP_INADDRERRORS": "the address cannot be routed",
    "IP_INVALID_SOURCE": "the source address cannot be",
    "IP_LOCAL_SOURCE": "the source address is the node's own",
    "IP_LOCALNET": "an address of 127.0.0.0/8 from outside",
    "PKT_TOO_BIG": "larger than the MTU of the way on",
    "NEIGH_FAILED": "the next hop does not answer ARP or neighbour discovery",
    "NEIGH_QUEUEFULL": "too many packets wait for ARP or neighbour discovery",
    "NEIGH_CREATEFAIL": "no room for another neighbour",
    "NO_SOCKET": "nothing listens there",
    "QDISC_DROP": "the queue of the interface",
    "FULL_RING": "the interface has no room",
    "CPU_BACKLOG": "the CPU has too many packets waiting",
    "DEV_READY": "the interface is not up",
    "IP_NOPROTO": "nothing takes that protocol",
    "UNHANDLED_PROTO": "nothing takes that protocol",
}
"""Reasons of include/net/dropreason-core.h, in words."""
PLACES: Mapping[str, str] = {
    "ip_error": "no route there, or one that discards",
    "ip6_pkt_drop": "no route there, or one that discards",
    "ip_forward": "not forwarded",
    "ip6_forward": "not forwarded",
}
"""Functions that drop with no reason of their own (net/ipv4/route.c, ip_forward.c; net/ipv6/route.c, ip6_output.c)."""


@dataclass(frozen=True, slots=True)
class Places:
    """Names of network namespaces by inode. ``home`` is the node's; ``pods`` says what the others are.

    ``leads`` are the namespaces behind the node's interfaces.
    """

    node: str
    home: int
    pods: Mapping[int, str] = field(default_factory=dict)
    leads: Mapping[str, int] = field(default_factory=dict)

    def of(self, event: PacketEvent) -> str:
        """Where an event was: an interface of the node, or one inside of a pod."""
        interface = event.interface or "no interface"
        if event.namespace == self.home:
            return interface
        return f"{interface} in {self.pods.get(event.namespace, f'namespace {event.namespace}')}"


def flow_ends(explanation: FlowExplanation) -> tuple[Ends, ...]:
    """The flow before and behind the translation to each backend, in its own direction."""
    protocol = explanation.protocol
    number = PROTOCOL_NUMBERS.get(protocol, int(protocol) if protocol.isdigit() else 0)
    source, port = ip_address(explanation.source.ip), explanation.source.port or 0
    targets = [(explanation.destination.ip, explanation.destination.port)]
    targets += [(backend.ip, backend.port) for backend in explanation.backends]
    found = (Ends(number, source, ip_address(ip), port, to or 0) for ip, to in targets)
    return tuple(dict.fromkeys(found))


@dataclass(slots=True)
class _Packet:
    number: int
    first: PacketEvent
    last: PacketEvent
    entered: bool = False
    """Received inside of a pod."""
    drop: PacketEvent | None = None
    been: set[tuple[str, int, int]] = field(default_factory=set)


class Story:
    """Takes events one by one."""

    def __init__(self, places: Places) -> None:
        """Nothing was seen yet."""
        self._places = places
        self._packets: list[_Packet] = []
        self._current: dict[tuple[int, int], _Packet] = {}
        self.events = 0
        """Events taken."""

    @property
    def packets(self) -> int:
        """Packets that were told apart."""
        return len(self._packets)

    def add(self, event: PacketEvent) -> int:
        """Take an event, and give its packet's number from 1 on; 0 for packets beyond `MOST_PACKETS`."""
        self.events += 1
        packet = self._current.get(event.packet)
        place = (event.kind, event.namespace, event.interface_index)
        # Memory is used again, and packets of some senders have the same header each time: nothing comes by twice.
        if packet is None or place in packet.been:
            if len(self._packets) >= MOST_PACKETS:
                return 0
            packet = _Packet(len(self._packets) + 1, event, event)
            self._packets.append(packet)
            self._current[event.packet] = packet
        packet.been.add(place)
        packet.last = event
        if event.kind == DROPPED:
            packet.drop = event
            del self._current[event.packet]
        elif event.kind == RECEIVED and event.namespace != self._places.home:
            packet.entered = True
        return packet.number

    def witness(self, at: str, lost: int = 0) -> Witness:
        """What was observed; the verdict is "undetermined" where that settles nothing. ``at`` is RFC 3339 UTC.

        With ``lost`` events a packet that was not seen any more may have gone on, which is said.
        """
        verdict, told = self._told()
        if lost:
            told += f" ({lost} events were lost)"
        return Witness(verdict, self._places.node, told, at)

    def _told(self) -> tuple[str, str]:
        packets = self._packets
        errors = [p for p in packets if p.first.about]
        requests = [p for p in packets if not p.first.reply and not p.first.about]
        replies = [p for p in packets if p.first.reply and not p.first.about]
        if not requests:
            told = f"{_number(len(packets))} of the way back only" if packets else "no packet of the flow was seen"
            return "undetermined", told
        outcomes = Counter(self._outcome(packet) for packet in requests)
        told = "; ".join(f"{_number(count)} {text}" for (_, text), count in outcomes.items())
        verdicts = {verdict for verdict, _ in outcomes}
        verdict = verdicts.pop() if len(verdicts) == 1 else "undetermined"
        died = any(self._died(packet) for packet in requests)
        answers = [p for p in replies if not _is_reset(p.first)]
        stopped = next((p.drop for p in answers if p.drop is not None and self._died(p)), None)
        refusal = self._refusal(replies, errors) if verdict == "denied" or not answers else ""
        if stopped is not None:
            verdict = "denied"
            told = f"{told}; an answer dropped at {self._places.of(stopped)}: {drop_words(stopped)}"
        elif refusal:
            # Where packets arrived, it is the destination itself that refuses them.
            verdict = verdict if verdict == "allowed" or (died and verdict != "denied") else "rejected"
            told = f"{told}; {refusal}"
        elif answers:
            verdict = verdict if died else "allowed"
            told = f"{told}; answers seen"
        return verdict, told

    def _outcome(self, packet: _Packet) -> tuple[str, str]:
        """Verdict and words for one packet of the request."""
        drop = packet.drop
        if drop is not None and self._died(packet):
            return "denied", f"dropped at {self._places.of(drop)}: {drop_words(drop)}"
        if drop is not None:
            return "allowed", f"delivered at {self._places.of(drop)}, where no socket took it: {drop_words(drop)}"
        last = packet.last
        where = self._places.of(last)
        if packet.entered and last.kind == RECEIVED:
            return "allowed", f"delivered to {where}"
        if last.kind == RECEIVED:
            return "undetermined", f"received by {where}, and then not seen any more"
        lead = self._places.leads.get(last.interface) if last.namespace == self._places.home else None
        if lead is not None:
            return "undetermined", f"sent into {self._places.pods.get(lead, last.interface)} and not seen to arrive"
        if last.namespace != self._places.home:
            return "undetermined", f"sent by {where}, and not seen to arrive on {self._places.node}"
        return "undetermined", f"left {self._places.node} by {where}"

    def _died(self, packet: _Packet) -> bool:
        """Whether the packet was dropped on its way, and not by the socket that it came to."""
        return packet.drop is not None and not packet.drop.reason.startswith(AT_SOCKETS)

    def _refusal(self, replies: list[_Packet], errors: list[_Packet]) -> str:
        if errors and errors[0].first.icmp is not None:
            kind, code = errors[0].first.icmp
            return f"refused by {errors[0].first.ends.source}: ICMP type {kind} code {code}"
        reset = next((p for p in replies if _is_reset(p.first)), None)
        return f"refused by {reset.first.ends.source}: TCP reset" if reset is not None else ""


def direction(event: PacketEvent) -> str:
    """ "request", "answer" or "error" (an ICMP error about the flow); "" where packets are not of one flow."""
    if event.flow is None:
        return ""
    if event.about:
        return "error"
    return "answer" if event.reply else "request"


def drop_words(event: PacketEvent) -> str:
    """The kernel's reason, the function that dropped, and what the two mean where that is known."""
    text = f"{event.reason} in {event.place}" if event.place else event.reason
    meaning = MEANINGS.get(event.reason) or PLACES.get(event.place, "")
    return f"{text} ({meaning})" if meaning else text


def _is_reset(event: PacketEvent) -> bool:
    return event.flags is not None and bool(event.flags & TCP_RESET)


def _number(count: int) -> str:
    return "packet" if count == 1 else f"{count} packets"
