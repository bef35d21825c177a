"""Service translation as the programs do it, from the NAT maps of one node.

Sources: felix/bpf-gpl/nat_lookup.h (calico_nat_lookup) and maglev.h of v3.28 to v3.32.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from calico_debug.model.routing import address_from_int
from calico_debug.walk.bpf_maglev import maglev_hash
from calico_debug.walk.bpf_outcomes import INGRESS, Backend, Refusal
from calico_debug.walk.choices import Kind
from calico_debug.walk.context import Undecided
from calico_debug.walk.packet import PORT_PROTOCOLS, SOURCE_PORT_OPEN, TCP

if TYPE_CHECKING:
    from calico_debug.model.bpf_nat import FrontendTarget, NatBackend
    from calico_debug.state.bpf_lookups import BpfLookups
    from calico_debug.walk.bpf_addresses import Addresses
    from calico_debug.walk.bpf_hooks import InterfaceHooks
    from calico_debug.walk.choices import Chooser
    from calico_debug.walk.packet import Packet

CONNECT_FAILS = "connect() fails"
"""What a process sees where its service has no endpoints, and the backend is chosen as it connects."""


class Services:
    """The services that packets are sent to."""

    def __init__(
        self, lookups: BpfLookups, hooks: InterfaceHooks, addresses: Addresses, *, hashes: bool = True
    ) -> None:
        """Nothing is read before a packet needs it. ``hashes`` says that addresses are those that the kernel hashes,
        and do not stand for others.
        """
        self._hashes = hashes
        self._lookups = lookups
        self._hooks = hooks
        self._addresses = addresses

    def translate(self, packet: Packet, chooser: Chooser) -> Backend | Refusal | None:
        """The backend that the NAT maps give for the packet's destination; None when it is no service."""
        if packet.protocol not in PORT_PROTOCOLS or not isinstance(packet.dport, int):
            return None
        service = self._frontend(packet, packet.dport)
        if service is None:
            return None
        shown = f"{address_from_int(packet.family, packet.destination)} port {packet.dport}"
        if "maglev" in service.flag_words and packet.incoming is not None and not self._starts_here(packet):
            return self._maglev(packet, service.service_id, packet.incoming.name, shown, chooser)
        if service.blackhole:
            return Refusal("source-ranges", f"service {shown} drops this client: its source ranges do not include it")
        if "nat-exclude" in service.flag_words:
            return None
        local_only = self._local_only(service.flag_words, packet)
        count = service.local_count if local_only else service.count
        if count == 0:
            return Refusal("no-endpoints", f"the service at {shown} has no endpoints", active=True)
        return self._pick(service, packet, packet.dport, packet.source, count, shown, chooser)

    def translate_at_connect(self, packet: Packet, chooser: Chooser) -> Backend | Refusal | None:
        """The backend that a process is connected to before there is any packet; None when nothing is translated then.

        Source: felix/bpf-gpl/connect.h, do_nat_common: the client's address is not known yet and stands as 0.
        """
        if not isinstance(packet.dport, int) or not self._hooks.translates_at_connect(packet.family, packet.protocol):
            return None
        service = self._frontend(packet, packet.dport, at_connect=True)
        if service is None or service.blackhole or "nat-exclude" in service.flag_words:
            return None
        shown = f"{address_from_int(packet.family, packet.destination)} port {packet.dport}"
        count = service.local_count if "internal-local" in service.flag_words else service.count
        if count == 0:
            # What a UDP socket sends without having connected goes on as it is, and tc refuses it.
            why = f"the service at {shown} has no endpoints: {CONNECT_FAILS} (operation not permitted)"
            return Refusal("no-endpoints", why, active=True) if packet.protocol == TCP else None
        return self._pick(service, packet, packet.dport, 0, count, shown, chooser)

    def _pick(
        self,
        service: FrontendTarget,
        packet: Packet,
        port: int,
        client: int,
        count: int,
        shown: str,
        chooser: Chooser,
    ) -> Backend | Refusal:
        family, destination = packet.family, address_from_int(packet.family, packet.destination)
        who = address_from_int(family, client)
        if service.affinity_timeout and (stuck := self._lookups.affinity(packet.protocol, destination, port, who)):
            whose = str(who) if client else "every process of the node"
            why = f"service {shown} keeps {whose} at a backend for {service.affinity_timeout} s, which may be over"
            if count == 1 or chooser.choose(Kind.BACKEND, why, 2) == 0:
                return self._backend(family, int(stuck.backend_address), stuck.backend_port)
        ordinal = chooser.choose(Kind.BACKEND, f"service {shown} has {count} backends", count) if count > 1 else 0
        backend = self._lookups.backend(family, service.service_id, ordinal)
        if backend is None:
            return Refusal("no-endpoints", f"backend {ordinal} of the service at {shown} is missing in the NAT map")
        return self._backend(family, int(backend.address), backend.port)

    def _frontend(self, packet: Packet, port: int, at_connect: bool = False) -> FrontendTarget | None:
        destination = address_from_int(packet.family, packet.destination)
        client = address_from_int(packet.family, 0 if at_connect else packet.source)
        found = self._lookups.frontend(packet.protocol, destination, port, client)
        here = at_connect or self._starts_here(packet)
        if found is None and here and self._addresses.is_node(packet.family, packet.destination):
            # Traffic of this node to another node's port needs no detour: every node has an entry for any of them.
            anywhere = address_from_int(packet.family, (1 << (32 if packet.family == 4 else 128)) - 1)
            found = self._lookups.frontend(packet.protocol, anywhere, port, client)
        return found

    def _maglev(
        self, packet: Packet, service: int, interface: str, shown: str, chooser: Chooser
    ) -> Backend | Refusal | None:
        """What enters by a host interface: the packet's ends settle the backend (maglev.h, maglev_select_backend)."""
        settings = self._hooks.settings(interface, INGRESS, packet.family)
        size = settings.maglev_table_size if settings is not None else None
        if not size:
            raise Undecided(
                f"service {shown} is a Maglev service, and the size of its table on {interface} is not known"
            )
        if self._hashes and isinstance(packet.sport, int) and isinstance(packet.dport, int):
            ends = (packet.source, packet.sport, packet.destination, packet.dport)
            slot = maglev_hash(packet.family, packet.protocol, *ends) % size
            found = self._lookups.maglev_backend(packet.family, service, slot)
        else:
            found = self._any_of(packet.family, service, size, shown, chooser)
        if found is None:
            return Refusal("no-endpoints", f"the Maglev table of service {shown} has no backend for this connection")
        return replace(self._backend(packet.family, int(found.address), found.port), maglev=True)

    def _any_of(self, family: int, service: int, size: int, shown: str, chooser: Chooser) -> NatBackend | None:
        """Every backend of the table is an answer for some source port; None is one too if a slot is empty. So they are
        where addresses were replaced, since the hash is that of the original ones.
        """
        slots = (self._lookups.maglev_backend(family, service, slot) for slot in range(size))
        answers = list({(one.address, one.port) if one else None: one for one in slots}.values())
        missing = SOURCE_PORT_OPEN if self._hashes else "addresses were replaced, which it is chosen by"
        why = f"service {shown} has {len(answers)} backends in its Maglev table, and {missing}"
        return answers[chooser.choose(Kind.BACKEND, why, len(answers)) if len(answers) > 1 else 0]

    def _local_only(self, flags: tuple[str, ...], packet: Packet) -> bool:
        outside = False
        if not self._starts_here(packet):
            source = self._addresses.route(packet.family, packet.source)
            outside = source is None or not (source.has("host") or source.has("workload"))
        return "external-local" in flags if outside else "internal-local" in flags

    def _starts_here(self, packet: Packet) -> bool:
        return packet.incoming is None or self._hooks.is_workload(packet.incoming.name)

    def _backend(self, family: int, address: int, port: int) -> Backend:
        route = self._addresses.route(family, address)
        remote = route is not None and not route.has("local") and route.next_hop is not None
        return Backend(
            address, port, int(route.next_hop) if remote and route and route.next_hop else None, route is not None
        )
