"""The real way from a question to packets that are watched on this node."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Self

from calico_debug.cli.render.words import address
from calico_debug.cli.tracer import find_cluster, open_source
from calico_debug.errors import EvidenceError, UsageError
from calico_debug.explain.engine import Engine
from calico_debug.explain.packet_story import Places, flow_ends
from calico_debug.model.flow import protocol_name
from calico_debug.model.packet_event import Ends, Losses
from calico_debug.policy.marks import mark_words
from calico_debug.state.resolve import Resolver

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from calico_debug.agent.packets.namespaces import Namespaces
    from calico_debug.agent.packets.observer import PacketObserver
    from calico_debug.cli.environment import Place, Question, WatchQuestion
    from calico_debug.model.explanation import FlowExplanation
    from calico_debug.model.packet_event import PacketEvent
    from calico_debug.state.cluster import ClusterState
    from calico_debug.state.node import NodeState


class LiveWatch:
    """Implements `calico_debug.cli.environment.PacketWatch`."""

    def __init__(self, engine: Engine, question: WatchQuestion, namespace: str | None) -> None:
        """Resolve names and predict. Raises `CalicoDebugError`; nothing is watched yet."""
        from calico_debug.agent.packets.observer import Limits, PacketObserver
        from calico_debug.state.workloads import workload_prefixes

        (self._state,) = engine.states.values()
        self._cluster = engine.cluster
        self.explanation: FlowExplanation | None = None
        self.notes: list[str] = []
        self.subject = "all drops"
        self.losses = Losses()
        self.limited_by = ""
        self.places = Places(self._state.name, 0)
        ends: tuple[Ends, ...] = ()
        if question.flow is not None:
            ends = self._ends(engine, question.flow, namespace)
            first = ends[0]
            self.subject = f"{protocol_name(first.protocol)} {_end(first.source, first.source_port)} -> " + " or ".join(
                _end(one.destination, one.destination_port) for one in ends[:3]
            )
        self._dataplane = self._known_dataplane()
        limits = Limits(question.seconds, question.packets, question.bytes, question.rate)
        self._observer: PacketObserver = PacketObserver(
            ends, limits, prefixes=workload_prefixes(self._state), data=question.data
        )

    def __enter__(self) -> Self:
        """See `PacketWatch`."""
        namespaces = self._observer.__enter__().namespaces
        assert namespaces is not None
        self.places = Places(self._state.name, namespaces.home, self._pods(namespaces), namespaces.behind)
        if namespaces.hidden:
            self.notes.append(
                f"what happens inside of {len(namespaces.hidden)} pods cannot be seen (behind "
                f"{', '.join(namespaces.hidden[:3])}{', …' if len(namespaces.hidden) > 3 else ''}): run in the host's "
                "PID namespace (hostPID: true)"
            )
        return self

    def __exit__(self, *_: object) -> None:
        """See `PacketWatch`."""
        self._observer.close()

    def events(self) -> Iterator[PacketEvent]:
        """See `PacketWatch`."""
        yield from self._observer.events()

    def stop(self) -> None:
        """See `PacketWatch`."""
        self._observer.stop()

    def finish(self) -> list[PacketEvent]:
        """See `PacketWatch`."""
        rest = self._observer.finish()
        self.losses = self._observer.losses
        self.limited_by = self._observer.limited_by
        if self._observer.unknown:
            self.notes.append(f"{self._observer.unknown} events are not understood by this version; report it")
        return rest

    def mark_words(self, mark: int) -> tuple[str, ...]:
        """See `PacketWatch`."""
        return mark_words(mark, self._dataplane, self._state.felix)

    # ------------------------------------------------------------------------------------------------------- the flow

    def _ends(self, engine: Engine, question: Question, namespace: str | None) -> tuple[Ends, ...]:
        flow = Resolver(engine.cluster, engine.states).resolve(
            question.source,
            question.destination,
            protocol=question.protocol,
            namespace=namespace,
            via=question.via,
        )
        try:
            self.explanation = engine.explain(flow)
        except EvidenceError as error:
            # Packets are seen all the same, translated ones only as long as they are followed.
            self.notes.append(f"no prediction: {error}")
            source, target = flow.source, flow.destination
            return (Ends(flow.protocol, source.address, target.address, source.port or 0, target.port or 0),)
        return flow_ends(self.explanation)

    def _known_dataplane(self) -> str:
        try:
            return self._state.dataplane
        except EvidenceError:
            return ""

    # --------------------------------------------------------------------------------------------------------- places

    def _pods(self, namespaces: Namespaces) -> Mapping[int, str]:
        """What pods the namespaces behind interfaces are, by the addresses that are routed there."""
        routed = _routed(self._state, self.notes)
        return {
            inode: _pod(self._cluster, routed.get(name, ())) or f"the pod behind {name}"
            for name, inode in namespaces.behind.items()
        }


def _routed(state: NodeState, notes: list[str]) -> Mapping[str, Sequence[str]]:
    """Addresses that are routed to one interface each, by the interface."""
    found: dict[str, list[str]] = {}
    for family in (4, 6):
        try:
            tables = state.routing(family).tables
        except EvidenceError as error:
            notes.append(f"pods are not named: {error}")
            continue
        for route in (route for routes in tables.values() for route in routes):
            if route.type == "unicast" and len(route.hops) == 1 and route.destination.num_addresses == 1:
                found.setdefault(route.hops[0].interface, []).append(str(route.destination.network_address))
    return found


def _pod(cluster: ClusterState, addresses: Sequence[str]) -> str:
    for text in addresses:
        try:
            pod = cluster.pod_by_address(ip_address(text))
        except EvidenceError:
            pod = None
        if pod is not None:
            return f"{pod.namespace}/{pod.name}"
    return f"pod {addresses[0]}" if addresses else ""


def _end(ip: object, port: int) -> str:
    return address(str(ip), port or None)


def open_watch(place: Place, platform: str, question: WatchQuestion) -> LiveWatch:
    """Watch on this node. Raises `CalicoDebugError`."""
    if platform != "linux":
        raise EvidenceError(f"packets can only be watched on a Linux node, and this system is {platform}")
    if place.bundle is not None:
        raise UsageError("packets are watched live: leave out --bundle")
    source = open_source(place, platform)
    cluster = find_cluster(place)
    namespace = place.namespace or (cluster.namespace if cluster is not None else "")
    return LiveWatch(Engine(source), question, namespace or None)
