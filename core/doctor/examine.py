"""One pass over nodes and cluster: every check is run, what is found is ranked, what could not be seen is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.doctor import capacity, combinations, interfaces, objects, programs, rules, selection, shadows
from calico_debug.doctor.catalogue import CATALOGUE, Entry
from calico_debug.doctor.model import SEVERITIES, ClusterCheck, ClusterView, NodeCheck, NodeView, Symptom
from calico_debug.errors import EvidenceError
from calico_debug.state.cluster import load_cluster
from calico_debug.state.node import NodeState
from calico_debug.walk.node import NodeWalker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from calico_debug.doctor.model import Observation
    from calico_debug.evidence.source import EvidenceSource

NODE_CHECKS: tuple[NodeCheck, ...] = (
    NodeCheck("dataplane", "Calico's tables, programs and jump maps", programs.check_dataplane),
    NodeCheck("readiness", "whether Felix has called pods' eBPF programs ready", programs.check_readiness),
    NodeCheck("status", "Felix's files of status, where they are in evidence", programs.check_status),
    NodeCheck("interfaces", "pods' interfaces without an endpoint", interfaces.check_interfaces),
    NodeCheck("pods", "running pods without an interface", interfaces.check_pods),
    NodeCheck("reverse path", "the kernel's reverse path filter, on eBPF nodes", interfaces.check_reverse_path),
    NodeCheck("packet size", "MTU of pods, tunnels and devices", interfaces.check_mtu),
    NodeCheck("tracking", "rules of others with notrack", rules.check_notrack),
    NodeCheck("foreign drops", "rules and chains of others that drop", rules.check_foreign_drops),
    NodeCheck("kube-proxy", "kube-proxy beside eBPF", rules.check_kube_proxy),
    NodeCheck("maps", "how full eBPF maps are", capacity.check_maps),
    NodeCheck("connections", "how full the kernel's table of connections is", capacity.check_conntrack),
    NodeCheck("ipsets", "how full ipsets are", capacity.check_sets),
    NodeCheck("node-local DNS", "NodeLocal DNSCache, on eBPF nodes", combinations.check_local_dns),
    NodeCheck("combinations", "features that are not supported together", combinations.check_combinations),
    NodeCheck(
        "shadowed rules",
        "rules that no packet gets to, not on eBPF nodes",
        shadows.check_shadows,
    ),
    NodeCheck("reading", "parts of the eBPF dataplane that could not be read on the way", programs.check_reading),
)
"""What is looked at on each node, in this order; docs/doctor.md has the same table."""

CLUSTER_CHECKS: tuple[ClusterCheck, ...] = (
    ClusterCheck("evidence", "lists of objects that are missing or damaged", objects.check_evidence),
    ClusterCheck("services", "services without ready backends", objects.check_services),
    ClusterCheck("rules", "rules behind one that matches everything", objects.check_rules),
    ClusterCheck("selection", "policies that select nothing, or only log", selection.check_selection),
)
"""What is looked at once; docs/doctor.md has the same table."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A finding. ``node`` is "" for one about the cluster; ``entry`` says what it means and what to do."""

    code: str
    severity: str
    node: str
    seen: str
    entry: Entry


@dataclass(frozen=True, slots=True)
class Unseen:
    """Something that a check could not look at. ``node`` is "" for the cluster."""

    check: str
    node: str
    why: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything found, the worst first, and everything that could not be seen."""

    origin: str
    nodes: tuple[str, ...]
    findings: tuple[Diagnosis, ...]
    unseen: tuple[Unseen, ...]

    def count(self, severity: str) -> int:
        """How many findings have a severity."""
        return sum(finding.severity == severity for finding in self.findings)


def examine(
    source: EvidenceSource,
    nodes: Sequence[str],
    node_checks: Sequence[NodeCheck] = NODE_CHECKS,
    cluster_checks: Sequence[ClusterCheck] = CLUSTER_CHECKS,
    catalogue: Mapping[str, Entry] = CATALOGUE,
) -> Report:
    """Run every check on ``nodes`` of ``source`` and on its cluster. A check that fails for lack of evidence is told;
    nothing raises `EvidenceError`. ``catalogue`` has every code that the checks give.
    """
    cluster = ClusterView(source, load_cluster(source))
    findings: dict[Diagnosis, None] = {}
    unseen: dict[Unseen, None] = {}

    def take(check: str, node: str, observed: Iterator[Observation]) -> None:
        try:
            for one in observed:
                if isinstance(one, Symptom):
                    findings.setdefault(Diagnosis(one.code, one.severity, node, one.seen, catalogue[one.code]))
                else:
                    unseen.setdefault(Unseen(check, node, one.why))
        except EvidenceError as error:
            unseen.setdefault(Unseen(check, node, str(error)))

    for name in nodes:
        try:
            evidence = source.node(name)
        except EvidenceError as error:
            unseen.setdefault(Unseen("evidence", name, str(error)))
            continue
        view = NodeView(evidence, NodeWalker(NodeState(evidence)), cluster)
        for check in node_checks:
            take(check.name, name, check.run(view))
        for note in view.state.notes:
            unseen.setdefault(Unseen("evidence", name, note))
    for over_all in cluster_checks:
        take(over_all.name, "", over_all.run(cluster))
    ranked = sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), one.code, one.node))
    return Report(source.origin, tuple(nodes), tuple(ranked), tuple(unseen))
