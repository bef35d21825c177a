"""How nodes, pods and the rest of the network hang together, as far as the nodes' own routes and addresses tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.model.routing import address_from_int
from calico_debug.walk.context import Undecided
from calico_debug.walk.routing import BITS, Question

if TYPE_CHECKING:
    from calico_debug.model.routing import Interface
    from calico_debug.walk.node import NodeWalker

TUNNELS = frozenset({"vxlan", "ipip", "wireguard", "sit", "ip6tnl", "gre"})
"""Link kinds that wrap packets into other packets."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address lives: on ``node`` itself when ``interface`` is "", else behind that interface of the node."""

    node: str
    interface: str = ""


@dataclass(frozen=True, slots=True)
class Attached:
    """The next hop is the destination, a workload behind this interface."""

    place: Place


@dataclass(frozen=True, slots=True)
class Arriving:
    """The next hop is another node; the packet comes in there through ``interface``, out of a tunnel if ``tunnel``."""

    node: str
    interface: str
    tunnel: Interface | None = None


@dataclass(frozen=True, slots=True)
class Absent:
    """The packet goes on to a place that evidence does not cover; ``detail`` says which."""

    detail: str


@dataclass(frozen=True, slots=True)
class Outside:
    """The packet leaves the cluster."""

    detail: str


Next = Attached | Arriving | Absent | Outside

Role = Callable[[int, int], str]
"""What the cluster's objects say of (family, address): "pod NS/NAME", "node NAME", "outside", or "" for unknown."""

Absence = Callable[[int, int], str]
"""Why there is no evidence of the node that has (family, address), as " (WHY)"; "" when nobody knows."""


class Wiring:
    """Finds the place of an address and the next stop of a packet. Answers are kept."""

    def __init__(self, walkers: Mapping[str, NodeWalker], role: Role, absence: Absence = lambda *_: "") -> None:
        """``walkers`` are the nodes that evidence covers; ``role`` and ``absence`` tell about the others."""
        self._walkers = walkers
        self._role = role
        self._absence = absence
        self._owners: dict[tuple[int, int], str | None] = {}
        self._places: dict[tuple[int, int], Place | None] = {}

    def owner(self, family: int, address: int) -> str | None:
        """The node that takes packets to this address for itself."""
        key = (family, address)
        if key not in self._owners:
            self._owners[key] = next(
                (name for name, walker in self._walkers.items() if _owns(walker, family, address)), None
            )
        return self._owners[key]

    def place(self, family: int, address: int) -> Place | None:
        """The node and interface of an address: a node's own, or a workload's with a host route to it."""
        key = (family, address)
        if key not in self._places:
            self._places[key] = self._find_place(family, address)
        return self._places[key]

    def _find_place(self, family: int, address: int) -> Place | None:
        node = self.owner(family, address)
        if node is not None:
            return Place(node)
        for name, walker in self._walkers.items():
            way = walker.router.look_up(Question(family, address, 0, 0))
            if way is None or way.type != "unicast" or way.next_hop is not None:
                continue
            host_route = way.route.destination.prefixlen == BITS[family]
            if (host_route or self._role(family, address).startswith("pod ")) and not self._is_tunnel(
                walker, way.interface
            ):
                return Place(name, way.interface)
        return None

    def arrival_interface(self, node: str, family: int, source: int) -> str:
        """The interface through which packets from ``source`` reach a node. Raises `Undecided`."""
        way = self._walkers[node].router.look_up(Question(family, source, 0, 0))
        if way is None or way.type != "unicast":
            raise Undecided(f"{node} has no route to {address_from_int(family, source)}, so where it arrives is open")
        return way.interface

    def follow(self, node: str, interface: str, next_hop: int | None, family: int, destination: int) -> Next:
        """Where a packet goes that ``node`` sent out of ``interface``."""
        hop = destination if next_hop is None else next_hop
        owner = self.owner(family, hop)
        if owner is not None and owner != node:
            return self._arrive(node, interface, owner, family, hop)
        place = self.place(family, destination)
        if next_hop is None and place == Place(node, interface):
            return Attached(place)
        for address in dict.fromkeys((hop, destination)):
            role = self._role(family, address)
            why = self._absence(family, address)
            if role.startswith("node "):
                return Absent(f"{role} at {address_from_int(family, address)}, of which there is no evidence{why}")
            if role.startswith("pod "):
                where = address_from_int(family, address)
                return Absent(f"{role} at {where}: no evidence of the node it is on{why}")
        if self._role(family, destination) == "outside":
            return Outside(f"out of the cluster through {interface} of {node}")
        return Absent(
            f"{address_from_int(family, hop)}, which {node} sends to through {interface}: "
            "no evidence says what is there"
        )

    def _arrive(self, node: str, interface: str, owner: str, family: int, hop: int) -> Next:
        link = self._walkers[node].state.interfaces.get(interface)
        if link is not None and link.kind in TUNNELS:
            twin = next((i for i in self._walkers[owner].state.interfaces.values() if i.kind == link.kind), None)
            if twin is None:
                return Absent(f"{owner} has no {link.kind} interface to take packets from {interface} of {node}")
            return Arriving(owner, twin.name, link)
        sender = self._walkers[node].addresses.interface_address(family, interface, hop)
        if sender is None:
            return Absent(f"{interface} of {node} has no address, so where packets reach {owner} is open")
        return Arriving(owner, self.arrival_interface(owner, family, sender))

    @staticmethod
    def _is_tunnel(walker: NodeWalker, interface: str) -> bool:
        link = walker.state.interfaces.get(interface)
        return link is not None and link.kind in TUNNELS


def _owns(walker: NodeWalker, family: int, address: int) -> bool:
    if address >> 24 == 127 if family == 4 else address == 1:
        return False
    way = walker.router.look_up(Question(family, address, 0, 0))
    return way is not None and way.type == "local"
