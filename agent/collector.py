"""What the agent exports: reads its sources, keeps what they count, and renders the page."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from calico_debug import __version__
from calico_debug.agent.bpf_counters import BpfReader
from calico_debug.agent.names import Known, Names
from calico_debug.agent.packets.tally import TALLY
from calico_debug.agent.rule_counters import RuleCounters
from calico_debug.decode.bpf_layout_types import Role
from calico_debug.errors import EvidenceError
from calico_debug.evidence.source import PointLookups
from calico_debug.metrics import families
from calico_debug.metrics.accumulator import Accumulator, Reading
from calico_debug.metrics.exposition import page
from calico_debug.metrics.families import Family, Sample
from calico_debug.metrics.rules import WORKLOAD, DropLabels, RuleBook
from calico_debug.state.node import NodeState

if TYPE_CHECKING:
    from calico_debug.evidence.source import EvidenceSource

log = logging.getLogger("calico_debug.agent")

CACHED_SECONDS = 2.0
"""A page is rendered anew when the last one is older than that, unless a collector is made with another age."""
CONNTRACK_SECONDS = 60.0
"""The eBPF dataplane's connections have to be counted one by one: 0.2 s for 512k entries."""
SERIES = 10_000
"""Most series of one metric from one source."""

RULES, EBPF, CONNTRACK, NAMES = "rules", "ebpf", "conntrack", "names"


class Health:
    """How a source fares."""

    def __init__(self) -> None:
        """Never read."""
        self.error = ""
        self.good_at = time.monotonic()
        self.seconds = 0.0


