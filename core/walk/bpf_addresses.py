"""What Calico's routes and lists of addresses say about a packet: whose it is, and what passes or fails for that.

Sources: felix/bpf-gpl/tc.c, rpf.h, routes.h and failsafe.h of v3.28 to v3.32. Drops that Calico does not count (reverse
path) are named as such.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.model.routing import address_from_int
from calico_debug.walk.bpf_outcomes import INGRESS
from calico_debug.walk.packet import ICMPV6, UDP

if TYPE_CHECKING:
    from calico_debug.model.bpf import RouteTarget
    from calico_debug.state.bpf_lookups import BpfLookups
    from calico_debug.walk.bpf_hooks import InterfaceHooks
    from calico_debug.walk.packet import Packet

VXLAN_PORT = 4789
_NEIGHBOUR_TYPES = frozenset({130, 131, 132, 133, 135, 136})
"""ICMPv6 types that tc.c lets through without policy."""


class Addresses:
    """Questions about the addresses of packets."""

    def __init__(self, lookups: BpfLookups, hooks: InterfaceHooks) -> None:
        """Nothing is read before a packet needs it."""
        self._lookups = lookups
        self._hooks = hooks

    def route(self, family: int, address: int) -> RouteTarget | None:
        """What Calico's routes say of an address."""
        return self._lookups.route(address_from_int(family, address))

    def is_host(self, family: int, address: int) -> bool:
        """Whether it is an address of this very node."""
        route = self.route(family, address)
        return route is not None and route.has("local") and route.has("host")

    def is_node(self, family: int, address: int) -> bool:
        """Whether it is an address of any node."""
        route = self.route(family, address)
        return route is not None and route.has("host")

    def reverse_path_failure(self, packet: Packet, interface: str) -> str:
        """Why a pod's packet is dropped for its source address, "" when it is not. Calico counts no such drop.

        Source: rpf.h, wep_rpf_check; allowed sources only help an address that no route covers.
        """
        source = address_from_int(packet.family, packet.source)
        route = self._lookups.route(source)
        index = self._hooks.index(interface)
        if packet.protocol == ICMPV6 and (source.is_link_local or route is not None):
            return ""
        if route is None:
            if index is not None and self._lookups.may_send_from(index, source):
                return ""
        elif route.has("local") and route.has("workload") and route.ifindex == index:
            return ""
        return f"source {source} is not an address of the pod behind {interface} (a drop that Calico does not count)"

    def host_reverse_path_failure(self, packet: Packet, interface: str, back: str | None) -> str:
        """Why a packet from outside is dropped for its source address, "" when it is not.

        ``back`` is the interface that leads to the source, None without a way. Source: rpf.h, hep_rpf_check, whose
        setting is BPFEnforceRPF.
        """
        words = self._hooks.words(interface, INGRESS, packet.family)
        if "rpf-enabled" not in words or packet.protocol == ICMPV6:
            return ""
        source = address_from_int(packet.family, packet.source)
        if back is None:
            return f"there is no way back to {source} (a drop that Calico does not count)"
        if "rpf-strict" in words and back != interface:
            return f"the way back to {source} is not {interface} but {back} (a drop that Calico does not count)"
        return ""

    def leaves_pools(self, packet: Packet, interface: str) -> bool:
        """Whether the packet gets the node's address: from a pool with outgoing NAT to where no pool is.

        Source: routes.h, cali_rt_flags_should_perform_nat_outgoing; the setting for other nodes exists since v3.31.
        """
        source, destination = self.route(packet.family, packet.source), self.route(packet.family, packet.destination)
        if source is None or not source.has("nat-out"):
            return False
        if destination is None or not destination.has("host"):
            return destination is None or not destination.has("in-pool")
        excluded = "nat-outgoing-exclude-hosts" in self._hooks.words(interface, INGRESS, packet.family)
        return not (destination.has("in-pool") or destination.has("local") or excluded)

    def needs_host_routing(self, packet: Packet, workload: bool, translated: bool) -> bool:
        """Whether the host's own stack has to route the packet, since Calico's routes do not know enough (tc.c)."""
        destination = self.route(packet.family, packet.destination)
        if workload:
            source = self.route(packet.family, packet.source)
            known = destination is not None and (destination.has("workload") or destination.has("host"))
            return not (source is not None and source.has("in-pool")) and not known
        return destination is None or not (translated or destination.has("local"))

    def blackholed(self, packet: Packet) -> str:
        """Service loop prevention: the route flag that drops or rejects, "" without one."""
        route = self.route(packet.family, packet.destination)
        if route is None:
            return ""
        return next((flag for flag in ("blackhole-drop", "blackhole-reject") if route.has(flag)), "")

    def without_policy(self, packet: Packet) -> bool:
        """What passes host interfaces unasked: neighbour discovery, and VXLAN between nodes."""
        if is_neighbour_discovery(packet):
            return True
        between_nodes = self.is_node(packet.family, packet.source) and self.is_node(packet.family, packet.destination)
        return packet.protocol == UDP and packet.dport == VXLAN_PORT and between_nodes

    def failsafe(self, packet: Packet, outbound: bool) -> bool:
        """Whether a failsafe port of the host lets the packet pass."""
        if not isinstance(packet.dport, int):
            return False
        peer = packet.destination if outbound else packet.source
        address = address_from_int(packet.family, peer)
        return self._lookups.failsafe(packet.protocol, packet.dport, address, outbound=outbound)

    def answers_failsafe(self, packet: Packet) -> bool | None:
        """Whether it may answer a connection of the host to a failsafe port, which XDP leaves to tc; None: open.

        Source: xdp.c, is_failsafe_out by the source's port.
        """
        source = address_from_int(packet.family, packet.source)
        if isinstance(packet.sport, int):
            return self._lookups.failsafe(packet.protocol, packet.sport, source, outbound=True)
        covering = self._lookups.failsafes(packet.protocol, source, outbound=True)
        return None if covering else False


def is_neighbour_discovery(packet: Packet) -> bool:
    """What no policy is asked about (tc.c, do_policy)."""
    return packet.protocol == ICMPV6 and packet.icmp_type in _NEIGHBOUR_TYPES
