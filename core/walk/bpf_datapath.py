"""One packet through Calico's eBPF programs at the interfaces of one node.

The policy programs are run as they are (`bpf_policy`); what surrounds them (service translation, reverse path, what
passes without policy) follows felix/bpf-gpl/tc.c, nat_lookup.h, fib_co_re.h and policy.h of v3.28 to v3.32, from the
node's maps. Drops that Calico does not count (reverse path, endpoint not ready) are named as such.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

from calico_debug.decode.bpf_layout_types import Role
from calico_debug.model.bpf import TcGlobals
from calico_debug.model.bpf_words import GLOBAL_FLAGS, names_of_bits
from calico_debug.model.bytecode import BytecodeError, Program
from calico_debug.model.routing import address_from_int
from calico_debug.model.values import Partial, unknown
from calico_debug.state.bpf_lookups import BpfLookups
from calico_debug.walk.bpf_loaded import LoadedPolicies, LoadedPolicy
from calico_debug.walk.bpf_policy import PolicyRun, Verdict
from calico_debug.walk.bpf_sets import KEY_BYTES, PrefixTrie
from calico_debug.walk.bpf_state import PolicyPacket
from calico_debug.walk.choices import Kind, Unsure
from calico_debug.walk.context import Undecided
from calico_debug.walk.packet import ICMP, ICMPV6, PORT_PROTOCOLS, UDP

if TYPE_CHECKING:
    from calico_debug.model.bpf import InterfaceState, RouteTarget
    from calico_debug.model.bpf_objects import Attachment
    from calico_debug.model.bytecode import Section
    from calico_debug.model.explanation import Finding
    from calico_debug.state.node import NodeState
    from calico_debug.walk.choices import Chooser
    from calico_debug.walk.packet import Packet

INGRESS, EGRESS = "ingress", "egress"
"""Hooks as tc means them: into the host from the interface, and out of the host to it."""

SEEN = 0x01000000
BYPASS = 0x03000000
NAT_OUT = 0x03800000
MASQUERADE_SELF = 0x03600000
SKIP_FIB = 0x01100000
"""Marks of felix/bpf-gpl/bpf.h (CALI_SKB_MARK_…)."""

VXLAN_PORT = 4789
_NEIGHBOUR_TYPES = frozenset({130, 131, 132, 133, 135, 136})
"""ICMPv6 types that tc.c lets through without policy."""


class Onwards(Enum):
    """How a packet leaves the program at tc ingress."""

    STACK = "stack"
    """Up into the host's own stack, where the rules that Felix leaves there run."""
    FORWARD = "forward"
    """Forwarded by the program itself, past the host's rules."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A packet that a program dropped without a policy: ``reason`` is a key of `model.explanation.REASONS`.

    ``active`` tells that the sender gets an answer.
    """

    reason: str
    detail: str
    active: bool = False


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """A policy program's run at an interface. ``direction`` is the endpoint's own view, ``host`` a host endpoint's.

    ``findings`` tell what is odd about the program that was run; ``rules`` are all rules in it, where Felix lists them.
    """

    interface: str
    direction: str
    host: bool
    run: PolicyRun
    findings: tuple[Finding, ...] = ()
    rules: tuple[Section, ...] = ()

    @property
    def denied(self) -> bool:
        """Whether the packet is dropped."""
        return self.run.verdict is not Verdict.ALLOWED


@dataclass(frozen=True, slots=True)
class Backend:
    """Where service translation sends a packet.

    ``node`` is the node it has to be tunnelled to, None when local; ``routed`` tells whether Calico's routes know it.
    """

    address: int
    port: int
    node: int | None
    routed: bool


