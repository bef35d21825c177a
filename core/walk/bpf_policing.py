"""What the programs of one node ask of a packet before they let it on: its service, its source, policy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from calico_debug.model.routing import address_from_int
from calico_debug.walk import bpf_host_action as host_actions
from calico_debug.walk.bpf_addresses import is_neighbour_discovery
from calico_debug.walk.bpf_outcomes import (
    INGRESS,
    Backend,
    Refusal,
)
from calico_debug.walk.bpf_policy import Verdict
from calico_debug.walk.choices import Kind
from calico_debug.walk.context import PassedUnasked, PolicyRan, Translated, Undecided
from calico_debug.walk.packet import TCP_FLAGS, Ends
from calico_debug.walk.passage import DENIED, Gone, Passage
from calico_debug.walk.routing import Question

if TYPE_CHECKING:
    from calico_debug.walk.bpf_datapath import BpfDatapath
    from calico_debug.walk.bpf_outcomes import PolicyResult
    from calico_debug.walk.chains import Continue
    from calico_debug.walk.choices import Chooser
    from calico_debug.walk.node import NodeWalker
    from calico_debug.walk.packet import Packet
    from calico_debug.walk.passage import Tracker


class PolicedPassage(Passage):
    """The host's path, with the questions of Calico's programs."""

    def __init__(
        self,
        walker: NodeWalker,
        datapath: BpfDatapath,
        packet: Packet,
        tracker: Tracker,
        chooser: Chooser,
        go_on: Continue | None,
        hypothetical: bool,
    ) -> None:
        """As `Passage`, with the node's programs."""
        super().__init__(walker, packet, tracker, chooser, go_on, hypothetical)
        self._datapath = datapath
        self._before, packet.service = packet.service, None
        """Address and port of the service that was translated."""
        self._forwarded = False
        """Whether programs at egress take the packet for forwarded, though it is the node's own."""
        self._tunnelled: int | None = None
        """The node that a program wraps the packet for."""

    def _connect(self) -> None:
        """What happens to the destination before a process's first packet."""
        if self._packet.tcp_flags not in (None, TCP_FLAGS["syn"]):
            return
        found = self._datapath.services.translate_at_connect(self._packet, self._chooser)
        if isinstance(found, Refusal):
            self._lose(found.reason, found.detail, "connect-refused" if found.active else "")
        if found is not None:
            self._to_backend(found, at_connect=True)

    def _translate_service(self) -> Backend | None:
        found = self._datapath.services.translate(self._packet, self._chooser)
        if isinstance(found, Refusal):
            told = found.active and (not self._packet.local or self._datapath.marks.refuses_own)
            self._lose(found.reason, found.detail, "port-unreachable" if told else "")
        if found is not None:
            self._to_backend(found)
        return found

    def _to_backend(self, found: Backend, at_connect: bool = False) -> None:
        packet = self._packet
        before = packet.ends()
        self._before = (
            before.destination,
            before.destination_port if isinstance(before.destination_port, int) else None,
        )
        after = replace(before, destination=found.address, destination_port=found.port)
        packet.readdress(after)
        if packet.tracking is not None:
            packet.tracking.reply = Ends(after.destination, after.source, after.destination_port, after.source_port)
        hypothetical = self._trace.hypothetical
        self._trace.events.append(
            Translated("dst", before, after, None, hypothetical, service=True, at_connect=at_connect)
        )

    def _accepted_untracked(self) -> bool:
        """Whether untracked policy accepts the packet at XDP, so that neither tc nor conntrack looks at it."""
        result = self._datapath.untracked_policy(self._packet, self._arrived, self._chooser)
        if result is None:
            return False
        self._tell_policy(result)
        if result.run.verdict is not Verdict.ALLOWED:
            return False
        attachment = self._datapath.hooks.xdp(self._arrived)
        if attachment is not None and attachment.mode == "generic":
            return True
        # xdp2tc_set_metadata fails where a driver has no room for it, and tc's policy is then asked all the same.
        why = f"whether the driver of {self._arrived} hands on what XDP accepted (metadata in front of the packet)"
        return self._chooser.choose(Kind.UNKNOWN, why, 2) == 0

    def _police(self, workload: bool) -> None:
        """What a packet has to pass once its destination is settled (tc.c, calico_tc_process_ct_lookup)."""
        self._check_reverse_path(workload)
        self._police_settled(self._arrived, workload)

    def _police_settled(self, interface: str, workload: bool) -> None:
        packet, addresses = self._packet, self._datapath.addresses
        to_host = addresses.is_host(packet.family, packet.destination)
        if flag := addresses.blackholed(packet):
            answer = "" if flag == "blackhole-drop" else "port-unreachable"
            self._lose("service-loop", "the destination is in a service range and no service took it", answer)
        if not workload and to_host and addresses.failsafe(packet, outbound=False):
            self._pass_failsafe(self._arrived, INGRESS)
        elif not is_neighbour_discovery(packet):
            self._ask_policy(interface, INGRESS)
            if workload and to_host:
                self._check_host_action()

    def _pass_failsafe(self, interface: str, hook: str) -> None:
        """A port of the node that no host endpoint's policy is asked about, where there is one."""
        if self._datapath.is_policed(self._packet.family, interface, hook):
            self._trace.events.append(PassedUnasked("failsafe", "ingress" if hook == INGRESS else "egress"))

    def _check_backend(self, backend: Backend) -> None:
        if not backend.routed:
            address = address_from_int(self._packet.family, backend.address)
            self._lose("no-route", f"the programs of {self._walker.name} know no route to backend {address}")

    def _check_host_action(self) -> None:
        """A pod's packet to its own node, behind policy (tc.c, calico_tc_skb_accepted_entrypoint)."""
        action = self._datapath.host_action(self._packet.family, self._arrived)
        if action == host_actions.DROP:
            self._lose("host-default", "DefaultEndpointToHostAction drops what pods send to their own node")
        if action == host_actions.UNKNOWN:
            raise Undecided(
                f"whether {self._walker.name} lets its own pods in is not known: DefaultEndpointToHostAction is "
                "compiled into its programs, and neither its rules at input nor felix-env.txt tell it; record both"
            )
        if action == host_actions.ACCEPT:
            self._trace.events.append(PassedUnasked("host-default", "egress"))

    def _check_reverse_path(self, workload: bool) -> None:
        packet, datapath, arrived = self._packet, self._datapath, self._arrived
        if workload:
            failure = datapath.addresses.reverse_path_failure(packet, arrived)
        else:
            back = self._router.look_up(Question(packet.family, packet.source, packet.destination, 0, arrived))
            way_back = back.interface if back is not None and back.type == "unicast" else None
            failure = datapath.addresses.host_reverse_path_failure(packet, arrived, way_back)
        if failure:
            self._lose("rpf", failure)

    def _ask_policy(self, interface: str, hook: str, forwarded: bool = False) -> None:
        result = self._datapath.policy(self._packet, interface, hook, self._before, self._chooser, forwarded)
        if result is None:
            return
        if isinstance(result, Refusal):
            self._lose(result.reason, result.detail)
        self._tell_policy(result)

    def _tell_policy(self, result: PolicyResult) -> None:
        self._trace.events.append(PolicyRan(result, self._trace.hypothetical))
        if not result.denied:
            return
        if self._go_on is None or self._trace.hypothetical:
            raise Gone(DENIED)
        self._trace.hypothetical = True
