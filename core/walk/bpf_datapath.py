"""Calico's eBPF programs at the interfaces of one node, for many packets.

The policy programs are run as they are (`bpf_policy`); what surrounds them (service translation, reverse path, what
passes without policy) follows felix/bpf-gpl of v3.28 to v3.32, from the node's maps.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from calico_debug.decode.bpf_layout_types import Role
from calico_debug.errors import MissingEvidence
from calico_debug.model.bytecode import BytecodeError, Program
from calico_debug.model.values import Partial, unknown
from calico_debug.state.bpf_lookups import BpfLookups
from calico_debug.walk.bpf_addresses import Addresses
from calico_debug.walk.bpf_hooks import InterfaceHooks
from calico_debug.walk.bpf_host_action import host_action
from calico_debug.walk.bpf_loaded import LoadedPolicies, LoadedPolicy
from calico_debug.walk.bpf_marks import Marks, marks_of
from calico_debug.walk.bpf_outcomes import EGRESS, INGRESS, MASQUERADE_SELF, XDP, PolicyResult, Refusal
from calico_debug.walk.bpf_policy import Verdict
from calico_debug.walk.bpf_services import Services
from calico_debug.walk.bpf_sets import KEY_BYTES, PrefixTrie
from calico_debug.walk.bpf_state import PolicyPacket
from calico_debug.walk.choices import Kind
from calico_debug.walk.context import Undecided
from calico_debug.walk.packet import ICMP, ICMPV6

if TYPE_CHECKING:
    from calico_debug.state.node import NodeState
    from calico_debug.walk.choices import Chooser, Unsure
    from calico_debug.walk.packet import Packet


class BpfDatapath:
    """The programs and maps of one node.

    ``hooks`` are the programs at its interfaces, ``addresses`` what its routes say, ``services`` the translation,
    ``sets`` the IP sets that policy programs look into.
    """

    def __init__(self, state: NodeState) -> None:
        """Nothing is read before a packet needs it."""
        self._state = state
        self.lookups = BpfLookups(state.bpf)
        self.hooks = InterfaceHooks(state, self.lookups)
        self.addresses = Addresses(self.lookups, self.hooks)
        self.services = Services(self.lookups, self.hooks, self.addresses, hashes=not state.addresses_replaced)
        self.sets = IpSets(state)
        self._policies = LoadedPolicies(state)
        self._host_actions: dict[tuple[int, str], str] = {}

    @cached_property
    def marks(self) -> Marks:
        """What its programs' marks mean."""
        return marks_of(self._state.bpf)

    def notes_at_exit(self, interface: str, mark: object) -> bool:
        """Whether the program at an interface's egress makes an entry for a packet's connection, as the host's rules
        left it: it does for what no other program has approved.
        """
        return self.hooks.attached(interface, EGRESS) and not self.marks.approved(mark)

    def host_action(self, family: int, interface: str) -> str:
        """What becomes of a pod's packets to its own node (`bpf_host_action`)."""
        key = (family, interface)
        if key not in self._host_actions:
            self._host_actions[key] = host_action(self._state, family, interface)
        return self._host_actions[key]

    def policy(
        self,
        packet: Packet,
        interface: str,
        hook: str,
        before: tuple[int, int | None] | None,
        chooser: Chooser,
        forwarded: bool = False,
    ) -> PolicyResult | Refusal | None:
        """Run the interface's policy at a hook; None where there is none.

        ``before`` is the service's address. ``forwarded`` says that the programs do not look whether the node itself is
        an end.
        """
        workload = self.hooks.is_workload(interface)
        # A pod's own view is the opposite of tc's: what comes in from the interface leaves the pod.
        inward = hook == EGRESS if workload else hook == INGRESS
        direction = "ingress" if inward else "egress"
        loaded = self._program(interface, hook, direction, packet.family, workload)
        if loaded is None or isinstance(loaded, Refusal):
            return loaded
        asked = self._policy_packet(packet, before, forwarded)
        if workload and hook == EGRESS and packet.mark == MASQUERADE_SELF:
            asked = replace(asked, source=packet.destination)  # tc.c, "MASQ to self"
        try:
            run = loaded.program.run(asked, self.sets, chooser)
        except BytecodeError as error:
            raise Undecided(f"the {direction} policy program of {interface} cannot be run: {error}") from error
        return PolicyResult(
            interface, direction, not workload, run, loaded.findings, loaded.rules, loaded.program, asked
        )

    def is_policed(self, family: int, interface: str, hook: str) -> bool:
        """Whether a host endpoint's policy is asked at an interface. Raises `MissingEvidence`."""
        direction = "ingress" if hook == INGRESS else "egress"
        return self._program(interface, hook, direction, family, workload=False) is not None

    def untracked_policy(self, packet: Packet, interface: str, chooser: Chooser) -> PolicyResult | None:
        """Run the interface's untracked policy, which XDP asks before anything else; None where none is asked.

        Source: felix/bpf-gpl/xdp_preamble.c and xdp.c. Raises `Undecided`, `EvidenceError`.
        """
        attachment = self.hooks.xdp(interface)
        if attachment is None or packet.family not in self._state.bpf.reach.families(attachment):
            return None
        loaded = self._state.bpf.reach.policy(attachment, packet.family)
        if loaded.problem:
            raise MissingEvidence(loaded.problem)
        if not loaded.programs or self.addresses.failsafe(packet, outbound=False):
            return None
        answers = self.addresses.answers_failsafe(packet)
        if answers:
            return None
        found = self._policies.policy(interface, XDP, loaded)
        asked = self._policy_packet(packet, None, forwarded=True)
        try:
            run = found.program.run(asked, self.sets, chooser)
        except BytecodeError as error:
            raise Undecided(f"the untracked policy program of {interface} cannot be run: {error}") from error
        if answers is None and run.verdict is not Verdict.PASSED:
            why = "whether the source port, which was not given, is one of the host's outbound failsafe ports"
            if chooser.choose(Kind.UNKNOWN, why, 2):
                return None
        return PolicyResult(
            interface, "ingress", True, run, found.findings, found.rules, found.program, asked, untracked=True
        )

    def _policy_packet(self, packet: Packet, before: tuple[int, int | None] | None, forwarded: bool) -> PolicyPacket:
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
            from_host=not forwarded and self.addresses.is_host(packet.family, packet.source),
            to_host=not forwarded and self.addresses.is_host(packet.family, packet.destination),
        )

    def _program(
        self, interface: str, hook: str, direction: str, family: int, workload: bool
    ) -> LoadedPolicy | Refusal | None:
        attachment = self.hooks.attachment(interface, hook)
        if attachment is None:
            return None
        loaded = self._state.bpf.reach.policy(attachment, family)
        if loaded.problem:
            raise MissingEvidence(loaded.problem)
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


class IpSets:
    """IP sets as policy programs look them up (`bpf_policy.PolicyMaps`)."""

    def __init__(self, state: NodeState) -> None:
        """Nothing is read before a program asks."""
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
