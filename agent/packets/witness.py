"""The third witness where nftables traces nothing: packets of a flow as tracepoints show them."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from calico_debug.agent.clock import now
from calico_debug.agent.packets.observer import Limits, PacketObserver
from calico_debug.agent.packets.tally import OBSERVATION, TALLY
from calico_debug.explain.packet_story import Places, Story
from calico_debug.state.workloads import routed_addresses, workload_prefixes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.model.explanation import Witness
    from calico_debug.model.packet_event import Ends, PacketEvent
    from calico_debug.state.node import NodeState

MOST_PACKETS = 200
"""As many as a trace through rules follows."""


class PacketWitness:
    """A context manager: from its start packets of the flow are watched on this node."""

    def __init__(self, state: NodeState, flows: Sequence[Ends], seconds: float) -> None:
        """``flows`` are the flow's ends before and behind translation, ``seconds`` to watch. Nothing is touched yet."""
        self._node = state.name
        self._routed = routed_addresses(state, lambda _: None)
        limits = Limits(seconds=seconds, packets=MOST_PACKETS)
        self._observer = PacketObserver(flows, limits, prefixes=workload_prefixes(state))
        self._begun = 0.0
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        """Begin. Raises `EvidenceError`."""
        self._closing.enter_context(self._observer)
        self._closing.enter_context(TALLY.counting(OBSERVATION, self._observer.losses_so_far))
        self._begun = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        """Let everything go."""
        self._closing.close()

    def stop(self) -> None:
        """Let `finish` return soon; may be called from another thread."""
        self._observer.stop()

    def finish(self, seconds: float | None = None) -> Witness:
        """Watch for ``seconds`` more, or for what is left, and say what was observed. Raises `EvidenceError`."""
        namespaces = self._observer.namespaces
        assert namespaces is not None
        pods = {inode: f"the pod behind {name}" for name, inode in namespaces.behind.items()}
        story = Story(Places(self._node, namespaces.home, pods, namespaces.behind, self._routed))
        passed = time.monotonic() - self._begun
        if seconds is not None:
            passed = max(passed, self._observer.limits.seconds - seconds)
        events: list[PacketEvent] = list(self._observer.events(passed))
        for event in (*events, *self._observer.finish()):
            story.add(event)
        return story.witness(now(), self._observer.losses.lost)
