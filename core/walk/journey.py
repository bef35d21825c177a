"""A flow's first packet from its source to its destination over every node on the way, and the reply back again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING

from calico_debug.model.routing import address_from_int
from calico_debug.model.values import unknown
from calico_debug.walk import discovery
from calico_debug.walk.answers import cut_off, masqueraded_answers, reply_packet, takes, untranslated
from calico_debug.walk.connections import ConnectionTable
from calico_debug.walk.context import PolicyRan, Undecided
from calico_debug.walk.node import NodeWalker
from calico_debug.walk.packet import (
    ECHO_REQUEST,
    ECHO_REQUEST_V6,
    ICMP,
    ICMPV6,
    PORT_PROTOCOLS,
    SOURCE_PORT_OPEN,
    TCP,
    TCP_FLAGS,
    UDP,
    Packet,
)
from calico_debug.walk.passage import DELIVERED, SENT, Pass
from calico_debug.walk.routing import Question
from calico_debug.walk.wiring import TUNNELS, Absent, Arriving, Attached, Outside, Place, Wiring

if TYPE_CHECKING:
    from calico_debug.model.nft import Rule
    from calico_debug.model.routing import Address, Interface
    from calico_debug.walk.answers import Serving
    from calico_debug.walk.chains import Continue
    from calico_debug.walk.choices import Chooser
    from calico_debug.walk.context import Onward
    from calico_debug.walk.packet import Port
    from calico_debug.walk.passage import Tracker

MAX_LEGS = 12
"""A bound on the nodes one packet may cross; real paths cross two."""
VXLAN_PORT = 4789
"""What IANA assigned; used when the device does not say."""
IPIP = 4
"""IP in IP, RFC 2003."""


@dataclass(frozen=True, slots=True)
class Opening:
    """The packet that opens the flow, and the place it starts from. Ports are None where nobody gave them."""

    family: int
    protocol: int
    source: int
    destination: int
    source_port: int | None
    destination_port: int | None
    place: Place
    icmp: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Leg:
    """One pass over one node. ``reply`` tells the direction.

    ``outer`` says that this is not the flow's own packet but a tunnel's, or with ``discovery`` the one of neighbour
    discovery that did not get through. ``later`` says that it is the next packet of a TCP connection, and dropped.
    """

    made: Pass
    reply: bool = False
    outer: bool = False
    discovery: bool = False
    later: bool = False


@dataclass(frozen=True, slots=True)
class _Tunnel:
    """From ``node`` through ``link`` to ``next_node``, where packets come out of ``next_interface``."""

    node: str
    link: Interface
    next_hop: int | None
    next_node: str
    next_interface: str


@dataclass(slots=True)
class Journey:
    """What became of the flow.

    ``arrived`` is set when the opening packet got to the end of the request ("workload", "host", "outside"), ``place``
    where that is. ``stopped`` says why the walk of the current direction could not go on for lack of evidence.
    ``existing`` tells that a connection that conntrack knows was joined, ``by_entries`` that the answer was not walked
    to its end: programs of the eBPF dataplane let it pass by the entry that the request made. ``assumed`` says
    what was taken to be so at the flow's ends, and why, where the outcome depends on it. ``untranslated`` is the
    leg that translated the request of an answer that passes it by, and that the client does not take for one.
    """

    legs: list[Leg] = field(default_factory=list)
    arrived: str = ""
    place: Place | None = None
    stopped: str = ""
    replied: bool = False
    reply_stopped: str = ""
    existing: bool = False
    by_entries: bool = False
    assumed: list[str] = field(default_factory=list)
    untranslated: Leg | None = None
    final: Packet | None = None


class Traveller:
    """Takes flows through the nodes."""

    def __init__(
        self,
        walkers: Mapping[str, NodeWalker],
        wiring: Wiring,
        go_on: Callable[[NodeWalker, Rule | None, Sequence[str]], Onward | None] | None = None,
        admit: Callable[[NodeWalker], None] | None = None,
        serving: Serving = lambda *_: "",
    ) -> None:
        """``go_on`` decides at a denial whether, and how, the walk goes on hypothetically.

        ``admit`` is called for each node before a packet enters it, and raises when the node cannot be walked.
        ``serving`` tells of processes that listen.
        """
        self.serving = serving
        self._walkers = walkers
        self._wiring = wiring
        self._go_on = go_on
        self._admit = admit

    def travel(self, opening: Opening, chooser: Chooser, join_existing: bool) -> Journey:
        """Walk the opening packet and, if it arrives, the reply. ``join_existing`` consults conntrack's evidence."""
        return _Trip(self, opening, chooser, join_existing).run()

    @property
    def walkers(self) -> Mapping[str, NodeWalker]:
        """The nodes."""
        return self._walkers

    @property
    def wiring(self) -> Wiring:
        """What hangs where."""
        return self._wiring

    def continuation(self, walker: NodeWalker) -> Continue | None:
        """The node's answer to a denial."""
        if self._go_on is None:
            return None
        decide = self._go_on
        return lambda rule, stack: decide(walker, rule, stack)

    def enter(self, node: str) -> NodeWalker:
        """The node, if it may be walked. Raises what ``admit`` raises."""
        walker = self._walkers[node]
        if self._admit is not None:
            self._admit(walker)
        return walker


