"""Watches what is meant on this node: names are resolved before, and pods that come later are watched, too."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Self

from calico_debug.agent.packets.newcomers import Newcomers
from calico_debug.agent.packets.observer import MOST_ENDS, Limits, PacketObserver
from calico_debug.agent.packets.tally import OBSERVATION, TALLY
from calico_debug.capture.aim import find_aim
from calico_debug.capture.predictions import Predictions, release
from calico_debug.capture.teller import Teller
from calico_debug.errors import EvidenceError
from calico_debug.explain.engine import Engine
from calico_debug.explain.packet_story import Places
from calico_debug.model.packet_event import Losses
from calico_debug.policy.marks import mark_words
from calico_debug.state.workloads import routed_addresses, workload_prefixes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from calico_debug.agent.packets.namespaces import Namespaces
    from calico_debug.capture.aim import Aim, NamedPolicy, Predict
    from calico_debug.evidence.source import EvidenceSource
    from calico_debug.model.explanation import FlowExplanation
    from calico_debug.model.packet_event import PacketEvent
    from calico_debug.model.subject import Subject
    from calico_debug.state.cluster import ClusterState
    from calico_debug.state.node import NodeState

MOST_NOTES = 20
SOON, LATE = 2.0, 100.0
"""Seconds before the cluster's objects are read again: when a pod may have come, and without a reason."""


