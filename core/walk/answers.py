"""What comes behind a flow's first packet: its answer, and what follows where that takes another way.

Answers that take another way than their requests (`cut_off`, `untranslated`) matter where they go straight
to the client. One that goes to a gateway may come by all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from calico_debug.model.conntrack import STATE_BITS
from calico_debug.model.routing import address_from_int
from calico_debug.walk.choices import Kind
from calico_debug.walk.context import Routed, Translated
from calico_debug.walk.packet import (
    ECHO_REPLY,
    ECHO_REPLY_V6,
    ICMP,
    ICMPV6,
    PORT_PROTOCOLS,
    TCP,
    TCP_FLAGS,
    Ends,
    Packet,
    Tracking,
)
from calico_debug.walk.passage import DENIED, SENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from calico_debug.state.node import NodeState
    from calico_debug.walk.choices import Chooser
    from calico_debug.walk.journey import Journey, Leg, Opening
    from calico_debug.walk.node import NodeWalker
    from calico_debug.walk.passage import Pass

Serving = Callable[["NodeState", int, int, int], str]
"""What says that something listens on TCP (family, address, port) of a node or its pod: a clause, "" when nothing does.
"""


def reply_packet(packet: Packet) -> Packet:
    """What the destination answers to the opening packet as it arrived there."""
    icmp = None
    if packet.protocol == ICMP:
        icmp = (ECHO_REPLY, 0)
    elif packet.protocol == ICMPV6:
        icmp = (ECHO_REPLY_V6, 0)
    flags = None
    if packet.protocol == TCP:
        flags = TCP_FLAGS["ack"] | (packet.tcp_flags or 0) & TCP_FLAGS["syn"]
    return Packet(
        packet.family, packet.protocol, packet.destination, packet.source, packet.dport, packet.sport, icmp, flags
    )


def masqueraded_answers(legs: Sequence[Leg]) -> Iterator[tuple[Packet, Leg]]:
    """Answers to what the rules of eBPF nodes masqueraded, with the legs that did: they come in where those left.

    They come to an address that no entry of the programs has, and so as a new connection.
    """
    for leg in legs:
        made = leg.made
        masqueraded = any(isinstance(event, Translated) and event.side == "src" for event in made.trace.events)
        if masqueraded and not (leg.outer or leg.reply):
            yield reply_packet(made.packet), leg


def cut_off(journey: Journey, walkers: Mapping[str, NodeWalker], serving: Serving, chooser: Chooser) -> Pass | None:
    """What drops the next packet of a TCP connection, on a node that saw the opening one and not the answer to it.

    For conntrack an ACK to an unanswered SYN is invalid (nf_conntrack_proto_tcp.c, tcp_conntracks, sSS), which host
    endpoints' rules and kube-proxy's drop.
    """
    for leg, made in _unanswered_packets(journey.legs, walkers, chooser):
        if made.ending != DENIED:
            continue
        if not _listens(journey, made.node, walkers, serving, chooser):
            return None
        return None if _follows_redirects(journey, leg.made, made, walkers[made.node].state, chooser) else made
    return None


def _unanswered_packets(
    legs: Sequence[Leg], walkers: Mapping[str, NodeWalker], chooser: Chooser
) -> Iterator[tuple[Leg, Pass]]:
    """Legs of nodes that the answer did not pass, and what becomes of the next packet there."""
    answers = _answers(legs)
    if not answers or _by_gateway(answers[-1]):
        return
    answered = {made.node for made in answers}
    for leg in tuple(legs):
        made, seen = leg.made, leg.made.packet.tracking
        if leg.reply or leg.outer or made.node in answered or not made.arrived or seen is None or seen.untracked:
            continue
        if walkers[made.node].datapath is not None:
            continue
        yield leg, walkers[made.node].receive(_next(made.packet.family, seen), made.arrived, _unanswered, chooser)


def _listens(
    journey: Journey, cut_at: str, walkers: Mapping[str, NodeWalker], serving: Serving, chooser: Chooser
) -> bool:
    """Whether something listens at the flow's end. What refuses is heard all the way back, and nothing follows that
    could be dropped on node ``cut_at``.
    """
    end, place = journey.final, journey.place
    assert end is not None
    assert place is not None
    where = str(address_from_int(end.family, end.destination))
    if isinstance(end.dport, int):
        where = f"TCP port {end.dport} of {where}"
        if why := serving(walkers[place.node].state, end.family, end.destination, end.dport):
            journey.assumed.append(
                f"something is taken to listen on {where}, since {why}; "
                "if nothing does, its refusal gets back to the client"
            )
            return True
    question = (
        f"nothing in the evidence says whether something listens on {where}: if so, {cut_at} drops the "
        "connection's next packet, since the answer takes another way; if not, the refusal gets back to the client"
    )
    return chooser.choose(Kind.PROCESS, question, 2) == 0


def _follows_redirects(journey: Journey, first: Pass, dropped: Pass, state: NodeState, chooser: Chooser) -> bool:
    """Whether the client sends again by a shorter way that the node told it of: a node does that to who sends it what
    goes out where it came in, before the rules of forwarding ask (net/ipv4/route.c, __mkroute_input; ip_forward.c).
    """
    if first.interface != first.arrived:
        return False
    scopes = ("all", first.arrived)  # either turns it on (include/linux/inetdevice.h, IN_DEV_TX_REDIRECTS)
    values = [
        state.interface_sysctl(4, scope, "send_redirects") if first.packet.family == 4 else None for scope in scopes
    ]
    if all(value == "0" for value in values):
        return False
    told = f"the ICMP redirects by which {dropped.node} tells it of the shorter way"
    routed = any(isinstance(event, Routed) for event in dropped.trace.events)
    if routed and any(value not in ("0", None) for value in values):
        question = (
            f"nothing in the evidence says whether the client follows {told}, as Linux does by default: if so, the "
            f"connection comes about after a moment; if not, {dropped.node} drops all but its first packet, since the "
            "answer takes another way"
        )
        return chooser.choose(Kind.PROCESS, question, 2) == 1
    journey.assumed.append(
        f"the client is taken to ignore {told}, if it sends any (sysctl send_redirects); if the client follows them, "
        "as Linux does by default, the connection comes about after a moment"
    )
    return False


def untranslated(legs: Sequence[Leg], opening: Opening, walkers: Mapping[str, NodeWalker]) -> Leg | None:
    """The leg that translated a request whose answer gets to the client from another end than was asked."""
    answers = _answers(legs)
    if not answers or _by_gateway(answers[-1]) or opening.protocol not in PORT_PROTOCOLS:
        return None
    if any(walkers[leg.made.node].datapath is not None for leg in legs):
        return None  # programs answer for each other (DSR), and sockets may have asked what answers (at connect)
    packet = answers[-1].packet
    ports = (packet.sport, opening.destination_port)
    moved = isinstance(ports[0], int) and isinstance(ports[1], int) and ports[0] != ports[1]
    if packet.source == opening.destination and not moved:
        return None
    return next((leg for leg in legs if not (leg.reply or leg.outer) and _translated(leg)), None)


def takes(legs: Sequence[Leg], opening: Opening, leg: Leg, chooser: Chooser) -> bool:
    """Whether the client takes an answer from an end that it did not ask, which ``leg`` should have translated back.

    TCP does not (RFC 9293, 3.10.7.1: a segment of no connection); of other protocols a connected socket does not.
    """
    if opening.protocol == TCP:
        return False
    asked, came = (
        str(address_from_int(opening.family, one)) for one in (opening.destination, _answers(legs)[-1].packet.source)
    )
    question = (
        f"the answer comes from {came} and not from {asked}, since it does not pass {leg.made.node}, which translated "
        "the request: nothing in the evidence says whether the client takes it, and a connected socket does not"
    )
    return chooser.choose(Kind.PROCESS, question, 2) == 1


def _answers(legs: Sequence[Leg]) -> list[Pass]:
    return [leg.made for leg in legs if leg.reply and not leg.outer]


def _by_gateway(answer: Pass) -> bool:
    return answer.ending == SENT and answer.next_hop not in (None, answer.packet.destination)


def _translated(leg: Leg) -> bool:
    return any(isinstance(event, Translated) and event.side == "dst" for event in leg.made.trace.events)


def _next(family: int, seen: Tracking) -> Packet:
    ends = seen.original
    addresses, ports = (ends.source, ends.destination), (ends.source_port, ends.destination_port)
    return Packet(family, TCP, *addresses, *ports, tcp_flags=TCP_FLAGS["ack"])


def _unanswered(packet: Packet) -> Tracking:
    ends = packet.ends()
    reply = Ends(ends.destination, ends.source, ends.destination_port, ends.source_port)
    return Tracking(STATE_BITS["invalid"], ends, reply)
