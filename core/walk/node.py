"""Packets through one node: what is kept of the node between them. The way of one packet is in passage.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.state.dataplane import EBPF
from calico_debug.walk import hooks
from calico_debug.walk.addresses import Addresses
from calico_debug.walk.chains import Program
from calico_debug.walk.passage import Passage
from calico_debug.walk.reception import Reception
from calico_debug.walk.routing import Router
from calico_debug.walk.surroundings import NodeSurroundings

if TYPE_CHECKING:
    from calico_debug.state.node import NodeState
    from calico_debug.walk.bpf_datapath import BpfDatapath
    from calico_debug.walk.chains import Continue
    from calico_debug.walk.choices import Chooser
    from calico_debug.walk.packet import Packet
    from calico_debug.walk.passage import Pass, Tracker


class NodeWalker:
    """Walks packets through one node. Rules, routes and compiled code are kept between packets."""

    def __init__(self, state: NodeState) -> None:
        """Nothing is read before a packet needs it."""
        self.state = state
        self.router = Router(state)
        self.reception = Reception(state, self.router)
        self.addresses = Addresses(state, self.router)
        self.surroundings = NodeSurroundings(state, self.router)
        self._program: Program | None = None
        self._datapath: BpfDatapath | None = None
        self._stages: dict[tuple[int, str], tuple[hooks.Stage, ...]] = {}

    @property
    def name(self) -> str:
        """The node's name."""
        return self.state.name

    @property
    def program(self) -> Program:
        """The node's rules, compiled on demand."""
        if self._program is None:
            self._program = Program(self.state.ruleset)
        return self._program

    def receive(
        self,
        packet: Packet,
        interface: str,
        tracker: Tracker,
        chooser: Chooser,
        go_on: Continue | None = None,
        hypothetical: bool = False,
    ) -> Pass:
        """A packet that comes in through ``interface``; ``hypothetical`` when it was denied before."""
        return self._passage(packet, tracker, chooser, go_on, hypothetical).receive(interface)

    def send(
        self,
        packet: Packet,
        tracker: Tracker,
        chooser: Chooser,
        go_on: Continue | None = None,
        hypothetical: bool = False,
    ) -> Pass:
        """A packet of the host itself."""
        packet.local = True
        return self._passage(packet, tracker, chooser, go_on, hypothetical).send()

    def send_on_link(self, packet: Packet, interface: str, tracker: Tracker, chooser: Chooser) -> Pass:
        """A packet of the host itself for the link alone, without a routing decision (neighbour discovery)."""
        packet.local = True
        return self._passage(packet, tracker, chooser, None, False).send_on_link(interface)

    def receive_on_link(self, packet: Packet, interface: str, tracker: Tracker, chooser: Chooser) -> Pass:
        """A packet from the link for the host itself, multicast ones included, without a routing decision."""
        return self._passage(packet, tracker, chooser, None, False).receive_on_link(interface)

    def enter(self, packet: Packet, interface: str, tracker: Tracker, chooser: Chooser) -> Pass:
        """A packet that comes in through ``interface``, as far as Calico's program there: DELIVERED is what it lets
        through to the host.
        """
        return self._passage(packet, tracker, chooser, None, False).enter(interface)

    @property
    def datapath(self) -> BpfDatapath | None:
        """The node's eBPF programs, None when it does not run Calico's eBPF dataplane. Raises `EvidenceError`."""
        if self._datapath is None and self.state.dataplane == EBPF:
            from calico_debug.walk.bpf_datapath import BpfDatapath

            self._datapath = BpfDatapath(self.state)
        return self._datapath

    def _passage(
        self,
        packet: Packet,
        tracker: Tracker,
        chooser: Chooser,
        go_on: Continue | None,
        hypothetical: bool,
    ) -> Passage:
        if self.datapath is None:
            return Passage(self, packet, tracker, chooser, go_on, hypothetical)
        from calico_debug.walk.bpf_passage import BpfPassage

        return BpfPassage(self, self.datapath, packet, tracker, chooser, go_on, hypothetical)

    def stages(self, family: int, hook: str) -> tuple[hooks.Stage, ...]:
        """What runs at a hook."""
        key = (family, hook)
        if key not in self._stages:
            ruleset = self.program.ruleset
            chains = hooks.by_registration(ruleset.base_chains(), ruleset.tables())
            self._stages[key] = hooks.stages(chains, family, hook)
        return self._stages[key]