class LiveWatch:
    """A context manager: from its start packets are watched, and at its end no more.

    ``explanation`` is the prediction for a flow, ``subject`` says what is watched, ``notes`` what the user should know
    of it, ``losses`` and ``limited_by`` are known at the end.
    """

    def __init__(
        self,
        open_source: Callable[[], EvidenceSource],
        subject: Subject,
        limits: Limits,
        data: int = 0,
        kind: str = OBSERVATION,
        predict: Predict | None = None,
    ) -> None:
        """Resolve names and predict; ``data`` is how many bytes of each packet are wanted. ``open_source`` gives the
        evidence of this node, as it is when it is called. ``kind`` is what the tally counts it for. ``predict``
        explains a flow from more than this node's evidence. Raises `CalicoDebugError`; nothing is watched yet.
        """
        self._open, self._asked, self._kind = open_source, subject, kind
        self.notes: list[str] = []
        self.losses = Losses()
        self.limited_by = ""
        self._listed, self._came = time.monotonic(), float("-inf")
        engine = Engine(open_source())
        with ExitStack() as stack:
            stack.callback(release, engine.source)
            self._cluster = engine.cluster
            (self._state,) = engine.states.values()
            self.node = self._state.name
            self.places = Places(self.node, 0)
            aim = self._take(find_aim(engine, subject, self.node, predict))
            self.subject, self.explanation, self.policy = aim.text, aim.explanation, aim.policy
            self._dataplane = _dataplane(self._state)
            prefixes = workload_prefixes(self._state)
            if data and subject.is_flow and not subject.drops:
                limits = replace(limits, rate=0)  # a capture of one flow is to be whole
            self._observer = PacketObserver(aim.ends, limits, prefixes=prefixes, data=data, drops=subject.drops)
            self._left_out(len(aim.ends or ()) - MOST_ENDS)
            self._closing = stack.pop_all()

    subject: str
    explanation: FlowExplanation | None
    policy: NamedPolicy | None

    def __enter__(self) -> Self:
        """Begin. Raises `EvidenceError`."""
        with self._closing as stack:
            namespaces = stack.enter_context(self._observer).namespaces
            stack.enter_context(TALLY.counting(self._kind, self.losses_so_far))
            assert namespaces is not None
            self.places = self._places(namespaces, self._state)
            if namespaces.hidden:
                self._note(
                    f"what happens inside of {len(namespaces.hidden)} pods cannot be seen (behind "
                    f"{', '.join(namespaces.hidden[:3])}{', …' if len(namespaces.hidden) > 3 else ''}): run in the "
                    "host's PID namespace (hostPID: true)"
                )
            stack.enter_context(Newcomers(self._look_again))
            self._closing = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Let everything go."""
        self._closing.close()

    def events(self) -> Iterator[PacketEvent]:
        """Events as they come, until a limit is reached."""
        yield from self._observer.events()

    def turns(self) -> Iterator[Iterator[PacketEvent]]:
        """The same in turns of a tenth of a second."""
        yield from self._observer.turns()

    def stop(self) -> None:
        """Let `events` end soon; for handlers of signals, and from any thread."""
        self._observer.stop()

    def losses_so_far(self) -> Losses:
        """What was not told until now."""
        return self._observer.losses_so_far()

    def finish(self) -> list[PacketEvent]:
        """Stop watching, and give what was queued."""
        rest = self._observer.finish()
        self.losses = self._observer.losses
        self.limited_by = self._observer.limited_by
        if self._observer.unknown:
            self._note(f"{self._observer.unknown} events are not understood by this version; report it")
        return rest

    def mark_words(self, mark: int) -> tuple[str, ...]:
        """What a mark means on this node."""
        return mark_words(mark, self._dataplane, self._state.felix)

    def teller(self) -> Teller:
        """What says what captured packets are."""
        predictions = Predictions(self._open, lambda: self._cluster)
        self._closing.callback(predictions.close)
        return Teller(self.explanation, lambda: self.policy, predictions)

    # ------------------------------------------------------------------------------------------------- what comes later

    def _look_again(self) -> None:
        """Watch pods that are new: their namespaces, and where pods are meant, their addresses; and read the objects
        again, which give names to everything.
        """
        new = self._observer.find_namespaces()
        several = bool(self._asked.pod or self._asked.policy)
        now = time.monotonic()
        self._came = now if new else self._came
        soon = several or now - self._came < LATE
        if not new and now - self._listed < (SOON if soon else LATE):
            return
        self._listed = now
        source = self._open()
        try:
            engine = Engine(source)
            (state,) = engine.states.values()
            if not _all_read(engine.cluster).problems:
                self._cluster = engine.cluster
            namespaces = self._observer.namespaces
            if namespaces is not None:
                self.places = self._places(namespaces, state)
            if several:
                aim = find_aim(engine, self._asked, self.node)
                self.policy = aim.policy
                self._left_out(self._observer.add(aim.ends or ()))
        finally:
            release(source)

    # --------------------------------------------------------------------------------------------------------- places

    def _take(self, aim: Aim) -> Aim:
        for note in aim.notes:
            self._note(note)
        return aim

    def _left_out(self, ends: int) -> None:
        if ends > 0:
            self._note(f"{ends} more addresses are not looked for: {MOST_ENDS} are the most at once")

    def _note(self, text: str) -> None:
        if text not in self.notes and len(self.notes) < MOST_NOTES:
            self.notes.append(text)

    def _places(self, namespaces: Namespaces, state: NodeState) -> Places:
        """What pods the namespaces behind interfaces are, by the addresses that are routed there."""
        routed = routed_addresses(state, lambda problem: self._note(f"pods are not named: {problem}"))
        pods = {
            inode: _pod(self._cluster, routed.get(name, ())) or f"the pod behind {name}"
            for name, inode in namespaces.behind.items()
        }
        return Places(self.node, namespaces.home, pods, namespaces.behind, routed)


def _pod(cluster: ClusterState, addresses: Sequence[str]) -> str:
    for text in addresses:
        try:
            pod = cluster.pod_by_address(ip_address(text))
        except EvidenceError:
            pod = None
        if pod is not None:
            return f"{pod.namespace}/{pod.name}"
    return f"pod {addresses[0]}" if addresses else ""


def _all_read(cluster: ClusterState) -> ClusterState:
    """With every list read, so that nobody waits for one later."""
    _ = cluster.cluster
    return cluster


def _dataplane(state: NodeState) -> str:
    try:
        return state.dataplane
    except EvidenceError:
        return ""
