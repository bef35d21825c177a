"""Interfaces, addresses, policy-routing rules and routes of one network namespace.

Source: ip-link(8), ip-address(8), ip-rule(8), ip-route(8), as ``ip -j`` prints them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface. ``kind`` is the link kind ("veth", "vxlan", "ipip", …; "" for a plain device).

    ``attributes`` holds ``linkinfo.info_data`` as evidence had it (VXLAN id, port, local address). ``up`` means
    administratively up; ``mtu`` is in bytes; ``master`` is the bridge or bond that it belongs to; ``xdp`` names the XDP
    programs at it, "" without one.
    """

    name: str
    index: int
    kind: str = ""
    up: bool = True
    mtu: int = 0
    master: str = ""
    attributes: Mapping[str, object] | None = None
    xdp: str = ""


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address that an interface owns, with its prefix length. ``peer`` is the other end of a point-to-point."""

    interface: str
    address: Address
    prefix_length: int
    peer: Address | None = None
    scope: str = "global"


@dataclass(frozen=True, slots=True)
class NextHop:
    """Where a route sends a packet: ``gateway`` None means that the destination is on the link itself."""

    interface: str
    gateway: Address | None = None
    weight: int = 1
    alive: bool = True


@dataclass(frozen=True, slots=True)
class Route:
    """One route. ``type`` is unicast, local, broadcast, multicast, anycast, blackhole, unreachable, prohibit, throw.

    ``unknown`` names attributes that this version does not understand and that could change the decision.
    """

    destination: Network
    table: str
    type: str = "unicast"
    hops: tuple[NextHop, ...] = ()
    metric: int = 0
    tos: int = 0
    source: Network | None = None
    preferred_source: Address | None = None
    scope: str = "global"
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """One policy-routing rule (``ip rule``). ``action`` is lookup, blackhole, unreachable, prohibit, goto or nop.

    ``table`` is the name that ``ip`` prints (local, main, default or a number). A mark matches when
    ``packet mark & mark_mask == mark``. ``goto`` is the priority that action goto goes on at. ``unknown`` names
    selectors that this version does not understand.
    """

    priority: int
    family: int
    action: str = "lookup"
    table: str = ""
    source: Network | None = None
    destination: Network | None = None
    mark: int = 0
    mark_mask: int = 0
    incoming: str = ""
    outgoing: str = ""
    inverted: bool = False
    suppress_prefix_length: int | None = None
    goto: int | None = None
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Routing:
    """All that the routing decision needs: rules ordered by priority, and each table's routes."""

    rules: Sequence[RoutingRule]
    tables: Mapping[str, Sequence[Route]]


def address_from_int(family: int, number: int) -> Address:
    """The address of ``family`` 4 or 6 that ``number`` stands for."""
    return IPv4Address(number) if family == 4 else IPv6Address(number)