class _Trip:
    """One flow under one set of choices."""

    def __init__(self, traveller: Traveller, opening: Opening, chooser: Chooser, join_existing: bool) -> None:
        self._traveller = traveller
        self._opening = opening
        self._chooser = chooser
        self._join = join_existing
        self._tables: dict[str, ConnectionTable] = {}
        self._journey = Journey()
        self._hypothetical = False
        self._answered_outside = False

    def run(self) -> Journey:
        opening, journey = self._opening, self._journey
        packet = opening_packet(opening, mid_stream=self._join)
        try:
            self._go(packet, opening.place, reply=False)
        except Undecided as error:
            journey.stopped = str(error)
        journey.existing = any(
            leg.made.packet.tracking is not None and leg.made.packet.tracking.existing for leg in journey.legs
        )
        if journey.arrived and not self._hypothetical and journey.final is not None and journey.place is not None:
            try:
                self._go(reply_packet(journey.final), journey.place, reply=True)
                self._recognise()
                self._go_on()
            except Undecided as error:
                journey.reply_stopped = str(error)
        return journey

    def _recognise(self) -> None:
        """Whether the client knows the answer for one to what it sent."""
        journey, opening = self._journey, self._opening
        if not self._answered_outside or self._join:
            return
        leg = untranslated(journey.legs, opening, self._traveller.walkers)
        if leg is not None and not takes(journey.legs, opening, leg, self._chooser):
            journey.replied, journey.untranslated = False, leg

    def _go_on(self) -> None:
        """The next packet of a TCP connection, on nodes that its answer did not pass."""
        if self._opening.protocol != TCP or self._join or not self._journey.replied:
            return
        made = cut_off(self._journey, self._traveller.walkers, self._traveller.serving, self._chooser)
        if made is not None:
            self._journey.replied = False
            self._journey.legs.append(Leg(made, later=True))

    def _passes_by_entry(self, node: str, answer: Packet) -> bool:
        """Whether programs of the eBPF dataplane let an answer through by the entry that its request made there, past
        policy and translation. They make none for what untracked policy accepted. The walk goes through such a node
        only where rules of another dataplane are to come, and it knows how the answer is translated back.
        """
        here = [leg.made for leg in self._journey.legs if leg.made.node == node and not (leg.reply or leg.outer)]
        if not here or self._traveller.walkers[node].datapath is None:
            return False
        if any(
            isinstance(one, PolicyRan) and one.result.accepted_untracked for made in here for one in made.trace.events
        ):
            return False
        mixed = any(self._traveller.walkers[leg.made.node].datapath is None for leg in self._journey.legs)
        table = self._tables.get(node)
        return not (mixed and table is not None and table.knows_answer(answer))

    def _masqueraded_answers_enter(self) -> bool:
        """Whether programs let in the answers to what the host's own rules masqueraded behind them."""
        if self._opening.protocol == TCP:
            return True  # packets in mid-flow are left to Linux's conntrack (tc.c, "CT mid-flow miss")
        for answer, leg in masqueraded_answers(tuple(self._journey.legs)):
            walker = self._traveller.enter(leg.made.node)
            datapath = walker.datapath
            if datapath is not None and datapath.notes_at_exit(leg.made.interface, leg.made.packet.mark):
                continue  # it has an entry with the new address
            made = walker.enter(answer, leg.made.interface, self._tracker(walker), self._chooser)
            self._journey.legs.append(Leg(made, reply=True))
            if made.ending != DELIVERED:
                return False
        return True

    # ------------------------------------------------------------------------------------------------------- legs

    def _go(self, packet: Packet, place: Place, reply: bool) -> None:
        node, interface = place.node, place.interface
        for _ in range(MAX_LEGS):
            if reply and self._passes_by_entry(node, packet):
                self._journey.replied = self._journey.by_entries = self._masqueraded_answers_enter()
                return
            made = self._pass(node, packet, interface, reply)
            if made.ending == DELIVERED:
                self._arrive("host", Place(node), packet, reply)
                return
            if made.ending != SENT:
                return
            stop = self._traveller.wiring.follow(node, made.interface, made.next_hop, packet.family, packet.destination)
            match stop:
                case Attached(where):
                    self._arrive("workload", where, packet, reply)
                    return
                case Outside():
                    self._arrive("outside", Place(node, made.interface), packet, reply)
                    return
                case Absent(detail):
                    raise Undecided(f"the packet goes on to {detail}")
                case Arriving(next_node, next_interface, tunnel):
                    if tunnel is None and not self._reaches(made, packet, next_node, next_interface, reply):
                        return
                    if tunnel is not None:
                        way = _Tunnel(node, tunnel, made.next_hop, next_node, next_interface)
                        if not self._through(way, packet, reply):
                            return
                    packet = packet.on_the_wire(keep_mark=tunnel is not None)
                    node, interface = next_node, next_interface
        raise Undecided(f"the packet crosses more than {MAX_LEGS} nodes: the routes form a loop")

    def _arrive(self, kind: str, place: Place, packet: Packet, reply: bool) -> None:
        if reply:
            self._journey.replied, self._answered_outside = True, kind == "outside"
            return
        self._journey.arrived, self._journey.place, self._journey.final = kind, place, packet

    def _pass(self, node: str, packet: Packet, interface: str, reply: bool, outer: bool = False) -> Pass:
        walker = self._traveller.enter(node)
        track = self._tracker(walker)
        go_on = None if outer or reply or self._hypothetical else self._traveller.continuation(walker)
        if interface:
            made = walker.receive(packet, interface, track, self._chooser, go_on, self._hypothetical)
        else:
            made = walker.send(packet, track, self._chooser, go_on, self._hypothetical)
        self._hypothetical = self._hypothetical or made.trace.hypothetical
        self._journey.legs.append(Leg(made, reply, outer))
        return made

    def _reaches(self, made: Pass, packet: Packet, next_node: str, next_interface: str, reply: bool) -> bool:
        """Whether IPv6 neighbour discovery lets the packet cross the link to the next node."""
        if packet.family == 4 or self._hypothetical:
            return True
        asking, answering = self._traveller.walkers[made.node], self._traveller.enter(next_node)
        target = made.next_hop if made.next_hop is not None else packet.destination
        if discovery.known(asking, made.interface, target):
            return True
        passes = discovery.discover(
            asking, made.interface, target, answering, next_interface, self._tracker, self._chooser
        )
        if discovery.got_through(passes):
            return True
        self._journey.legs.append(Leg(passes[-1], reply, outer=True, discovery=True))
        return False

    def _tracker(self, walker: NodeWalker) -> Tracker:
        table = self._tables.get(walker.name)
        if table is None:
            table = self._tables[walker.name] = ConnectionTable(walker.state, self._join)
        return table.track

    # ---------------------------------------------------------------------------------------------------- tunnels

    def _through(self, way: _Tunnel, inner: Packet, reply: bool) -> bool:
        """Walk the tunnel's own packet from node to node; False when it does not get there."""
        outer = self._outer_packet(way, inner)
        made = self._pass(way.node, outer, "", reply, outer=True)
        if made.ending != SENT:
            return False
        interface = self._traveller.wiring.arrival_interface(way.next_node, outer.family, outer.source)
        received = outer.on_the_wire(keep_mark=False)
        made = self._pass(way.next_node, received, interface, reply, outer=True)
        inner.mark = received.mark  # the same buffer in the kernel: unwrapping keeps the mark
        return made.ending == DELIVERED

    def _route_below(self, way: _Tunnel) -> tuple[Address, Address]:
        """The ends of a tunnel whose device does not say them: the nodes' own addresses that routes lead between."""
        here = self._traveller.walkers[way.node]
        other = self._traveller.walkers[way.next_node].state
        for owned in other.addresses:
            link = other.interfaces.get(owned.interface)
            if owned.scope != "global" or link is None or link.kind in TUNNELS:
                continue
            family, number = owned.address.version, int(owned.address)
            below = here.router.look_up(Question(family, number, 0, 0))
            if below is not None and below.type == "unicast" and below.interface != way.link.name:
                source = here.addresses.source_address(family, below, number)
                if source is not None:
                    return address_from_int(family, source), owned.address
        raise Undecided(f"the addresses under tunnel {way.link.name} of {way.node} are not in the evidence")

    def _outer_packet(self, way: _Tunnel, inner: Packet) -> Packet:
        if way.link.kind == "vxlan":
            twin = self._traveller.walkers[way.next_node].state.interfaces[way.next_interface]
            here, there = _underlay(way.link), _underlay(twin)
            if here is None or there is None:
                here, there = self._route_below(way)
            port = (way.link.attributes or {}).get("port")
            port = port if isinstance(port, int) else VXLAN_PORT
            sport = unknown(16, "the tunnel picks its source port")
            outer = Packet(here.version, UDP, int(here), int(there), sport, port)
        elif way.link.kind == "ipip" and way.next_hop is not None:
            walker = self._traveller.walkers[way.node]
            below = walker.router.look_up(Question(4, way.next_hop, 0, 0))
            source = walker.addresses.source_address(4, below, way.next_hop) if below else None
            if source is None:
                raise Undecided(f"{way.node} has no route for the packets of tunnel {way.link.name}")
            outer = Packet(4, IPIP, source, way.next_hop)
        else:
            raise Undecided(f"packets in the {way.link.kind} tunnel {way.link.name} of {way.node} are not followed")
        outer.mark = inner.mark  # the same buffer in the kernel: wrapping drops only the conntrack entry
        return outer


def _underlay(interface: Interface) -> Address | None:
    """The tunnel's own address on the network below; None for one that takes it packet by packet (``external``)."""
    attributes = interface.attributes or {}
    local = attributes.get("local") or attributes.get("local6")
    return ip_address(local) if isinstance(local, str) else None


def opening_packet(opening: Opening, mid_stream: bool) -> Packet:
    """The first packet of a new flow, or one in the middle of an existing connection."""
    sport: Port = opening.source_port
    dport: Port = opening.destination_port
    icmp = opening.icmp
    if opening.protocol in PORT_PROTOCOLS:
        sport = unknown(16, SOURCE_PORT_OPEN) if sport is None else sport
        dport = unknown(16, "the destination port was not given") if dport is None else dport
    elif icmp is None and opening.protocol in (ICMP, ICMPV6):
        icmp = (ECHO_REQUEST if opening.protocol == ICMP else ECHO_REQUEST_V6, 0)
    flags = TCP_FLAGS["ack"] if mid_stream and opening.protocol == TCP else None
    return Packet(opening.family, opening.protocol, opening.source, opening.destination, sport, dport, icmp, flags)
