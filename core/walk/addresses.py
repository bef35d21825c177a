"""What kinds of addresses a node knows, and which of its own it lends to packets.

Source: Linux net/ipv4/fib_frontend.c (inet_addr_type_dev_table), net/ipv4/devinet.c, net/ipv6/addrconf.c,
net/ipv6/netfilter/nft_fib_ipv6.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.model.routing import address_from_int
from calico_debug.walk.routing import REFUSED_TYPES, Question, Router, uses

if TYPE_CHECKING:
    from calico_debug.model.routing import InterfaceAddress
    from calico_debug.state.node import NodeState
    from calico_debug.walk.routing import Way


class Addresses:
    """Of one node."""

    def __init__(self, node: NodeState, router: Router) -> None:
        """``router`` is the node's own."""
        self._node = node
        self._router = router

    def address_type(self, family: int, address: int, device: str, asked: Question) -> str:
        """What ``fib … type`` answers: local, unicast, broadcast, multicast, …; ``device`` "" is any.

        IPv4 asks table local alone (inet_addr_type_dev_table), IPv6 the whole lookup ``asked`` (nft_fib6_eval_type).
        """
        if address_from_int(family, address).is_multicast:
            return "multicast"
        if family == 6:
            return self._address_type6(address, device, asked)
        if address >> 24 == 0 or address == 0xFFFFFFFF:
            return "broadcast"
        table = self._router.tables(4).get("local")
        route = next(iter(table.matches(Question(4, address, 0, 0))), None) if table else None
        if route is None or route.type in REFUSED_TYPES or (device and not uses(route, device)):
            return "unicast"
        return route.type

    def _address_type6(self, address: int, device: str, asked: Question) -> str:
        if device and any(int(o.address) == address for o in self._node.addresses if o.interface == device):
            return "local"
        way = self._router.look_up(asked)
        if way is None:
            return "unreachable"
        if way.type in REFUSED_TYPES or way.type == "anycast":
            return way.type
        return "local" if way.type == "local" and not device else "unicast"

    def source_address(self, family: int, way: Way, destination: int) -> int | None:
        """The address the kernel gives to packets of its own that leave on ``way`` (also what masquerade takes)."""
        if way.route.preferred_source is not None:
            return int(way.route.preferred_source)
        # For a route on the link the kernel does not look at the destination (fib_info_update_nhc_saddr).
        target = way.next_hop if way.next_hop is not None or family == 4 else destination
        return self.interface_address(family, way.interface, target)

    def interface_address(self, family: int, interface: str, target: int | None) -> int | None:
        """An address of ``interface``: the one on ``target``'s subnet first, then the first global one.

        Source: net/ipv4/devinet.c, inet_select_addr; net/ipv6/addrconf.c, ipv6_dev_get_saddr.
        """
        if family == 6:
            return self._interface_address6(interface, target)
        owned = [a for a in self._node.addresses if a.interface == interface and a.address.version == family]
        # Loopback's own address (scope host) and link-local ones are never lent to packets that go further.
        usable = [a for a in owned if a.scope == "global"]
        for candidate in usable:
            if target is not None and _on_subnet(candidate, target):
                return int(candidate.address)
        if usable:
            return int(usable[0].address)
        others = [a for a in self._node.addresses if a.address.version == family and a.scope == "global"]
        return int(others[0].address) if others else None

    def _interface_address6(self, interface: str, target: int | None) -> int | None:
        """RFC 6724, rules 1, 2, 5 and 8: the target itself, its scope, the interface, the longest common prefix."""
        owned = [a for a in self._node.addresses if a.address.version == 6]
        if target is not None and any(int(a.address) == target for a in owned):
            return target
        scope = "link" if target is not None and _link_local(target) else "global"
        usable = [a for a in owned if a.scope == scope and (scope == "global" or a.interface == interface)]

        def rank(candidate: InterfaceAddress) -> tuple[bool, int]:
            differing = (int(candidate.address) ^ target).bit_length() if target is not None else 0
            return candidate.interface == interface, -differing

        return int(max(usable, key=rank).address) if usable else None


def _on_subnet(owned: InterfaceAddress, address: int) -> bool:
    shift = owned.address.max_prefixlen - owned.prefix_length
    return int(owned.peer or owned.address) >> shift == address >> shift


def _link_local(address: int) -> bool:
    return address >> 118 == 0x3FA