class BpfDatapath:
    """The programs and maps of one node, for many packets."""

    def __init__(self, state: NodeState) -> None:
        """Nothing is read before a packet needs it."""
        self._state = state
        self.lookups = BpfLookups(state.bpf)
        self._policies = LoadedPolicies(state)
        self._hooks: dict[tuple[str, str], Attachment | None] = {}
        self._words: dict[tuple[str, str, int], tuple[str, ...]] = {}
        self._sets = _IpSets(state)

    # -------------------------------------------------------------------------------------------------- attachments

    def attached(self, interface: str, hook: str) -> bool:
        """Whether a program of Calico's runs at a tc hook of the interface."""
        return self._attachment(interface, hook) is not None

    def _attachment(self, interface: str, hook: str) -> Attachment | None:
        key = (interface, hook)
        if key not in self._hooks:
            at_hook = [one for one in self._state.bpf.calico_attachments(interface) if one.hook == hook]
            self._hooks[key] = next((one for one in at_hook if one.mechanism in ("tcx", "clsact")), None)
        return self._hooks[key]

    def runs_xdp(self, interface: str) -> bool:
        """Whether an XDP program of Calico's runs at the interface, as untracked policy of a host endpoint needs."""
        return any(one.mechanism == "xdp" for one in self._state.bpf.calico_attachments(interface))

    def interface(self, name: str) -> InterfaceState | None:
        """What the programs know of an interface."""
        link = self._state.interfaces.get(name)
        return self.lookups.interfaces.get(link.index) if link is not None else None

    def is_workload(self, name: str) -> bool:
        """Whether a pod is behind the interface."""
        known = self.interface(name)
        return known is not None and known.workload

    def is_service_device(self, name: str) -> bool:
        """Whether it is the device that the host's own packets to services are routed to (bpfin.cali)."""
        link = self._state.interfaces.get(name)
        return link is not None and link.index in self._service_devices

    @cached_property
    def _service_devices(self) -> frozenset[int]:
        reach = self._state.bpf.reach
        found = (
            getattr(settings, "nat_in_ifindex", 0)
            for attachment in reach.attachments
            for settings in reach.globals(attachment.program_id).values()
        )
        return frozenset(found) - {0}

    # ------------------------------------------------------------------------------------------------------ services

    def translate(self, packet: Packet, chooser: Chooser) -> Backend | Refusal | None:
        """The backend that the NAT maps give for the packet's destination; None when it is no service.

        Source: felix/bpf-gpl/nat_lookup.h, calico_nat_lookup.
        """
        if packet.protocol not in PORT_PROTOCOLS or not isinstance(packet.dport, int):
            return None
        destination = address_from_int(packet.family, packet.destination)
        client = address_from_int(packet.family, packet.source)
        service = self.lookups.frontend(packet.protocol, destination, packet.dport, client)
        if service is None and self._starts_here(packet) and self.is_node(packet.family, packet.destination):
            # Traffic of this node to another node's port needs no detour: every node has an entry for any of them.
            anywhere = address_from_int(packet.family, (1 << (32 if packet.family == 4 else 128)) - 1)
            service = self.lookups.frontend(packet.protocol, anywhere, packet.dport, client)
        if service is None or "nat-exclude" in service.flag_words:
            return None
        shown = f"{destination} port {packet.dport}"
        if service.blackhole:
            return Refusal("source-ranges", f"service {shown} drops this client: its source ranges do not include it")
        local_only = self._local_only(service.flag_words, packet)
        count = service.local_count if local_only else service.count
        if count == 0:
            return Refusal("no-endpoints", f"the service at {shown} has no endpoints", active=True)
        if service.affinity_timeout and (
            stuck := self.lookups.affinity(packet.protocol, destination, packet.dport, client)
        ):
            why = f"service {shown} keeps {client} at a backend for {service.affinity_timeout} s, which may be over"
            if count == 1 or chooser.choose(Kind.BACKEND, why, 2) == 0:
                return self._backend(packet.family, int(stuck.backend_address), stuck.backend_port)
        ordinal = chooser.choose(Kind.BACKEND, f"service {shown} has {count} backends", count) if count > 1 else 0
        backend = self.lookups.backend(packet.family, service.service_id, ordinal)
        if backend is None:
            return Refusal("no-endpoints", f"backend {ordinal} of the service at {shown} is missing in the NAT map")
        return self._backend(packet.family, int(backend.address), backend.port)

    def _local_only(self, flags: tuple[str, ...], packet: Packet) -> bool:
        outside = False
        if not self._starts_here(packet):
            source = self.route(packet.family, packet.source)
            outside = source is None or not (source.has("host") or source.has("workload"))
        return "external-local" in flags if outside else "internal-local" in flags

    def _starts_here(self, packet: Packet) -> bool:
        return packet.incoming is None or self.is_workload(packet.incoming.name)

    def _backend(self, family: int, address: int, port: int) -> Backend:
        route = self.lookups.route(address_from_int(family, address))
        remote = route is not None and not route.has("local") and route.next_hop is not None
        return Backend(
            address, port, int(route.next_hop) if remote and route and route.next_hop else None, route is not None
        )

    # ----------------------------------------------------------------------------------------------------- addresses

    def route(self, family: int, address: int) -> RouteTarget | None:
        """What Calico's routes say of an address."""
        return self.lookups.route(address_from_int(family, address))

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

        Source: felix/bpf-gpl/rpf.h, wep_rpf_check; allowed sources only help an address that no route covers.
        """
        source = address_from_int(packet.family, packet.source)
        route = self.lookups.route(source)
        link = self._state.interfaces.get(interface)
        index = link.index if link is not None else None
        if packet.protocol == ICMPV6 and (source.is_link_local or route is not None):
            return ""
        if route is None:
            if index is not None and self.lookups.may_send_from(index, source):
                return ""
        elif route.has("local") and route.has("workload") and route.ifindex == index:
            return ""
        return f"source {source} is not an address of the pod behind {interface} (a drop that Calico does not count)"

    def host_reverse_path_failure(self, packet: Packet, interface: str, back: str | None) -> str:
        """Why a packet from outside is dropped for its source address, "" when it is not.

        ``back`` is the interface that leads to the source, None without a way. Source: rpf.h, hep_rpf_check, whose
        setting is BPFEnforceRPF.
        """
        words = self._settings(interface, INGRESS, packet.family)
        if "rpf-enabled" not in words or packet.protocol == ICMPV6:
            return ""
        source = address_from_int(packet.family, packet.source)
        if back is None:
            return f"there is no way back to {source} (a drop that Calico does not count)"
        if "rpf-strict" in words and back != interface:
            return f"the way back to {source} is not {interface} but {back} (a drop that Calico does not count)"
        return ""

    def _settings(self, interface: str, hook: str, family: int) -> tuple[str, ...]:
        """Words for the flags of the program at a hook."""
        key = (interface, hook, family)
        if key not in self._words:
            attachment = self._attachment(interface, hook)
            found = self._state.bpf.reach.globals(attachment.program_id).get(family) if attachment else None
            self._words[key] = names_of_bits(found.flags, GLOBAL_FLAGS) if isinstance(found, TcGlobals) else ()
        return self._words[key]

    def leaves_pools(self, packet: Packet, interface: str) -> bool:
        """Whether the packet gets the node's address: from a pool with outgoing NAT to where no pool is.

        Source: routes.h, cali_rt_flags_should_perform_nat_outgoing; the setting for other nodes exists since v3.31.
        """
        source, destination = self.route(packet.family, packet.source), self.route(packet.family, packet.destination)
        if source is None or not source.has("nat-out"):
            return False
        if destination is None or not destination.has("host"):
            return destination is None or not destination.has("in-pool")
        excluded = "nat-outgoing-exclude-hosts" in self._settings(interface, INGRESS, packet.family)
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
        return self.lookups.failsafe(packet.protocol, packet.dport, address, outbound=outbound)

    # -------------------------------------------------------------------------------------------------------- policy

    def policy(
        self, packet: Packet, interface: str, hook: str, before: tuple[int, int | None] | None, chooser: Chooser
    ) -> PolicyResult | Refusal | None:
        """Run the interface's policy at a hook; None where there is none. ``before`` is the service's address."""
        workload = self.is_workload(interface)
        # A pod's own view is the opposite of tc's: what comes in from the interface leaves the pod.
        inward = hook == EGRESS if workload else hook == INGRESS
        direction = "ingress" if inward else "egress"
        loaded = self._program(interface, hook, direction, packet.family, workload)
        if loaded is None or isinstance(loaded, Refusal):
            return loaded
        try:
            run = loaded.program.run(self._policy_packet(packet, before), self._sets, chooser)
        except BytecodeError as error:
            raise Undecided(f"the {direction} policy program of {interface} cannot be run: {error}") from error
        return PolicyResult(interface, direction, not workload, run, loaded.findings, loaded.rules)

    def _policy_packet(self, packet: Packet, before: tuple[int, int | None] | None) -> PolicyPacket:
        sport, dport = _port(packet.sport), _port(packet.dport)
        if packet.protocol in (ICMP, ICMPV6) and packet.icmp_type is not None:
            sport, dport = 0, packet.icmp_type | (packet.icmp_code or 0) << 8
        return PolicyPacket(
            packet.family,
            packet.protocol,
            packet.source,
            packet.destination,
            sport,
            dport,
            before[0] if before else None,
            before[1] if before else None,
            from_host=self.is_host(packet.family, packet.source),
            to_host=self.is_host(packet.family, packet.destination),
        )

    def _program(
        self, interface: str, hook: str, direction: str, family: int, workload: bool
    ) -> LoadedPolicy | Refusal | None:
        attachment = self._attachment(interface, hook)
        if attachment is None:
            return None
        loaded = self._state.bpf.reach.policy(attachment, family)
        if not loaded.programs:
            if workload:
                return Refusal(
                    "program-missing", f"{interface} has no {direction} policy program: Calico drops everything"
                )
            return None
        if loaded.placeholder == "deny":
            return Refusal("program-missing", f"{interface} still has the default program that drops everything")
        if loaded.placeholder == "allow":
            return None
        return self._policies.policy(interface, direction, loaded)


def is_neighbour_discovery(packet: Packet) -> bool:
    """What no policy is asked about (tc.c, do_policy)."""
    return packet.protocol == ICMPV6 and packet.icmp_type in _NEIGHBOUR_TYPES


class _IpSets:
    """IP sets as policy programs look them up."""

    def __init__(self, state: NodeState) -> None:
        self._state = state
        self._tries: dict[int, PrefixTrie] = {}
        self._answers: dict[tuple[int, bytes], bool] = {}

    def in_ip_set(self, version: int, key: bytes, known: bytes) -> bool | Unsure:
        """Whether a set covers the key: the kernel's own lookup for a settled key, else every member."""
        if known != b"\xff" * len(key):
            return self._trie(version).contains(key, known)
        place = (version, key)
        if place not in self._answers:
            chosen = self._state.bpf.map(Role.IP_SETS, version)
            self._answers[place] = chosen is not None and self._state.bpf.kernel.lookup(chosen.info, key) is not None
        return self._answers[place]

    def sub_program(self, _index: int) -> Program | None:
        """Parts of a split policy are all in its debug file."""
        return None

    def _trie(self, version: int) -> PrefixTrie:
        if version not in self._tries:
            size = KEY_BYTES[version]
            chosen = self._state.bpf.map(Role.IP_SETS, version)
            keys: list[bytes] = []
            for batch in self._state.bpf.kernel.batches(chosen.info) if chosen is not None else ():
                keys.extend(batch.keys[at : at + size] for at in range(0, len(batch.keys), size))
            self._tries[version] = PrefixTrie(size, keys)
        return self._tries[version]


def _port(port: int | Partial | None) -> int | Partial:
    return unknown(16, "the port was not given") if port is None else port
