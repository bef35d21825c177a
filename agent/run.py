"""``calico-debug agent``: opens the listeners and serves until it is told to stop."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from calico_debug.agent.application import Application
from calico_debug.agent.authorised import Authorised
from calico_debug.agent.captures.manager import Captures
from calico_debug.agent.cluster import LiveCluster, UnusableCluster
from calico_debug.agent.collector import Collector
from calico_debug.agent.evidence import LiveNode, LiveSource
from calico_debug.agent.gate import open_gate
from calico_debug.agent.guard import GuardedSource
from calico_debug.agent.kubeconfig import find_access
from calico_debug.agent.packets.observer import Limits
from calico_debug.agent.packets.tally import DROP_STREAM
from calico_debug.agent.packets.watch import LiveWatch
from calico_debug.agent.reviews import REVIEWS
from calico_debug.agent.routes import Work, routes
from calico_debug.agent.server import THREADS, Listeners
from calico_debug.errors import CalicoDebugError, EvidenceError

if TYPE_CHECKING:
    from types import FrameType

    from calico_debug.agent.cluster import ClusterReader
    from calico_debug.agent.gate import Gate
    from calico_debug.agent.routing import Request
    from calico_debug.agent.settings import Settings
    from calico_debug.evidence.source import EvidenceSource
    from calico_debug.model.subject import Subject

log = logging.getLogger("calico_debug.agent")

METRICS_PATHS = frozenset({"/metrics", "/healthz", "/readyz"})
"""What the listener for Prometheus and the kubelet answers; evidence is not for them."""
METRICS_THREADS = 2
STREAM_BYTES = 1 << 40
"""Bytes of packets that a stream of drops may be about: its events are what is limited."""
PROBES = frozenset({"/healthz", "/readyz"})
"""What the kubelet asks for, which sends no token."""
READY_SECONDS = 5.0
"""How long an answer about readiness holds."""


class Readiness:
    """Whether the node can be read, asked of the kernel now and then."""

    def __init__(self, open_source: Callable[[], EvidenceSource]) -> None:
        """Asks a source opened by ``open_source``."""
        self._open = open_source
        self._asked = float("-inf")
        self._missing = ""

    def __call__(self) -> str:
        """ "" or what is missing."""
        if time.monotonic() - self._asked > READY_SECONDS:
            self._missing = self._ask()
            self._asked = time.monotonic()
        return self._missing

    def _ask(self) -> str:
        from calico_debug.state.node import NodeState

        try:
            source = self._open()
        except CalicoDebugError as error:
            return str(error)
        try:
            for name in source.nodes():
                NodeState(source.node(name)).ruleset.tables()
        except CalicoDebugError as error:
            return str(error)
        finally:
            if isinstance(source, LiveSource):
                source.close()
        return ""


def find_cluster() -> ClusterReader | None:
    """The cluster whose pod this is, or that kubectl would ask; None where there is none.

    A new one each time: what it has found out about a server holds for one question.
    """
    try:
        access = find_access()
        return LiveCluster(access) if access is not None else None
    except CalicoDebugError as error:
        return UnusableCluster(str(error))


def work_on(open_source: Callable[[], EvidenceSource], collector: Collector, captures: Captures | None = None) -> Work:
    """What the routes answer from: a source of its own for every request."""

    def watch(subject: Subject, seconds: int, packets: int, rate: int) -> LiveWatch:
        return LiveWatch(open_source, subject, Limits(seconds, packets, STREAM_BYTES, rate), kind=DROP_STREAM)

    def source(request: Request) -> EvidenceSource:
        opened = open_source()
        if isinstance(opened, LiveSource):
            request.closing.callback(opened.close)
        return GuardedSource(opened, request.check)

    return Work(source, collector.page, collector.listed, Readiness(open_source), captures, watch)


def open_listeners(listeners: Listeners, settings: Settings, work: Work, gate: Gate | None = None) -> None:
    """Open every listener of the settings; ``gate`` is needed when some are checked. Raises `EvidenceError`."""
    table = routes(work)
    application = Application(table)
    if settings.socket:
        listeners.unix(settings.socket, application)
        log.info("listening on %s", settings.socket)
    for_metrics = Application([route for route in table if route.path in METRICS_PATHS])
    for name, address, served, threads in (
        ("listening", settings.listen, application, THREADS),
        ("metrics", settings.metrics, for_metrics, METRICS_THREADS),
    ):
        if address is None:
            continue
        if address not in settings.checked:
            port = listeners.tcp(address, served, threads)
        else:
            assert gate is not None
            door, more = Authorised(served, gate.reviewer), 0
            if served is for_metrics:
                # Whatever is being checked, threads are left for probes.
                door, more = Authorised(served, gate.impatient, PROBES), REVIEWS
            port = listeners.tcp(address, door, threads + more, gate.certificate)
        log.info("%s on %s port %d", name, address.host, port)
        if address is settings.listen and gate is not None:
            gate.publish(replace(address, port=port))


def _claim(captures: Captures) -> None:
    """Set right what an agent before has left; without it captures cannot be kept, and all else can be answered."""
    try:
        captures.claim()
    except EvidenceError as error:
        log.warning("%s", error)


def serve(settings: Settings, node: str = "") -> None:
    """Run the agent of this node until SIGTERM or SIGINT. Raises `EvidenceError` when it cannot listen."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("waitress").setLevel(logging.ERROR)

    def open_source() -> EvidenceSource:
        return LiveSource(node, find_cluster())

    listeners = Listeners()
    captures = Captures(Path(settings.captures), open_source) if settings.captures else None
    collector = Collector(LiveSource(node), pods=settings.metrics_pods, open_names=open_source)

    def stop(number: int, _frame: FrameType | None) -> None:
        log.info("%s: stopping", signal.Signals(number).name)
        listeners.stop()

    gate: Gate | None = None
    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        gate = open_gate(settings, LiveNode(node).name) if settings.checked else None
        if captures is not None:
            _claim(captures)
        open_listeners(listeners, settings, work_on(open_source, collector, captures), gate)
        listeners.run()
    finally:
        listeners.close()
        if captures is not None:
            captures.close()
        if gate is not None:
            gate.close()
        for number, handler in previous.items():
            signal.signal(number, handler)
