"""Why the kernel dropped a packet: whether it was on its way still, and what to tell of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calico_debug.explain.packet_story import Places
    from calico_debug.model.packet_event import PacketEvent

NO_SOCKET = "NO_SOCKET"
PURGED = "QUEUE_PURGE"
AT_SOCKETS = ("TCP_", "SOCKET_", "UDP_", "PROTO_MEM", "PACKET_SOCK_ERROR", NO_SOCKET)
"""How reasons begin of drops behind the last hook, where the packet had arrived (include/net/dropreason-core.h)."""
NO_REASON = "NOT_SPECIFIED"
SOCKET_FUNCTIONS = ("tcp_v4_", "tcp_v6_", "tcp_rcv_", "tcp_check_req", "tcp_child_")
"""How functions begin behind the last hook that drop without a reason (net/ipv4/tcp_ipv4.c, tcp_input.c,
tcp_minisocks.c; net/ipv6/tcp_ipv6.c)."""
TAKEN = (NO_REASON, "TCP_RESET")
"""Reasons that a socket gives for packets that did what they were sent for."""

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
    "TCP_RESET": "it reset the connection",
    "QUEUE_PURGE": "left in a queue that was emptied, as a socket's when it is closed",
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
    "veth_xdp_rcv_skb": "an XDP program at the interface, or no memory to run it",
}
"""Functions that drop with no reason of their own (net/ipv4/route.c, ip_forward.c; net/ipv6/route.c, ip6_output.c;
drivers/net/veth.c, where XDP_DROP ends).
"""


def at_socket(event: PacketEvent) -> bool:
    """Whether a drop is that of a socket, or of the search for one: the packet had arrived."""
    unexplained = event.reason == NO_REASON and event.place.startswith(SOCKET_FUNCTIONS)
    return unexplained or event.reason.startswith(AT_SOCKETS)


def on_the_way(event: PacketEvent) -> bool:
    """Whether a drop ended a packet that had not arrived, as far as the drop alone tells."""
    return not at_socket(event) and event.reason != PURGED


def drop_words(event: PacketEvent, places: Places) -> str:
    """The kernel's reason, the function that dropped, and what the two mean where that is known."""
    text = f"{event.reason} in {event.place}" if event.place else event.reason
    meaning = MEANINGS.get(event.reason) or PLACES.get(event.place, "")
    text = f"{text} ({meaning})" if meaning else text
    whose = places.foreign_source(event)
    return f"{text}; its source is no address of {whose}, where it came from" if whose else text
