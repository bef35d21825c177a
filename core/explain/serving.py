"""What speaks for a process that listens. Sockets are not in the evidence: connections that were taken are, and what
the cluster's objects say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.model.routing import address_from_int
from calico_debug.state.cluster import ENDED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calico_debug.model.cluster import Address, Pod
    from calico_debug.state.cluster import ClusterState
    from calico_debug.state.node import NodeState

TCP = "TCP"


def said_to_listen(cluster: ClusterState, node: NodeState, family: int, address: int, port: int) -> str:
    """What says that TCP connections to a port of an address are taken: a clause that follows "since".

    ``node`` has the address, or the pod with it. "" when nothing says so, which does not mean that nothing listens:
    objects need not name ports (core/v1, Container.ports).
    """
    known = address_from_int(family, address)
    if node.taken(known, port) is not None:
        return f"{node.name} tracks a connection that was taken there"
    for pod in _pods(cluster, known):
        if (TCP, port) in pod.container_ports:
            return f"pod {pod.namespace}/{pod.name} declares that port"
    for service in cluster.services:
        for backend in service.backends:
            if (backend.address, backend.port, backend.protocol, backend.ready) == (known, port, TCP, True):
                return f"it is a ready endpoint of service {service.namespace}/{service.name}"
    return ""


def _pods(cluster: ClusterState, address: Address) -> Iterator[Pod]:
    """The pod that has the address, or those of the node's own network."""
    pod = cluster.pod_by_address(address)
    if pod is not None:
        yield pod
    node = cluster.node_by_address(address)
    if node is not None:
        running = (one for one in cluster.pods if one.phase not in ENDED)
        yield from (one for one in running if one.host_network and one.node == node.name)
