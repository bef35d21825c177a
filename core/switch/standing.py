"""Before a switch: what becomes of the connections that are open (sources: `calico_debug.switch.connections`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from calico_debug.doctor.model import Symptom
from calico_debug.explain.live_connections import Tally, open_connections
from calico_debug.model.flow import PROTOCOL_NUMBERS, protocol_name
from calico_debug.state.dataplane import EBPF
from calico_debug.switch.connections import linux_connections
from calico_debug.switch.installation import listed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from calico_debug.doctor.model import NodeView, Observation
    from calico_debug.explain.live_connections import LiveConnection

TCP = PROTOCOL_NUMBERS["tcp"]


def check_connections(node: NodeView, target: str) -> Iterator[Observation]:
    """Open connections of the node's pods, where the switch is to eBPF or from it."""
    if (node.dataplane == EBPF) == (target == EBPF):
        return
    live = open_connections([node.state], node.cluster.state, Tally(), passing=True)
    if target == EBPF:
        if stay := [one for one in live if one.protocol == TCP]:
            yield Symptom("connections-stay", "info", f"{_count(stay)}; clients: {_clients(node, stay)}")
        if anew := [one for one in live if one.protocol != TCP]:
            yield Symptom("connections-asked-anew", "info", f"{_count(anew)}; clients: {_clients(node, anew)}")
        return
    known = linux_connections(node.state)
    lost = [one for one in live if (one.protocol, _words(one.client), _words(one.server)) not in known]
    lost = [one for one in lost if one.protocol == TCP]
    if lost:
        through = sum(one.asked != one.server for one in lost)
        seen = f"{_count(lost)}, {through} of them through a service's address; clients: {_clients(node, lost)}"
        yield Symptom("connections-at-risk", "warning", seen)


def _words(end: tuple[object, int | None]) -> tuple[str, int | None]:
    return str(end[0]), end[1]


def _count(connections: Iterable[LiveConnection]) -> str:
    counts = Counter(one.protocol for one in connections)
    return ", ".join(f"{count} {protocol_name(protocol)}" for protocol, count in sorted(counts.items()))


def _clients(node: NodeView, connections: Iterable[LiveConnection]) -> str:
    names: dict[str, None] = {}
    for one in connections:
        pod = node.cluster.state.pod_by_address(one.client[0])
        names.setdefault(f"{pod.namespace}/{pod.name}" if pod is not None else str(one.client[0]))
    return listed(list(names))
