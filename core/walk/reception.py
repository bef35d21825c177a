"""What the kernel checks of a packet's addresses before it takes it in, and whether it sends it on.

Source: Linux net/ipv4/fib_frontend.c (fib_validate_source), net/ipv4/route.c (ip_route_input_slow),
net/ipv6/ip6_input.c; sysctls: Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.model.routing import address_from_int
from calico_debug.walk.routing import LOOPBACK, REFUSED_TYPES, Question, Router, uses

if TYPE_CHECKING:
    from calico_debug.model.values import Partial
    from calico_debug.state.node import NodeState


def unreceivable(family: int, source: int, destination: int, via: str) -> str:
    """Why the kernel discards a packet that arrived, before any hook of its protocol; "" when it does not.

    Source: net/ipv6/ip6_input.c, ip6_rcv_core (RFC 4291, 2.5.3 and 2.7). IPv4 has no such check of addresses.
    """
    if family != 6 or via == LOOPBACK:
        return ""
    for end, address in (("source", source), ("destination", destination)):
        if address == 1:
            return f"{end} ::1 is the loopback address, which no packet from outside may carry"
    shown = address_from_int(6, source)
    return f"source {shown} is a multicast address" if shown.is_multicast else ""


class Reception:
    """The checks of one node."""

    def __init__(self, node: NodeState, router: Router) -> None:
        """``router`` is the node's own."""
        self._node = node
        self._router = router

    def martian(self, family: int, source: int, destination: int, via: str) -> str:
        """Why addresses make the kernel discard a packet before it is routed; "" when they do not.

        Source: net/ipv4/route.c, ip_route_input_slow.
        """
        if family != 4 or via == LOOPBACK:
            return ""
        failure = self.lent_loopback(4, source, via) or self.lent_loopback(4, destination, via, "destination")
        if failure:
            return failure
        shown = address_from_int(4, source)
        return f"source {shown} is no host's address" if shown.is_multicast or source in (0, 0xFFFFFFFF) else ""

    def lent_loopback(self, family: int, address: int, interface: str, end: str = "source") -> str:
        """Why a loopback address (127.0.0.0/8) may not be used on an interface; "" when it is none, or may.

        Source: net/ipv4/route.c, ip_route_input_slow, and __mkroute_output for packets of the host itself.
        """
        if family != 4 or interface == LOOPBACK or address >> 24 != 127:
            return ""
        if any(self._setting("all", interface, "route_localnet")):
            return ""
        return f"{end} {address_from_int(4, address)} is a loopback address (route_localnet of {interface} is 0)"

    def reverse_path_failure(
        self, family: int, source: int, destination: int, mark: int | Partial, via: str, leaving: str = LOOPBACK
    ) -> str:
        """Why the kernel's own source check refuses a packet that came in through ``via``; "" when it does not.

        ``leaving`` is the interface that the packet would go on through: the check asks for the way of an answer, which
        comes in there. IPv4 only: IPv6 has no rp_filter (its checks are rules of the firewall). Source:
        net/ipv4/fib_frontend.c, fib_validate_source.
        """
        if family != 4:
            return ""
        strict = max(self._setting("all", via, "rp_filter"))
        accept_local = any(self._setting("all", via, "accept_local"))
        if strict == 0 and accept_local:
            return ""
        checked_mark = mark if any(self._setting("all", via, "src_valid_mark")) else 0
        way = self._router.look_up(Question(family, source, destination, checked_mark, leaving))
        shown = address_from_int(family, source)
        kind = "" if way is None or way.type in REFUSED_TYPES else way.type
        if kind == "local" and not accept_local:
            return f"source {shown} is an address of {self._node.name} itself"
        if kind in ("broadcast", "multicast"):
            return f"source {shown} is a {kind} address"
        if strict == 0 or (kind == "local" and via == LOOPBACK):
            return ""
        if way is None or not kind:
            return f"{self._node.name} has no route back to {shown} (rp_filter of {via} is {strict})"
        if uses(way.route, via):
            return ""
        if strict == 1:
            return f"the route back to {shown} is {way.interface}, not {via} (rp_filter of {via} is 1, strict)"
        if not any(owned.interface == via and owned.address.version == 4 for owned in self._node.addresses):
            return f"the route back to {shown} is {way.interface}, and {via} has no address (rp_filter is {strict})"
        return ""

    def forwards(self, family: int, incoming: str) -> bool:
        """Whether the node forwards what comes in through this interface; an unknown setting counts as yes."""
        if family == 4:
            value = self._node.sysctl(f"net.ipv4.conf.{incoming}.forwarding") or self._node.sysctl(
                "net.ipv4.ip_forward"
            )
        else:
            value = self._node.sysctl("net.ipv6.conf.all.forwarding")
            if value == "0" and self._node.sysctl(f"net.ipv6.conf.{incoming}.force_forwarding") == "1":  # since 6.17
                return True
        return value != "0"

    def _setting(self, *keys: str) -> tuple[int, ...]:
        """A sysctl under ``conf.all`` and under the interface's own name; absent ones count as 0."""
        *scopes, name = keys
        values = (self._node.sysctl(f"net.ipv4.conf.{scope}.{name}") for scope in scopes)
        return tuple(int(value) if value and value.isdigit() else 0 for value in values)
