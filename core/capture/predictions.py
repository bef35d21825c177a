"""What is predicted for flows of captured packets: walked once for each flow, within bounds of time and memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from calico_debug.capture.flows import FlowOf, Recent
from calico_debug.decode.conntrack import decode_connections
from calico_debug.errors import CalicoDebugError, EvidenceError
from calico_debug.evidence.source import PointLookups
from calico_debug.explain.engine import Engine
from calico_debug.model.conntrack import Tuple
from calico_debug.model.packet_event import Ends
from calico_debug.state.dataplane import EBPF
from calico_debug.state.resolve import Resolver
from calico_debug.walk.connections import program_connection

if TYPE_CHECKING:
    from calico_debug.evidence.source import EvidenceSource
    from calico_debug.model.explanation import FlowExplanation
    from calico_debug.state.cluster import ClusterState

MOST = 512
"""Predictions that are kept, each of some 10 KiB."""
FRESH_SECONDS = 30.0
"""How long a prediction and the node's evidence hold; policy may change."""
SHARE, BURST = 0.4, 2.0
"""The part of the time that may go into walks, and seconds of it that may be saved up: packets come on meanwhile."""
PORT_PROTOCOLS = (6, 17, 132)
TOO_MANY = "not walked: new flows come faster than they can be walked"


@dataclass(frozen=True, slots=True)
class Prediction:
    """``explanation`` is None where there is none; ``problem`` says why."""

    explanation: FlowExplanation | None = None
    problem: str = ""


class Predictions:
    """Keeps predictions; for one thread."""

    def __init__(
        self,
        open_source: Callable[[], EvidenceSource],
        cluster: Callable[[], ClusterState | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``open_source`` gives evidence as it is then, and is asked again when that is old. Objects are those that
        ``cluster`` gives, so that no server is waited for; with None those of the source.
        """
        self._open, self._cluster = open_source, cluster
        self._clock = clock
        self._engine: Engine | None = None
        self._opened = float("-inf")
        self._kept: Recent[tuple[Ends, tuple[int, int] | None], tuple[float, Prediction]] = Recent(MOST)
        self._credit, self._counted = BURST, clock()

    def close(self) -> None:
        """Let go what was opened, and forget everything."""
        self._release()
        self._kept = Recent(MOST)

    def of(self, flow: FlowOf) -> Prediction:
        """The prediction for a new connection between a flow's ends, from whatever port."""
        asked = replace(flow.ends, source_port=0)
        kept = self._kept.get((asked, flow.icmp))
        if kept is not None and self._clock() - kept[0] < FRESH_SECONDS:
            return kept[1]
        if not self._may_work():
            # What was true a moment ago is better than nothing.
            return kept[1] if kept is not None else Prediction(problem=TOO_MANY)
        begun = self._clock()
        try:
            found = Prediction(self._walk(asked, flow.icmp))
        except CalicoDebugError as error:
            found = Prediction(problem=str(error))
        self._credit -= self._clock() - begun
        self._kept.put((asked, flow.icmp), (self._clock(), found))
        return found

    def opened(self, ends: Ends) -> tuple[Ends, bool] | None:
        """The ends that the connection was opened with which a packet with these belongs to, and whether that is an
        answer. To conntrack, a packet without a connection is as good as new; programs keep what policy approved, and
        without an entry nothing is told: None.
        """
        if ends.protocol not in PORT_PROTOCOLS or not self._may_work():
            return None
        begun = self._clock()
        try:
            return self._tracked(ends)
        except EvidenceError:
            return None
        finally:
            self._credit -= self._clock() - begun

    def _tracked(self, ends: Ends) -> tuple[Ends, bool] | None:
        engine = self._ready()
        state = next(iter(engine.states.values()))
        node = engine.source.node(state.name)
        wanted = _tuple(ends)
        if state.dataplane == EBPF:
            found = program_connection(state, wanted)
            if found is None:
                return None
        elif isinstance(node, PointLookups):
            connections = decode_connections(node.find_connection(wanted)).connections
            found = next((one for one in connections if wanted in (one.original, one.reply)), None)
            if found is None:
                return ends, False
        else:
            return None
        request, answer = _ends(found.original), _ends(found.reply)
        return request, ends in (answer, request.reversed())

    def _release(self) -> None:
        if self._engine is not None:
            release(self._engine.source)
            self._engine = None

    def _may_work(self) -> bool:
        now = self._clock()
        self._credit = min(BURST, self._credit + SHARE * (now - self._counted))
        self._counted = now
        return self._credit > 0

    def _ready(self) -> Engine:
        if self._engine is None or self._clock() - self._opened > FRESH_SECONDS:
            self._release()
            self._engine, self._opened = Engine(self._open(), self._cluster()), self._clock()
        return self._engine

    def _walk(self, ends: Ends, icmp: tuple[int, int] | None) -> FlowExplanation:
        engine = self._ready()
        target = f"[{ends.destination}]" if ends.destination.version == 6 else str(ends.destination)
        flow = Resolver(engine.cluster, engine.states).resolve(
            str(ends.source),
            f"{target}:{ends.destination_port}" if ends.destination_port else str(ends.destination),
            protocol=str(ends.protocol),
        )
        return engine.explain(flow if icmp is None else replace(flow, icmp=icmp), as_new=True)


def release(source: EvidenceSource) -> None:
    """Close what a source has open, if it is one that has."""
    close = getattr(source, "close", None)
    if close is not None:
        close()


def _ends(of: Tuple) -> Ends:
    return Ends(of.protocol, of.source, of.destination, of.source_port or 0, of.destination_port or 0)


def _tuple(ends: Ends) -> Tuple:
    return Tuple(ends.protocol, ends.source, ends.destination, ends.source_port, ends.destination_port)
