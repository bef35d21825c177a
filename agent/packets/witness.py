"""The third witness where nftables traces nothing: packets of a flow as tracepoints show them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from calico_debug.agent.clock import now
from calico_debug.agent.packets.observer import Limits, PacketObserver
from calico_debug.explain.packet_story import Places, Story, flow_ends
from calico_debug.state.workloads import workload_prefixes

if TYPE_CHECKING:
    from calico_debug.model.explanation import FlowExplanation, Witness
    from calico_debug.model.packet_event import PacketEvent
    from calico_debug.state.node import NodeState

MOST_PACKETS = 200
"""As many as a trace through rules follows."""


class PacketWitness:
    """A context manager: from its start packets of the flow are watched on this node."""

    def __init__(self, state: NodeState, explanation: FlowExplanation, seconds: float) -> None:
        """``seconds`` to watch. Nothing is touched yet."""
        self._node = state.name
        limits = Limits(seconds=seconds, packets=MOST_PACKETS)
        self._observer = PacketObserver(flow_ends(explanation), limits, prefixes=workload_prefixes(state))
        self._begun = 0.0

    def __enter__(self) -> Self:
        """Begin. Raises `EvidenceError`."""
        self._observer.__enter__()
        self._begun = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        """Let everything go."""
        self._observer.close()

    def finish(self) -> Witness:
        """Watch for what is left of the seconds, and say what was observed. Raises `EvidenceError`."""
        namespaces = self._observer.namespaces
        assert namespaces is not None
        pods = {inode: f"the pod behind {name}" for name, inode in namespaces.behind.items()}
        story = Story(Places(self._node, namespaces.home, pods, namespaces.behind))
        events: list[PacketEvent] = list(self._observer.events(time.monotonic() - self._begun))
        for event in (*events, *self._observer.finish()):
            story.add(event)
        return story.witness(now(), self._observer.losses.lost)
