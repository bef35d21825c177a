"""Where the packets of a flow were seen and where they ended, as one witness."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING

from calico_debug.explain.packet_drops import NO_SOCKET, PURGED, TAKEN, at_socket, drop_words
from calico_debug.model.explanation import Witness
from calico_debug.model.flow import PROTOCOL_NUMBERS
from calico_debug.model.packet_event import DROPPED, RECEIVED, SENT, Ends

if TYPE_CHECKING:
    from calico_debug.model.explanation import FlowExplanation
    from calico_debug.model.packet_event import PacketEvent

MOST_PACKETS = 100_000
"""Packets that are told apart; of more, those that come later are only counted."""
TCP_RESET, TCP_SYN, TCP_ACK = 0x04, 0x02, 0x10
VERBS = {RECEIVED: "received by", SENT: "sent by", DROPPED: "DROPPED at"}
LOOPBACK = "lo"
"""The device of routes to the node or the pod itself, which packets have that came to a socket."""
NOTHING_SEEN = "no packet of the flow was seen"
NONE_OPENS = "none of them opens a connection"


@dataclass(frozen=True, slots=True)
class Places:
    """Names of network namespaces by inode. ``home`` is the node's; ``pods`` says what the others are.

    ``leads`` are the namespaces behind the node's interfaces, ``addresses`` what is routed to an interface.
    """

    node: str
    home: int
    pods: Mapping[int, str] = field(default_factory=dict)
    leads: Mapping[str, int] = field(default_factory=dict)
    addresses: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def of(self, event: PacketEvent) -> str:
        """Where an event was: an interface of the node, or one inside of a pod."""
        interface = event.interface or "no interface"
        if event.namespace == self.home:
            return interface
        return f"{interface} in {self.pods.get(event.namespace, f'namespace {event.namespace}')}"

    def foreign_source(self, event: PacketEvent) -> str:
        """Whose the source of a packet is not, although it came from there: a pod, in words; "" when nothing is wrong.

        What goes through a pod's interface is from the pod's addresses or to them.
        """
        here = event.namespace == self.home and event.interface in self.leads
        own = self.addresses.get(event.interface, ()) if here else ()
        ends = event.ends
        if not own or event.tunnelled or not {str(ends.source), str(ends.destination)}.isdisjoint(own):
            return ""
        if ends.source.is_link_local or ends.source.is_unspecified or ends.destination.is_multicast:
            return ""
        return self.pods.get(self.leads[event.interface], f"the pod behind {event.interface}")


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
    """Before it was dropped."""
    entered: bool = False
    """Received inside of a pod."""
    drop: PacketEvent | None = None
    been: set[tuple[str, int, int]] = field(default_factory=set)

    @property
    def was_kept(self) -> bool:
        """Whether it arrived, and lay in the queue of a socket that was closed before it was read.

        A packet that waits for a neighbour, or to be sent, is of the interface where it would have left.
        """
        drop, last = self.drop, self.last
        if drop is None or drop.reason != PURGED or last.kind != RECEIVED:
            return False
        # A program may hand it on to the pod's end of an interface, where it is not seen to arrive.
        own = {last.interface} if drop.namespace == last.namespace else set()
        return drop.interface in {"", LOOPBACK} | own

    @property
    def is_copy(self) -> bool:
        """Whether nothing was seen of it but that a queue was emptied: raw sockets are given copies of packets."""
        return self.first is self.last and self.drop is self.first and self.first.reason == PURGED

    @property
    def died(self) -> bool:
        """Whether it was dropped on its way, and not by the socket that it came to."""
        return self.drop is not None and not at_socket(self.drop) and not self.was_kept


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
        if event.kind == DROPPED:
            packet.drop = event
            del self._current[event.packet]
            return packet.number
        packet.last = event
        if event.kind == RECEIVED and event.namespace != self._places.home:
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
        packets = [packet for packet in self._packets if not packet.is_copy]
        errors = [p for p in packets if p.first.about]
        requests = [p for p in packets if not p.first.reply and not p.first.about]
        replies = [p for p in packets if p.first.reply and not p.first.about]
        if not requests:
            told = f"{_number(len(packets))} of the way back only" if packets else NOTHING_SEEN
            return "undetermined", told
        outcomes = Counter(self._outcome(packet) for packet in requests)
        told = "; ".join(f"{_number(count)} {text}" for (_, text), count in outcomes.items())
        verdicts = {verdict for verdict, _ in outcomes}
        verdict = verdicts.pop() if len(verdicts) == 1 else "undetermined"
        died = any(packet.died for packet in requests)
        answers = [p for p in replies if not _is_reset(p.first)]
        stopped = [p.drop for p in answers if p.drop is not None and p.died]
        refusal = self._refusal(replies, errors) if verdict == "denied" or not answers else ""
        if stopped:
            verdict = "denied" if len(stopped) == len(answers) else "undetermined"
            which = "an answer" if len(answers) == 1 else f"{len(stopped)} of {len(answers)} answers"
            told = f"{told}; {which} dropped at {self._drop_words(stopped[0])}"
        elif refusal:
            # Where packets arrived, it is the destination itself that refuses them.
            verdict = verdict if verdict == "allowed" or (died and verdict != "denied") else "rejected"
            told = f"{told}; {refusal}"
        elif answers:
            verdict = verdict if died else "allowed"
            told = f"{told}; answers seen"
        if all(_goes_on(packet.first) for packet in requests):
            told = f"{told}; {NONE_OPENS}"
        return verdict, told

    def _outcome(self, packet: _Packet) -> tuple[str, str]:
        """Verdict and words for one packet of the request."""
        drop = packet.drop
        if drop is not None and packet.died:
            return "denied", f"dropped at {self._drop_words(drop)}"
        last = packet.last
        where = self._places.of(last)
        if drop is not None and not packet.was_kept:
            if last.kind != RECEIVED or last.namespace != drop.namespace:
                where = self._places.pods.get(drop.namespace, self._places.of(drop))
            if drop.reason in TAKEN:
                return "allowed", f"delivered to {where}"
            end = "no socket took it" if drop.reason == NO_SOCKET else "a socket dropped it"
            return "allowed", f"delivered at {where}, where {end}: {drop_words(drop, self._places)}"
        if packet.was_kept and drop is not None and drop.namespace != last.namespace:
            where = self._places.pods.get(drop.namespace, self._places.of(drop))
        if (packet.entered and last.kind == RECEIVED) or packet.was_kept:
            return "allowed", f"delivered to {where}"
        if last.kind == RECEIVED:
            return "undetermined", f"received by {where}, and then not seen any more"
        lead = self._places.leads.get(last.interface) if last.namespace == self._places.home else None
        if lead is not None:
            return "undetermined", f"sent into {self._places.pods.get(lead, last.interface)} and not seen to arrive"
        if last.namespace != self._places.home:
            return "undetermined", f"sent by {where}, and not seen to arrive on {self._places.node}"
        return "undetermined", f"left {self._places.node} by {where}"

    def _drop_words(self, drop: PacketEvent) -> str:
        return f"{self._places.of(drop)}: {drop_words(drop, self._places)}"

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


def _is_reset(event: PacketEvent) -> bool:
    return event.flags is not None and bool(event.flags & TCP_RESET)


def _goes_on(event: PacketEvent) -> bool:
    """Whether it is of a TCP connection that is there already."""
    return event.flags is not None and not (event.flags & TCP_SYN and not event.flags & TCP_ACK)


def _number(count: int) -> str:
    return "packet" if count == 1 else f"{count} packets"
