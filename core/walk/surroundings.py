"""What rules ask the node for: routes behind ``fib`` expressions, and addresses that translation takes.

Source: Linux net/ipv4/netfilter/nft_fib_ipv4.c, net/ipv6/netfilter/nft_fib_ipv6.c, net/netfilter/nf_nat_masquerade.c,
nf_nat_redirect.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.walk.addresses import Addresses
from calico_debug.walk.context import Undecided
from calico_debug.walk.hooks import FORWARD, INGRESS, INPUT, PREROUTING
from calico_debug.walk.routing import LOOPBACK, REFUSED_TYPES, Question, Router

if TYPE_CHECKING:
    from calico_debug.model.values import Value
    from calico_debug.state.node import NodeState
    from calico_debug.walk.packet import Packet

_ADDRESS_TYPES = {
    "unspec": 0,
    "unicast": 1,
    "local": 2,
    "broadcast": 3,
    "anycast": 4,
    "multicast": 5,
    "blackhole": 6,
    "unreachable": 7,
    "prohibit": 8,
}
"""RTN_… numbers (include/uapi/linux/rtnetlink.h), what ``fib … type`` compares."""


_RECEIVING = frozenset({INGRESS, PREROUTING, INPUT})
"""Hooks where a packet out of loopback is taken to have come from there (nft_fib_can_skip)."""


class NodeSurroundings:
    """Answers from one node's interfaces, addresses and routes."""

    def __init__(self, state: NodeState, router: Router) -> None:
        """``router`` is the node's."""
        self._state = state
        self._router = router
        self._addresses = Addresses(state, router)

    def fib(self, packet: Packet, hook: str, result: str, selectors: frozenset[str], present: bool) -> Value | None:
        """The fib expression. Source: Linux net/ipv4/netfilter/nft_fib_ipv4.c, net/ipv6/netfilter/nft_fib_ipv6.c."""
        device = packet.incoming if "iif" in selectors else packet.outgoing if "oif" in selectors else None
        name = device.name if device else ""
        asked = self._question(packet, hook, selectors)
        if result == "type":
            kind = self._addresses.address_type(packet.family, asked.destination, name, asked)
            return _ADDRESS_TYPES.get(kind, 0)
        found = self._fib_interface(packet, hook, asked, name)
        interface = self._state.interfaces.get(found) if found else None
        if present:
            return int(interface is not None)
        if result == "oif":
            return interface.index if interface else 0
        return interface.name if interface else ""

    @staticmethod
    def _question(packet: Packet, hook: str, selectors: frozenset[str]) -> Question:
        address, other, arriving = packet.destination, packet.source, LOOPBACK
        if "saddr" in selectors:
            address, other = other, address
            if hook == FORWARD and "iif" in selectors and packet.outgoing is not None:
                arriving = packet.outgoing.name
        return Question(packet.family, address, other, packet.mark if "mark" in selectors else 0, arriving)

    def _fib_interface(self, packet: Packet, hook: str, asked: Question, device: str) -> str:
        if hook in _RECEIVING and packet.incoming is not None and packet.incoming.name == LOOPBACK:
            return LOOPBACK
        way = self._router.look_up(asked)
        if way is None or way.type in REFUSED_TYPES or way.type == "local":
            return ""
        if not device:
            return way.interface
        return device if any(hop.interface == device for hop in way.route.hops) else ""

    def masquerade_address(self, packet: Packet) -> int:
        """The address of the outgoing interface (nf_nat_masquerade.c)."""
        assert packet.outgoing is not None
        way = self._router.look_up(Question(packet.family, packet.destination, packet.source, packet.mark))
        hops = way.route.hops if way is not None else ()
        gateway = next((hop.gateway for hop in hops if hop.interface == packet.outgoing.name), None)
        # IPv4 looks for an address on the gateway's subnet, IPv6 for one that suits the destination.
        target = int(gateway) if gateway is not None and packet.family == 4 else packet.destination
        address = self._addresses.interface_address(packet.family, packet.outgoing.name, target)
        if address is None:
            raise Undecided(f"interface {packet.outgoing.name} has no address to masquerade with")
        return address

    def redirect_address(self, packet: Packet) -> int:
        """The host itself: the incoming interface's address, loopback for its own packets (nf_nat_redirect.c)."""
        if packet.incoming is None:
            return 0x7F000001 if packet.family == 4 else 1
        address = self._addresses.interface_address(packet.family, packet.incoming.name, None)
        if address is None:
            raise Undecided(f"interface {packet.incoming.name} has no address to redirect to")
        return address