class Collector:
    """The metrics of one live node. Pages may be asked for by several threads; they are made one after the other."""

    def __init__(
        self,
        source: EvidenceSource,
        *,
        pods: bool = False,
        series: int = SERIES,
        open_names: Callable[[], EvidenceSource] | None = None,
        cached: float | None = None,
    ) -> None:
        """``source`` has one node, which is live; ``pods`` asks for drops by pod. Names of policies and pods are read
        from what ``open_names`` opens, now and then, else from ``source``. Pages are at most ``cached`` seconds old.
        """
        self._cached = cached
        self._node = source.node(source.nodes()[0])
        self._names = Names(open_names or (lambda: source), pods=pods)
        self._known = Known()
        self._book = RuleBook(self._known.index)
        self._bpf = BpfReader(self._node)
        self._pods_wanted = pods
        self._lock = Lock()
        self._samples: list[Sample] = []
        self._page = b""
        self._made_at = float("-inf")
        self._health: dict[str, Health] = {}
        self._rules = RuleCounters(self._node)
        self._series = series
        self._sums: dict[tuple[Family, str], Accumulator[tuple[str, ...]]] = {}
        self._conntrack_at = float("-inf")
        self._bpf_connections: list[Sample] = []

    def page(self) -> bytes:
        """The page for Prometheus."""
        with self._lock:
            self._refresh()
            return self._page

    def listed(self) -> list[tuple[str, Mapping[str, str], float]]:
        """The samples of the page as (name, labels, value)."""
        with self._lock:
            self._refresh()
            return [(f.name, dict(zip(f.labels, labels, strict=True)), value) for f, labels, value in self._samples]

    # ----------------------------------------------------------------------------------------------------- internals

    def _refresh(self) -> None:
        if time.monotonic() - self._made_at <= (CACHED_SECONDS if self._cached is None else self._cached):
            return
        with _uncollected():
            self._samples = list(self._collect())
            self._page = page(self._samples)
        self._made_at = time.monotonic()

    def _collect(self) -> Iterator[Sample]:
        self._read(NAMES, self._read_names)
        self._read(RULES, self._read_rules)
        self._read(EBPF, self._read_bpf)
        gauges: list[Sample] = []
        self._read(CONNTRACK, lambda: gauges.extend(self._connections()))
        refused = dict.fromkeys((family for family in families.FAMILIES if family.type == families.COUNTER), 0)
        for (family, _), accumulator in self._sums.items():
            refused[family] += accumulator.refused
            for labels, value in accumulator.totals.items():
                yield Sample(family, labels, value)
        yield from gauges
        yield from _observers()
        now = time.monotonic()
        for name, health in self._health.items():
            yield Sample(families.SOURCE_UP, (name,), 0 if health.error else 1)
            yield Sample(families.SOURCE_AGE, (name,), round(now - health.good_at, 3))
            yield Sample(families.SOURCE_SECONDS, (name,), round(health.seconds, 6))
        for family, number in refused.items():
            yield Sample(families.SERIES_DROPPED, (family.name,), number)
        yield Sample(families.INFO, (__version__,), 1)

    def _read(self, name: str, read: Callable[[], None]) -> None:
        """Read one source. A source that fails keeps what it counted before, and says so."""
        health = self._health.setdefault(name, Health())
        started = time.monotonic()
        try:
            read()
        except EvidenceError as error:
            if health.error != str(error):
                log.warning("%s cannot be read: %s", name, error)
            health.error = str(error)
        else:
            health.error, health.good_at = "", time.monotonic()
        health.seconds = time.monotonic() - started

    def _read_names(self) -> None:
        known = self._names.known()
        if known.index is not self._known.index:
            self._book = RuleBook(known.index)
        self._known = known
        if known.problem:
            raise EvidenceError(known.problem)

    def _read_rules(self) -> None:
        packets: list[Reading[tuple[str, ...]]] = []
        octets: list[Reading[tuple[str, ...]]] = []
        drops = _Drops(self._pods_by_interface())
        for dataplane, counted in self._rules.read().items():
            meanings = self._book.meanings(dataplane, counted.rules)
            for place, counters in counted.counters.items():
                for (counter, number, size), (rule, drop) in zip(counters, meanings[place], strict=True):
                    if rule is not None:
                        packets.append(Reading(counter, rule, number))
                        octets.append(Reading(counter, rule, size))
                    if drop is not None:
                        drops.add(counter, drop, number)
        self._add(RULES, {families.RULE_PACKETS: packets, families.RULE_BYTES: octets, **drops.readings()})

    def _read_bpf(self) -> None:
        found = self._bpf.read(self._known.index)
        if found is None:
            return
        drops = _Drops(self._pods_by_interface())
        for counter, cell in found.cells:
            if cell.drop is not None:
                drops.add(counter, cell.drop, cell.packets)
        evaluations = [Reading(*one) for one in found.rules]
        packets: list[Reading[tuple[str, ...]]] = [Reading(one, cell.labels, cell.packets) for one, cell in found.cells]
        self._add(EBPF, {families.RULE_EVALUATIONS: evaluations, families.BPF_PACKETS: packets, **drops.readings()})

    def _add(self, source: str, readings: Mapping[Family, list[Reading[tuple[str, ...]]]]) -> None:
        for family, of_family in readings.items():
            key = (family, source)
            if key not in self._sums:
                self._sums[key] = Accumulator(self._series)
            self._sums[key].update(of_family)

    def _pods_by_interface(self) -> Mapping[str, tuple[str, str]] | None:
        """Pods by the host's side of their links; None when drops by pod are not asked for."""
        if not self._pods_wanted:
            return None
        state = NodeState(self._node)
        found: dict[str, tuple[str, str]] = {}
        for family in (4, 6):
            for route in state.routing(family).tables.get("main", ()):
                pod = self._known.pods.get(route.destination.network_address)
                if pod is not None and len(route.hops) == 1:
                    found[route.hops[0].interface] = pod
        return found

    def _connections(self) -> Iterator[Sample]:
        if isinstance(self._node, PointLookups):
            for family, key in (
                (families.CONNTRACK_ENTRIES, "nf_conntrack_count"),
                (families.CONNTRACK_LIMIT, "nf_conntrack_max"),
            ):
                value = self._node.read_sysctl(f"net.netfilter.{key}")
                if value is not None and value.isdigit():
                    yield Sample(family, ("netfilter",), int(value))
        if time.monotonic() - self._conntrack_at > CONNTRACK_SECONDS:
            self._bpf_connections = list(self._count_bpf_connections())
            self._conntrack_at = time.monotonic()
        yield from self._bpf_connections

    def _count_bpf_connections(self) -> Iterator[Sample]:
        state = self._bpf.state()
        for family in (4, 6) if state is not None else ():
            assert state is not None
            chosen = state.map(Role.CONNTRACK, family)
            if chosen is not None and chosen.used:
                entries = sum(batch.count for batch in state.kernel.batches(chosen.info))
                yield Sample(families.CONNTRACK_ENTRIES, (f"ebpf-v{family}",), entries)
                yield Sample(families.CONNTRACK_LIMIT, (f"ebpf-v{family}",), chosen.info.max_entries)


def _observers() -> Iterator[Sample]:
    """What observers of packets told, and did not: sums that never go back, from 0 on."""
    for observer, losses in TALLY.totals().items():
        yield Sample(families.OBSERVER_EVENTS, (observer,), losses.matched)
        for reason, lost in (
            ("no-room", losses.ring_full),
            ("rate-limit", losses.limited),
            ("passed-over", losses.missed),
        ):
            yield Sample(families.OBSERVER_LOST, (observer, reason), lost)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector of cycles: a scrape makes none, and tens of thousands of tuples would set it off, which
    walks everything that is known of the rules, for longer than the scrape takes.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Drops:
    """Readings of drops, by kind of interface and, when asked for, by pod."""

    def __init__(self, pods: Mapping[str, tuple[str, str]] | None) -> None:
        self._pods = pods
        self._all: list[Reading[tuple[str, ...]]] = []
        self._by_pod: list[Reading[tuple[str, ...]]] = []

    def add(self, counter: object, drop: DropLabels, packets: int) -> None:
        self._all.append(Reading(counter, drop[:4], packets))
        if self._pods is not None and drop.interface and drop.interface_kind == WORKLOAD:
            labels = (*drop[:3], drop.interface, *self._pods.get(drop.interface, ("", "")))
            self._by_pod.append(Reading(counter, labels, packets))

    def readings(self) -> dict[Family, list[Reading[tuple[str, ...]]]]:
        return {families.DROPS: self._all, families.POD_DROPS: self._by_pod}
