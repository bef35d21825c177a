"""What the second and third witness are made with on one node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from calico_debug.agent.observe import Observer
from calico_debug.agent.packets.witness import PacketWitness
from calico_debug.agent.probe import probe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.model.explanation import Witness
    from calico_debug.model.observation import FlowTuple, Observation, ProbeReport
    from calico_debug.model.packet_event import Ends
    from calico_debug.state.node import NodeState


class Observing(Protocol):
    """An observation that has begun. What it gives are packets traced through rules, or what tracepoints showed."""

    def finish(self, seconds: float) -> Observation | Witness:
        """Go on for ``seconds`` at the most, and give what was seen. Raises `EvidenceError`."""

    def close(self) -> None:
        """Let everything go."""


class Instruments(Protocol):
    """What the second and third witness are made with on one node: here the kernel's, elsewhere an agent's."""

    def trace_rules(self, flows: Sequence[FlowTuple], seconds: float) -> Observing:
        """Begin to trace packets from rule to rule. Raises `EvidenceError`."""

    def watch_packets(self, state: NodeState, flows: Sequence[Ends], seconds: float) -> Observing:
        """Begin to watch packets at the interfaces. Raises `EvidenceError`."""

    def probe(self, flow: FlowTuple, interface: str, words: str) -> ProbeReport:
        """Send probes; never raises."""


class KernelInstruments:
    """This node's; implements `Instruments`."""

    def trace_rules(self, flows: Sequence[FlowTuple], seconds: float) -> Observing:  # noqa: ARG002 - `finish` ends it
        """See `Instruments`."""
        return _Tracing(Observer(flows))

    def watch_packets(self, state: NodeState, flows: Sequence[Ends], seconds: float) -> Observing:
        """See `Instruments`."""
        return _Watching(PacketWitness(state, flows, seconds))

    def probe(self, flow: FlowTuple, interface: str, words: str) -> ProbeReport:
        """See `Instruments`."""
        return probe(flow, interface, words)


class _Tracing:
    def __init__(self, observer: Observer) -> None:
        self._observer = observer.__enter__()

    def finish(self, seconds: float) -> Observation:
        self._observer.watch(seconds)
        seen = self._observer.finish()
        self._observer.close()
        return seen

    def close(self) -> None:
        self._observer.close()


class _Watching:
    def __init__(self, witness: PacketWitness) -> None:
        self._witness = witness.__enter__()

    def finish(self, seconds: float) -> Witness:
        return self._witness.finish(seconds)

    def close(self) -> None:
        self._witness.__exit__()
