"""All comparisons of the nodes that there is evidence of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from calico_debug.drift import services, sets
from calico_debug.drift.intended_sets import intended_sets
from calico_debug.drift.model import CODES, Drift, Drifts
from calico_debug.drift.policies import PolicyDrift
from calico_debug.errors import CalicoDebugError, EvidenceError
from calico_debug.explain.listing.node import NodeListings
from calico_debug.intent.applies import Applicability
from calico_debug.state.cluster import load_cluster
from calico_debug.state.connection_filter import ConnectionFilter
from calico_debug.state.dataplane import EBPF

if TYPE_CHECKING:
    from calico_debug.drift.sets import SetMembers
    from calico_debug.evidence.source import EvidenceSource

NEEDED = ("pods.json", "namespaces.json")
"""Lists without which nothing can be said to be intended."""


def find_drift(source: EvidenceSource, nodes: Sequence[str]) -> Drifts:
    """Compare those nodes with the cluster's objects.

    Raises `EvidenceError` without objects of the cluster; what a node lacks is among `Drifts.not_compared`.
    """
    cluster = load_cluster(source)
    if lacking := [file for file in NEEDED if file in cluster.missing or cluster.problem(file)]:
        raise EvidenceError(
            f"{source.origin} has no {' and no '.join(lacking)}: what is intended cannot be told without the cluster's "
            "objects; name a bundle that has them"
        )
    report = _Report(source, Applicability(cluster.cluster))
    for node in nodes:
        report.node(node)
    return report.result()


class _Report:
    def __init__(self, source: EvidenceSource, applicability: Applicability) -> None:
        self._source = source
        self._intent = applicability
        self._found: dict[Drift, None] = {}
        self._not_compared: dict[str, None] = {}
        self._compared = {"endpoints": 0, "IP sets": 0, "services": 0}

    def result(self) -> Drifts:
        order = list(CODES)
        found = sorted(self._found, key=lambda one: (one.node, order.index(one.code), one.object))
        return Drifts(tuple(found), tuple(self._not_compared), dict(self._compared))

    def node(self, name: str) -> None:
        try:
            listings = NodeListings(self._source, name)
            dataplane = listings.dataplane
        except CalicoDebugError as error:
            self._leave_out(name, "nothing", error)
            return
        parts = (("policies", self._policies), ("IP sets", self._sets), ("services", self._services))
        for what, compare in parts:
            try:
                self._found.update(dict.fromkeys(compare(name, listings, dataplane)))
            except CalicoDebugError as error:
                self._leave_out(name, what, error)

    def _policies(self, node: str, listings: NodeListings, _dataplane: str) -> Iterator[Drift]:
        views = list(listings.policies())
        comparison = PolicyDrift(node, self._intent)
        found = list(comparison.compare(views))
        self._not_compared |= comparison.not_compared
        self._compared["endpoints"] += comparison.compared
        yield from found

    def _sets(self, node: str, listings: NodeListings, dataplane: str) -> Iterator[Drift]:
        wanted = intended_sets(self._intent, node)
        numbers = {identity: number for number, identity in listings.set_ids().items()} if dataplane == EBPF else {}
        for family in self._families(node):
            numbered = sets.bpf_sets(listings.state.bpf, family) if dataplane == EBPF else {}
            for one in wanted.values():
                if one.doubt:
                    self._not_compared.setdefault(f"{node}: IP set {one.id} ({one.what}): {one.doubt}")
                    continue
                held: SetMembers | None
                if dataplane == EBPF:
                    number = numbers.get(one.id, one.number)
                    if one.id not in numbers and number not in numbered:
                        self._not_compared.setdefault(
                            f"{node}: IP set {one.id} ({one.what}): no policy debug file tells which number it has"
                        )
                        continue
                    held = numbered.get(number, sets.SetMembers())
                else:
                    held = sets.kernel_set(listings.state.ruleset, family, one.names(family))
                self._compared["IP sets"] += 1
                yield from sets.compare(node, family, one, held)

    def _families(self, node: str) -> Sequence[int]:
        """The IP versions of the node's pods."""
        found = {
            address.version
            for endpoint in self._intent.endpoints
            if endpoint.node == node and endpoint.kind == "pod"
            for address in endpoint.addresses
        }
        return sorted(found)

    def _services(self, node: str, listings: NodeListings, dataplane: str) -> Iterator[Drift]:
        documents = [row.document for row in listings.nat(ConnectionFilter()).rows]
        self._compared["services"] += len(listings.cluster.services)
        proxy = "calico-node's kube-proxy" if dataplane == EBPF else "kube-proxy"
        yield from services.compare(node, listings.cluster, proxy, documents)

    def _leave_out(self, node: str, what: str, error: Exception) -> None:
        self._not_compared.setdefault(f"{node}: {what}: {error}")
