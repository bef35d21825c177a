"""One packet's way through one node of the eBPF dataplane: programs at its interfaces, rules behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.model.conntrack import STATE_BITS
from calico_debug.walk import hooks
from calico_debug.walk.bpf_addresses import is_neighbour_discovery
from calico_debug.walk.bpf_outcomes import (
    EGRESS,
    INGRESS,
    LINUX_ESTABLISHED,
    MASQUERADE_SELF,
    NAT_OUT,
    SEEN,
    SKIP_FIB,
    Onwards,
)
from calico_debug.walk.bpf_policing import PolicedPassage
from calico_debug.walk.context import Tunnelled, Undecided
from calico_debug.walk.packet import TCP, TCP_FLAGS, UDP, Ends, Tracking
from calico_debug.walk.passage import DELIVERED, SENT
from calico_debug.walk.routing import LOOPBACK, Question

if TYPE_CHECKING:
    from calico_debug.walk.passage import Pass
    from calico_debug.walk.routing import Way


class BpfPassage(PolicedPassage):
    """The host's path with Calico's programs where packets enter and leave it."""

    # ------------------------------------------------------------------------------------------------------ paths

    def _receive(self) -> Pass:
        packet = self._packet
        packet.incoming, packet.outgoing = self._interface(self._arrived), None
        accepted = self._accepted_untracked()
        if not self._datapath.hooks.attached(self._arrived, INGRESS):
            return super()._receive()
        if accepted:
            packet.mark = self._datapath.marks.accepted_by_xdp
            return self._through_the_host(tracked=False)
        if self._datapath.hooks.is_workload(self._arrived):
            self._connect()
            if packet.source == packet.destination:
                return self._pass(SENT, self._arrived)  # to itself, through its own loopback device
        onwards = self._enter()
        if self._tunnelled is not None:
            return self._tunnel(self._tunnelled)
        if onwards is Onwards.FORWARD:
            way = self._decided(self._found(self._router.look_up(self._question(self._arrived), self._chooser)))
            packet.outgoing = self._interface(way.interface)
            self._exit(way.interface)
            return self._pass(SENT, way.interface, way.next_hop)
        return self._through_the_host()

    def _receive_on_link(self) -> Pass:
        self._packet.incoming, self._packet.outgoing = self._interface(self._arrived), None
        self._accepted_untracked()  # which neighbour discovery does not pass unasked, as it does tc
        return super()._receive_on_link()

    def _enter_program(self) -> Pass:
        self._packet.incoming = self._interface(self._arrived)
        if self._datapath.hooks.attached(self._arrived, INGRESS):
            self._enter()
        return self._pass(DELIVERED)

    def _through_the_host(self, tracked: bool = True) -> Pass:
        """The packet goes up into the host's stack, whose conntrack sees it as the program left it."""
        packet = self._packet
        if tracked:
            reply = Ends(packet.destination, packet.source, packet.dport, packet.sport)
            packet.tracking = Tracking(STATE_BITS["new"], packet.ends(), reply, done={"dst"})
        self._run(hooks.INGRESS)
        self._run(hooks.PREROUTING)
        way = self._route_in()
        if way.is_local:
            self._run(hooks.INPUT)
            return self._pass(DELIVERED)
        packet.outgoing = self._interface(way.interface)
        self._run(hooks.FORWARD)
        return self._leave(way)

    def _leave(self, way: Way) -> Pass:
        self._run(hooks.POSTROUTING)
        if self._packet.local:
            device = way.interface
            way = self._translate_own(way, device)
            if way.is_local:  # the service's backend is a process of this node
                return self._come_back(self._datapath.hooks.behind_service_device(device) or LOOPBACK)
        self._packet.incoming = None
        self._run(hooks.EGRESS)
        return self._go(way)

    def _loop_back(self, way: Way) -> Pass:
        """To the node's own address, unless it is a service's: then the program at the loopback device sends it on."""
        self._leave_by_loopback()
        moved = self._translate_own(way, LOOPBACK)
        return self._come_back(LOOPBACK) if moved.is_local else self._go(moved)

    def _go(self, way: Way) -> Pass:
        self._exit(way.interface)
        return self._pass(SENT, way.interface, way.next_hop)

    def _tunnel(self, node: int) -> Pass:
        """A program at the outside wraps packets to a remote backend itself, and sends them to that node."""
        family = self._packet.family
        way = self._decided(self._found(self._router.look_up(Question(family, node, 0, 0), self._chooser)))
        self._packet.service = self._before  # inside of the tunnel the packet still has it: that node translates again
        return self._pass(SENT, way.interface, node)

    # ------------------------------------------------------------------------------------------------------ programs

    def _enter(self) -> Onwards:
        """The program at tc ingress."""
        packet, datapath = self._packet, self._datapath
        workload = datapath.hooks.is_workload(self._arrived)
        self._track()
        if self._joined():
            return self._join()
        if not workload and datapath.addresses.without_policy(packet):
            packet.mark = SEEN
            return Onwards.STACK
        backend = self._translate_service()
        if backend is not None and backend.maglev:
            self._check_backend(backend)
            self._ask_policy(self._arrived, INGRESS, forwarded=True)
        else:
            self._police(workload)
        packet.mark = SEEN
        if backend is not None and not workload:
            self._check_backend(backend)
            if backend.node is not None:
                self._tunnelled = backend.node
                self._trace.events.append(Tunnelled(backend.node, self._trace.hypothetical))
                return Onwards.FORWARD
        return self._onwards(workload, backend is not None)

    def _onwards(self, workload: bool, translated: bool) -> Onwards:
        packet, addresses = self._packet, self._datapath.addresses
        if addresses.is_host(packet.family, packet.destination):
            return Onwards.STACK
        if workload and translated and packet.source == packet.destination:
            packet.mark = MASQUERADE_SELF
            return Onwards.STACK
        if workload and addresses.leaves_pools(packet, self._arrived):
            packet.mark = NAT_OUT
            return Onwards.STACK
        if is_neighbour_discovery(packet) or addresses.needs_host_routing(packet, workload, translated):
            packet.mark = SKIP_FIB
            return Onwards.STACK
        return Onwards.FORWARD

    def _joined(self) -> bool:
        """Whether the packet belongs to a connection that the node's map of connections has."""
        tracking = self._packet.tracking
        return tracking is not None and (tracking.existing or tracking.in_reply)

    def _join(self) -> Onwards:
        """A packet of a connection that exists: translated as its first one was, and past policy."""
        packet = self._packet
        tracking = packet.tracking
        assert tracking is not None
        self._apply(tracking, "dst", None)
        if tracking.in_reply:
            self._apply(tracking, "src", None)
        packet.mark = SEEN
        return Onwards.STACK if self._datapath.addresses.is_host(packet.family, packet.destination) else Onwards.FORWARD

    def _exit(self, interface: str) -> None:
        """The program at tc egress."""
        packet, datapath = self._packet, self._datapath
        if not datapath.hooks.attached(interface, EGRESS) or self._joined() or is_neighbour_discovery(packet):
            return
        if datapath.marks.approved(packet.mark):
            return  # by another program; the marks for masquerading count in newer releases
        seen = isinstance(packet.mark, int) and packet.mark & SEEN != 0
        workload = datapath.hooks.is_workload(interface)
        # tc.c, calico_tc_process_ct_lookup: only programs of host interfaces look whether it is forwarded
        forwarded = not workload and (self._forwarded or (seen and not packet.local))
        own = not forwarded and datapath.addresses.is_host(packet.family, packet.source)
        if workload:
            if own and not seen:
                return  # a node's traffic to its own pods is never policed
        elif datapath.addresses.without_policy(packet):
            return
        elif own and datapath.addresses.failsafe(packet, outbound=True):
            self._pass_failsafe(interface, EGRESS)
            return
        elif self._is_late():
            self._leave_late(interface)
            return
        self._ask_policy(interface, EGRESS, forwarded)

    def _is_late(self) -> bool:
        """Whether it is a packet of the host, in the middle of a TCP connection that nobody knows."""
        packet = self._packet
        if not packet.local or packet.protocol != TCP or packet.tcp_flags in (None, TCP_FLAGS["syn"]):
            return False
        return not (isinstance(packet.mark, int) and packet.mark & LINUX_ESTABLISHED)

    def _leave_late(self, interface: str) -> None:
        """tc.c: without a host endpoint there it may go; with one it is dropped, whatever policy says."""
        result = self._datapath.policy(self._packet, interface, EGRESS, self._before, self._chooser)
        if result is not None:
            self._lose(
                "ct-invalid",
                f"nothing knows the connection that this packet belongs to, and {interface} is a host endpoint (a drop "
                "that Calico does not count); untracked policy has to allow the answers too",
            )

    def _send(self) -> Pass:
        self._connect()
        return super()._send()

    def _doubt_own_node_port(self) -> None:
        """Stop at what was seen to time out with v3.32.1 although every program approved it, for causes not known."""
        packet, addresses = self._packet, self._datapath.addresses
        if self._before is None or not addresses.is_node(packet.family, self._before[0]):
            return
        if packet.protocol == UDP:
            raise Undecided("whether the answer to a node's own UDP to a node port is translated back is not known")
        if addresses.is_node(packet.family, packet.destination):
            raise Undecided("a node's own way to a node port of a backend in a host's network is not known")

    def _translate_own(self, way: Way, device: str) -> Way:
        """The host's own packet to a service: at the device that such packets are routed through, or on the way out."""
        packet, datapath = self._packet, self._datapath
        service_device = datapath.hooks.is_service_device(device)
        if not datapath.hooks.attached(device, EGRESS) and not service_device:
            return way
        packet.incoming = None
        if self._translate_service() is None:
            return way
        self._doubt_own_node_port()
        if service_device:
            # A host endpoint for all interfaces is one for the device that translates, too.
            self._police_settled(datapath.hooks.behind_service_device(device), workload=False)
            self._forwarded = datapath.addresses.needs_host_routing(packet, workload=False, translated=True)
        moved = self._decided(self._found(self._router.look_up(self._question(LOOPBACK), self._chooser)))
        packet.outgoing = self._interface(LOOPBACK if moved.is_local else moved.interface)
        if not service_device and datapath.hooks.is_workload(moved.interface):
            # tc.c, "NP redir on HEP": past the host endpoint's policy, and marked so that the pod's own is asked.
            packet.mark = SEEN
        return moved
