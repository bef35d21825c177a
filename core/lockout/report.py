"""Whether a change would cut what nodes and the cluster live by: before, after, and what the difference is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from calico_debug.doctor.model import ClusterView
from calico_debug.intent.model import PolicyFlow
from calico_debug.lockout.changes import Change
from calico_debug.lockout.failsafes import Failsafes, failsafes_of
from calico_debug.lockout.host_action import judge_host_action
from calico_debug.lockout.judge import CUT, CUT_BEFORE, OPEN, RANK, STAYS, Judge, Judgement, denied_by
from calico_debug.lockout.vitals import ANY_PORT, DNS_PORT, TCP, UDP, Facts
from calico_debug.model.explanation import API_VERSION
from calico_debug.model.flow import PROTOCOL_NUMBERS, protocol_name

if TYPE_CHECKING:
    from calico_debug.intent.model import Endpoint
    from calico_debug.lockout.vitals import NodeFlow
    from calico_debug.model.cluster import Address, Backend
    from calico_debug.state.cluster import ClusterState

KIND: Final = "LockoutPreview"
KINDS_OF_PODS: Final = 2_000
"""Pods that no rule can tell apart are looked at once; of more kinds than these the rest is left out."""


@dataclass(frozen=True, slots=True)
class Row:
    """One flow of one node, or of its pods. ``port`` is 0 where it has none; ``peers`` counts those looked at.

    ``standing`` is the worst one of its peers', ``why`` and ``peer`` belong to that.
    """

    node: str
    name: str
    direction: str
    protocol: int
    port: int
    standing: str
    why: str
    peer: str
    peers: int


@dataclass(frozen=True, slots=True)
class Preview:
    """Every row, the nodes without a host endpoint, and what was taken for granted."""

    rows: tuple[Row, ...]
    unpoliced: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def worst(self) -> str:
        """The worst standing; `STAYS` without rows."""
        return max((row.standing for row in self.rows), key=RANK.index, default=STAYS)


def preview(
    state: ClusterState,
    view: ClusterView,
    change: Change | None,
    interfaces: Mapping[str, Mapping[Address, str]],
    environments: Mapping[str, Mapping[str, str]],
) -> Preview:
    """Look at every node with a host endpoint, and at what pods need of DNS. Without a change, at what is now.

    ``interfaces`` give those with nodes' addresses, ``environments`` Felix's environment, of nodes in evidence.
    """
    return _Preview(state, view, change, interfaces, environments).look()


class _Preview:
    def __init__(
        self,
        state: ClusterState,
        view: ClusterView,
        change: Change | None,
        interfaces: Mapping[str, Mapping[Address, str]],
        environments: Mapping[str, Mapping[str, str]],
    ) -> None:
        known = state.felix_configurations
        after = change.settings(known) if change is not None else known
        has_settings = view.has("felixconfigurations") or bool(after)
        self._notes: dict[str, None] = {}
        self._facts = Facts(view, after)

        @cache
        def failsafes(node: str, *, changed: bool) -> Failsafes:
            settings = after if changed else known
            found = failsafes_of(node, settings, environments.get(node, {}), known=has_settings)
            if found.problem:
                self._notes.setdefault(found.problem)
            return found

        cluster = state.cluster
        self._after = Judge(
            change.applied(cluster) if change is not None else cluster,
            lambda node: failsafes(node, changed=True),
            interfaces,
        )
        self._host_actions = {True: (after, environments), False: (known, environments)}
        self._before = None
        if change is not None:
            self._before = Judge(cluster, lambda node: failsafes(node, changed=False), interfaces)
        self._skipped = change.skipped if change is not None else ()
        self._problems = state.problems

    def look(self) -> Preview:
        rows: list[Row] = []
        unpoliced = []
        for node in self._facts.cluster.nodes:
            if not self._after.host_endpoints(node.name):
                unpoliced.append(node.name)
                continue
            groups: dict[tuple[str, str], list[NodeFlow]] = {}
            for one in self._facts.flows(node):
                groups.setdefault((one.vital.name, one.vital.direction), []).append(one)
            rows += [self._row(node.name, flows) for flows in groups.values()]
        rows += self._pods()
        for gap in self._facts.gaps:
            self._notes.setdefault(gap)
        for name in self._skipped:
            self._notes.setdefault(f"{name} is nothing that host endpoints or policies are made of, so it is left out")
        for problem in self._problems:
            self._notes.setdefault(f"not read: {problem}")
        return Preview(tuple(rows), tuple(unpoliced), tuple(self._notes))

    def _row(self, node: str, flows: Sequence[NodeFlow]) -> Row:
        judged = [(self._judge(node, one), one) for one in flows]
        worst, example = max(judged, key=lambda pair: RANK.index(pair[0].standing))
        vital, flow = example.vital, example.flow
        return Row(
            node,
            vital.name,
            vital.direction,
            vital.protocol,
            flow.destination_port or 0,
            worst.standing,
            worst.why,
            f"{example.peer} ({example.peer_address})" if not example.unknown else "addresses outside",
            len(flows),
        )

    def _judge(self, node: str, one: NodeFlow) -> Judgement:
        after = self._after.judge(node, one)
        if after.standing != CUT or self._before is None:
            return after
        before = self._before.judge(node, one)
        return Judgement(CUT_BEFORE, after.why) if before.standing == CUT else after

    # ---------------------------------------------------------------------------------------------------------- pods

    def _pods(self) -> Iterator[Row]:
        """DNS for pods, and the API server for the pods that answer DNS: each kind of pod of a node once."""
        dns = {one.address: one for one in self._facts.dns}
        kinds: dict[tuple[str, int], Endpoint] = {}
        for endpoint in self._after.intent.applicability.endpoints:
            if endpoint.kind == "pod":
                kinds.setdefault((endpoint.node, self._after.intent.applicability.class_of(endpoint)), endpoint)
        if len(kinds) > KINDS_OF_PODS:
            self._notes.setdefault(f"of {len(kinds)} kinds of pods {KINDS_OF_PODS} were looked at")
        by_node: dict[str, list[Endpoint]] = {}
        for (node, _), endpoint in list(kinds.items())[:KINDS_OF_PODS]:
            by_node.setdefault(node, []).append(endpoint)
        for node, pods in by_node.items():
            yield from self._pods_row(node, "DNS for pods", UDP, pods, list(dns.values()))
            servers = [one for one in self._after.intent.applicability.endpoints if set(one.addresses) & dns.keys()]
            own = [one for one in servers if one.node == node and one.kind == "pod"]
            yield from self._pods_row(node, "API server for DNS", TCP, own, list(self._facts.api))

    def _pods_row(
        self, node: str, name: str, protocol: int, pods: Sequence[Endpoint], backends: Sequence[Backend]
    ) -> Iterator[Row]:
        found: list[tuple[str, str, str]] = []
        for pod in pods:
            for backend in backends:
                source = next((one for one in pod.addresses if one.version == backend.address.version), None)
                if source is None or backend.address in pod.addresses:
                    continue
                if PROTOCOL_NUMBERS.get(backend.protocol.lower()) != protocol:
                    continue
                flow = PolicyFlow(source, backend.address, protocol, ANY_PORT, backend.port)
                judged = self._judge_pod(flow, node)
                found.append((judged.standing, judged.why, f"{pod} -> {backend.address}"))
        if found:
            standing, why, example = max(found, key=lambda one: RANK.index(one[0]))
            port = DNS_PORT if protocol == UDP else next(one.port for one in backends)
            yield Row(node, name, "egress", protocol, port, standing, why, example, len(found))

    def _judge_pod(self, flow: PolicyFlow, node: str) -> Judgement:
        after = self._decided(self._after, flow, node, changed=True)
        if after.standing != CUT or self._before is None:
            return after
        before = self._decided(self._before, flow, node, changed=False)
        return Judgement(CUT_BEFORE, after.why) if before.standing == CUT else after

    def _decided(self, judge: Judge, flow: PolicyFlow, node: str, *, changed: bool) -> Judgement:
        found = judge.intent.decide(flow)
        decisive = found.decisive
        if found.verdict == "allowed" or decisive is None:
            return Judgement(STAYS)
        if decisive.reason == "host-default":
            settings, environments = self._host_actions[changed]
            return judge_host_action(node, settings, environments.get(node, {}))
        if found.verdict == "undetermined":
            return Judgement(OPEN, "; ".join(decisive.doubts) or "not all rules are understood")
        where = f"{decisive.endpoint}: " if decisive.endpoint is not None else ""
        return Judgement(CUT, f"{where}{denied_by(decisive)}")


def document(found: Preview) -> Mapping[str, Any]:
    """The preview for machines (docs/cli.md)."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "worst": found.worst,
        "flows": [
            {
                "node": row.node,
                "flow": row.name,
                "direction": row.direction,
                "protocol": protocol_name(row.protocol),
                **({"port": row.port} if row.port else {}),
                "standing": row.standing,
                **({"why": row.why} if row.why else {}),
                "peer": row.peer,
                "peers": row.peers,
            }
            for row in found.rows
        ],
        "unpoliced": list(found.unpoliced),
        "notes": list(found.notes),
    }
