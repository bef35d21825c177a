"""Which nodes a flow touches, as far as the cluster's objects say: those whose evidence is worth asking for."""

from __future__ import annotations

from collections.abc import Sequence

from calico_debug.model.flow import Flow
from calico_debug.state.cluster import ClusterState


def flow_nodes(flow: Flow, cluster: ClusterState) -> Sequence[str]:
    """Names of nodes, each once: where the flow comes from or in, where it goes, and where its service's backends are.

    () when the objects know neither end.
    """
    found = [flow.via, flow.source.node, flow.destination.node]
    if flow.destination.service is not None:
        service = cluster.service(*flow.destination.service[:2])
        found.extend(backend.node for backend in (service.backends if service is not None else ()))
    return tuple(dict.fromkeys(name for name in found if name))
