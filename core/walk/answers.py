"""What comes behind a flow's first packet: its answer, and what follows where that takes another way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.model.conntrack import STATE_BITS
from calico_debug.walk.context import Translated
from calico_debug.walk.packet import (
    ECHO_REPLY,
    ECHO_REPLY_V6,
    ICMP,
    ICMPV6,
    TCP,
    TCP_FLAGS,
    Ends,
    Packet,
    Tracking,
)
from calico_debug.walk.passage import SENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from calico_debug.walk.choices import Chooser
    from calico_debug.walk.journey import Leg
    from calico_debug.walk.node import NodeWalker
    from calico_debug.walk.passage import Pass


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


def unanswered_packets(legs: Sequence[Leg], walkers: Mapping[str, NodeWalker], chooser: Chooser) -> Iterator[Pass]:
    """What nodes do to the next packet of a TCP connection that saw the opening one, and not the answer to it.

    For conntrack an ACK to an unanswered SYN is invalid (nf_conntrack_proto_tcp.c, tcp_conntracks, sSS), which host
    endpoints' rules and kube-proxy's drop. An answer that goes to a gateway may come by there after all.
    """
    answers = [leg.made for leg in legs if leg.reply and not leg.outer]
    if not answers or (
        answers[-1].ending == SENT and answers[-1].next_hop not in (None, answers[-1].packet.destination)
    ):
        return
    answered = {made.node for made in answers}
    for leg in tuple(legs):
        made, seen = leg.made, leg.made.packet.tracking
        if leg.reply or leg.outer or made.node in answered or not made.arrived or seen is None or seen.untracked:
            continue
        if walkers[made.node].datapath is not None:
            continue
        yield walkers[made.node].receive(_next(made.packet.family, seen), made.arrived, _unanswered, chooser)


def _next(family: int, seen: Tracking) -> Packet:
    ends = seen.original
    addresses, ports = (ends.source, ends.destination), (ends.source_port, ends.destination_port)
    return Packet(family, TCP, *addresses, *ports, tcp_flags=TCP_FLAGS["ack"])


def _unanswered(packet: Packet) -> Tracking:
    ends = packet.ends()
    reply = Ends(ends.destination, ends.source, ends.destination_port, ends.source_port)
    return Tracking(STATE_BITS["invalid"], ends, reply)
