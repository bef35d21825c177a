"""Neighbour discovery: IPv6 needs packets of its own, through the same rules, before a packet can cross a link.

A host-endpoint policy that does not allow ICMPv6 cuts it, and everything behind the node is then out of reach although
no policy denies it. Source: RFC 4861; Linux net/ipv6/ndisc.c (ndisc_solicit, ndisc_send_na). ARP is no IP packet and
needs no such walk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from calico_debug.model.routing import address_from_int
from calico_debug.walk.node import NodeWalker
from calico_debug.walk.packet import ICMPV6, Packet
from calico_debug.walk.passage import DELIVERED, SENT, Pass

if TYPE_CHECKING:
    from calico_debug.walk.choices import Chooser
    from calico_debug.walk.passage import Tracker

SOLICITATION, ADVERTISEMENT = 135, 136
_SOLICITED_NODE = 0xFF02_0000_0000_0000_0000_0001_FF00_0000
"""ff02::1:ff00:0/104, to which the low 24 bits of the target are added (RFC 4291, 2.7.1)."""
_LINK_LOCAL = 0xFE80 << 112


def known(walker: NodeWalker, interface: str, target: int) -> bool:
    """Whether the node has the target's link address already."""
    return (interface, address_from_int(6, target)) in walker.state.neighbours


def discover(
    asking: NodeWalker,
    interface: str,
    target: int,
    answering: NodeWalker,
    arrival: str,
    tracker: Callable[[NodeWalker], Tracker],
    chooser: Chooser,
) -> list[Pass]:
    """The passes of a solicitation for ``target`` and its answer, up to the first that did not get through."""
    source = _own_address(asking, interface)
    group = _SOLICITED_NODE | target & 0xFFFFFF
    made: list[Pass] = []
    question = Packet(6, ICMPV6, source, group, icmp=(SOLICITATION, 0))
    made.append(asking.send_on_link(question, interface, tracker(asking), chooser))
    if made[-1].ending != SENT:
        return made
    question = question.on_the_wire(keep_mark=False)
    made.append(answering.receive_on_link(question, arrival, tracker(answering), chooser))
    if made[-1].ending != DELIVERED:
        return made
    answer = Packet(6, ICMPV6, target, source, icmp=(ADVERTISEMENT, 0))
    made.append(answering.send_on_link(answer, arrival, tracker(answering), chooser))
    if made[-1].ending != SENT:
        return made
    answer = answer.on_the_wire(keep_mark=False)
    made.append(asking.receive_on_link(answer, interface, tracker(asking), chooser))
    return made


def got_through(made: list[Pass]) -> bool:
    """Whether the answer came back."""
    return len(made) == 4 and made[-1].ending == DELIVERED


def _own_address(walker: NodeWalker, interface: str) -> int:
    """The link-local address that solicitations carry; fe80:: when evidence does not show it."""
    owned = (a for a in walker.state.addresses if a.interface == interface and a.scope == "link")
    return next((int(a.address) for a in owned if a.address.version == 6), _LINK_LOCAL)
