"""One packet through one node: in from an interface or from a process, and out again, delivered, or gone.

Source for the path: Linux net/ipv4/ip_input.c, ip_forward.c, ip_output.c, net/netfilter/nf_nat_core.c
(nf_nat_inet_fn), nf_conntrack_core.c (nf_conntrack_in); the IPv6 files are their twins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from calico_debug.errors import EvidenceError
from calico_debug.model.conntrack import STATE_BITS, STATUS_BITS
from calico_debug.model.routing import address_from_int
from calico_debug.walk import hooks
from calico_debug.walk.chains import Continue, run_base_chain
from calico_debug.walk.choices import Unsure
from calico_debug.walk.context import Context, Routed, Trace, Tracked, Translated, Undecided, Unrouted
from calico_debug.walk.packet import Ends, Packet, Tracking
from calico_debug.walk.reception import unreceivable
from calico_debug.walk.routing import LOOPBACK, Question, Way, refusal

if TYPE_CHECKING:
    from calico_debug.model.nft import Chain, Rule
    from calico_debug.model.routing import Interface
    from calico_debug.walk.choices import Chooser
    from calico_debug.walk.node import NodeWalker

DELIVERED, SENT, DENIED, LOST, UNDECIDED = "delivered", "sent", "denied", "lost", "undecided"

Tracker = Callable[[Packet], Tracking]
"""Finds or makes the conntrack entry of a packet."""

_NAT_DONE = {"src": 0x80, "dst": 0x100}
"""IPS_SRC_NAT_DONE and IPS_DST_NAT_DONE of ``ct status``, set whether or not anything was translated. They have no
name in nft, but Felix's ``ct status != dnat`` compares all bits, and so holds for a translated connection too.
"""


@dataclass(frozen=True, slots=True)
class Pass:
    """What one packet did on one node.

    ``ending`` is one of DELIVERED (to a process of the host), SENT (out of ``interface`` towards ``next_hop``, an
    integer, None when the destination is on the link), DENIED (by the trace's last denial), LOST (outside nftables, see
    the last event) and UNDECIDED (see ``trace.undecided``). ``arrived`` is the interface it came in through, "" for a
    packet of the host itself.
    """

    node: str
    ending: str
    trace: Trace
    packet: Packet
    arrived: str
    interface: str = ""
    next_hop: int | None = None


class Gone(Exception):  # noqa: N818 - the packet's end, not a fault
    """The packet does not go on; carries the ending."""


class Passage:
    """One packet's way through one node."""

    def __init__(
        self,
        walker: NodeWalker,
        packet: Packet,
        tracker: Tracker,
        chooser: Chooser,
        go_on: Continue | None,
        hypothetical: bool,
    ) -> None:
        """See `NodeWalker.receive`."""
        self._walker = walker
        self._router = walker.router
        self._reception = walker.reception
        self._packet = packet
        self._tracker = tracker
        self._chooser = chooser
        self._go_on = go_on
        self._trace = Trace(hypothetical)
        self._context = Context(packet, chooser, self._trace, walker.surroundings)
        self._arrived = ""
        self._way: Way | None = None

    # ------------------------------------------------------------------------------------------------------ paths

    def receive(self, interface: str) -> Pass:
        """In through an interface."""
        self._arrived = interface
        return self._guarded(self._receive)

    def enter(self, interface: str) -> Pass:
        """In through an interface, as far as Calico's program there. The other dataplanes have none."""
        self._arrived = interface
        return self._guarded(self._enter_program)

    def _enter_program(self) -> Pass:
        return self._pass(DELIVERED)

    def send(self) -> Pass:
        """Out of the host."""
        return self._guarded(self._send)

    def send_on_link(self, interface: str) -> Pass:
        """Out of the host to one link."""
        return self._guarded(lambda: self._send_on_link(interface))

    def receive_on_link(self, interface: str) -> Pass:
        """In from one link."""
        self._arrived = interface
        return self._guarded(self._receive_on_link)

    def _send_on_link(self, interface: str) -> Pass:
        self._packet.incoming, self._packet.outgoing = None, self._interface(interface)
        self._run(hooks.OUTPUT)
        self._run(hooks.POSTROUTING)
        self._run(hooks.EGRESS)
        return self._pass(SENT, interface)

    def _receive_on_link(self) -> Pass:
        self._packet.incoming, self._packet.outgoing = self._interface(self._arrived), None
        self._run(hooks.INGRESS)
        self._run(hooks.PREROUTING)
        self._run(hooks.INPUT)
        return self._pass(DELIVERED)

    def _guarded(self, path: Callable[[], Pass]) -> Pass:
        try:
            return path()
        except Gone as gone:
            return self._pass(str(gone))
        except (Undecided, EvidenceError) as error:
            self._trace.undecided = str(error)
            self._trace.missing = isinstance(error, EvidenceError)
            return self._pass(UNDECIDED)

    def _receive(self) -> Pass:
        packet = self._packet
        packet.incoming = self._interface(self._arrived)
        packet.outgoing = None
        self._run(hooks.INGRESS)
        if failure := unreceivable(packet.family, packet.source, packet.destination, self._arrived):
            self._lose("rpf", failure)
        self._run(hooks.PREROUTING)
        way = self._route_in()
        if way.is_local:
            self._run(hooks.INPUT)
            self._confirm()
            return self._pass(DELIVERED)
        packet.outgoing = self._interface(way.interface)
        self._run(hooks.FORWARD)
        return self._leave(way)

    def _send(self) -> Pass:
        packet = self._packet
        packet.incoming = None
        self._way = self._route_out()
        # Chains at output see the device of this first decision, even after a translation moved the packet elsewhere.
        packet.outgoing = self._interface(_leaving(self._way))
        self._run(hooks.OUTPUT)
        way = self._way
        packet.outgoing = self._interface(_leaving(way))
        return self._loop_back(way) if way.is_local else self._leave(way)

    def _loop_back(self, _way: Way) -> Pass:
        """Through the loopback device: the packet leaves and arrives again with its conntrack entry and mark."""
        self._leave_by_loopback()
        return self._come_back(LOOPBACK)

    def _leave_by_loopback(self) -> None:
        self._packet.outgoing = self._interface(LOOPBACK)
        self._run(hooks.POSTROUTING)
        self._confirm()
        self._run(hooks.EGRESS)

    def _come_back(self, interface: str) -> Pass:
        """The host's own packet comes in again, for the host itself."""
        packet = self._packet
        packet.local = False
        packet.incoming, packet.outgoing = self._interface(interface), None
        self._run(hooks.INGRESS)
        self._run(hooks.PREROUTING)
        self._run(hooks.INPUT)
        return self._pass(DELIVERED)

    def _leave(self, way: Way) -> Pass:
        self._run(hooks.POSTROUTING)
        self._confirm()
        self._packet.incoming = None  # chains at egress are told only of the device that the packet leaves through
        self._run(hooks.EGRESS)
        return self._pass(SENT, way.interface, way.next_hop)

    def _pass(self, ending: str, interface: str = "", next_hop: int | None = None) -> Pass:
        return Pass(self._walker.name, ending, self._trace, self._packet, self._arrived, interface, next_hop)

    # ---------------------------------------------------------------------------------------------------- routing

    def _interface(self, name: str) -> Interface:
        interface = self._walker.state.interfaces.get(name)
        if interface is None:
            raise Undecided(f"interface {name} is named by a route of {self._walker.name} but is not in the evidence")
        return interface

    def _question(self, incoming: str) -> Question:
        packet = self._packet
        return Question(packet.family, packet.destination, packet.source, packet.mark, incoming)

    def _route_in(self) -> Way:
        packet, reception, arrived = self._packet, self._reception, self._arrived
        if failure := reception.martian(packet.family, packet.source, packet.destination, arrived):
            self._lose("rpf", failure)
        way = self._router.look_up(self._question(arrived), self._chooser)
        if way is None or not way.is_local:
            if not reception.forwards(packet.family, arrived):
                self._lose("not-forwarding", f"{self._walker.name} does not forward packets (sysctl forwarding is 0)")
        found = self._found(way)
        failure = reception.reverse_path_failure(
            packet.family, packet.source, packet.destination, packet.mark, arrived, _leaving(found)
        )
        if failure:
            self._lose("rpf", failure)
        return self._decided(found)

    def _route_out(self) -> Way:
        way = self._found(self._router.look_up(self._question(LOOPBACK), self._chooser))
        failure = self._reception.lent_loopback(self._packet.family, self._packet.source, _leaving(way))
        if failure:
            self._lose("rpf", failure)
        return self._decided(way)

    def _found(self, way: Way | None) -> Way:  # noqa: RET503 - a way that is none ends the packet
        if way is not None and (way.type == "unicast" or way.is_local):
            return way
        destination = address_from_int(self._packet.family, self._packet.destination)
        if way is None:
            how = "has no route to"
        elif way.route.table:
            how = f"has a route of type {way.type} for"
        else:
            how = f"has a routing rule that says {way.type} for"
        # To the host's own processes this is an error of the system call.
        answer = "" if self._packet.local else refusal(self._packet.family, way)
        self._lose("no-route", f"{self._walker.name} {how} {destination}", answer)

    def _decided(self, way: Way) -> Way:
        self._trace.events.append(Routed(way.route, way.interface, way.is_local, self._trace.hypothetical))
        return way

    def _lose(self, reason: str, detail: str, answer: str = "") -> NoReturn:
        self._trace.events.append(Unrouted(reason, detail, answer))
        raise Gone(LOST)

    # ------------------------------------------------------------------------------------------------------ hooks

    def _run(self, hook: str) -> None:
        self._context.hook = hook
        for stage in self._walker.stages(self._packet.family, hook):
            if stage.builtin is hooks.Builtin.CONNTRACK:
                self._track()
            elif stage.builtin is hooks.Builtin.NAT:
                destination = self._packet.destination
                self._translate(hook, stage)
                if hook == hooks.OUTPUT and self._packet.destination != destination:
                    self._way = self._route_out()
            elif stage.chain is not None and self._is_attached(stage.chain, hook):
                self._run_chain(stage.chain)

    def _is_attached(self, chain: Chain, hook: str) -> bool:
        device = self._packet.incoming if hook == hooks.INGRESS else self._packet.outgoing
        answer = hooks.applies_to(chain, device.name if device else "")
        if isinstance(answer, Unsure):
            return not self._chooser.choose(answer.kind, answer.why, 2)
        return answer

    def _run_chain(self, chain: Chain) -> None:
        packet = self._packet
        before = packet.mark
        if not run_base_chain(self._walker.program, chain, self._context, self._go_on):
            raise Gone(DENIED)
        assert chain.hook is not None
        # Only chains of type route make the kernel route anew what they marked (nft_chain_route.c).
        if chain.hook.type == "route" and packet.mark != before:
            self._way = self._route_out()

    def _track(self) -> None:
        packet = self._packet
        if packet.tracking is None:
            packet.tracking = self._tracker(packet)
            self._trace.events.append(Tracked(packet.tracking, packet.tracking.state))

    def _confirm(self) -> None:
        """The connection enters conntrack's table behind the last hook (nf_confirm of nf_conntrack_proto.c)."""
        if self._packet.tracking is not None:
            self._packet.tracking.status |= STATUS_BITS["confirmed"]

    def _translate(self, hook: str, stage: hooks.Stage) -> None:
        """The NAT core: ask the chains once for a connection's first packet, then apply what was decided."""
        tracking = self._packet.tracking
        if tracking is None or tracking.state in (STATE_BITS["untracked"], STATE_BITS["invalid"]):
            return
        side = hooks.NAT_SIDE[hook]
        self._context.nat_rule = None
        if tracking.state == STATE_BITS["new"] and side not in tracking.done:
            for chain in stage.nat_chains:
                if not run_base_chain(self._walker.program, chain, self._context, self._go_on):
                    raise Gone(DENIED)
                if side in tracking.done:
                    break
            tracking.done.add(side)
            tracking.status |= _NAT_DONE[side]
        self._apply(tracking, side, self._context.nat_rule)

    def _apply(self, tracking: Tracking, side: str, rule: Rule | None) -> None:
        packet = self._packet
        before = packet.ends()
        target = tracking.original if tracking.in_reply else tracking.reply
        if side == "dst":
            after = Ends(before.source, target.source, before.source_port, target.source_port)
        else:
            after = Ends(target.destination, before.destination, target.destination_port, before.destination_port)
        if after != before:
            packet.readdress(after)
            self._trace.events.append(Translated(side, before, after, rule, self._trace.hypothetical))


def _leaving(way: Way) -> str:
    """The device of an outgoing packet; packets to the host itself leave through loopback, whatever the route says."""
    return LOOPBACK if way.is_local else way.interface
