"""From a flow that was asked for to the flows that policy sees: one for each backend of a service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from calico_debug.intent.model import PolicyFlow
from calico_debug.model.cluster import Address, Backend, Service, ServicePort
from calico_debug.model.flow import Flow, protocol_name
from calico_debug.state.cluster import ClusterState


@dataclass(frozen=True, slots=True)
class AskedFlow:
    """A flow as policy sees it, with the service ((namespace, name)) that it is a backend's of, if any."""

    flow: PolicyFlow
    via: str = ""
    service: tuple[str, str] | None = None


def policy_flows(asked: Flow, cluster: ClusterState) -> tuple[AskedFlow, ...]:
    """The flows that policy sees of one that was asked for: itself, or one a backend of the service that it is for.

    None at all if the service has no backends for it. Without a type given, ICMP is an echo request.
    """
    source, destination = asked.source, asked.destination
    via = asked.via or ""
    port = None if asked.protocol in (1, 58) else destination.port
    icmp = asked.icmp or {1: (8, 0), 58: (128, 0)}.get(asked.protocol)
    found = _service(asked, cluster)
    if found is None:
        single = PolicyFlow(source.address, destination.address, asked.protocol, source.port, port, icmp)
        return (AskedFlow(single, via),)
    service, service_port = found
    return tuple(
        AskedFlow(
            PolicyFlow(
                source.address,
                backend.address,
                asked.protocol,
                source.port,
                backend.port,
                icmp,
                asked_for=(destination.address, port),
                source_doubt=_doubt(cluster, service, source.address, destination.address, backend),
            ),
            via,
            (service.namespace, service.name),
        )
        for backend in _backends(service, service_port, destination.address, _picking_node(asked, service, cluster))
    )


def _service(asked: Flow, cluster: ClusterState) -> tuple[Service, ServicePort] | None:
    address, port = asked.destination.address, asked.destination.port
    protocol = protocol_name(asked.protocol).upper()
    if port is None or asked.protocol in (1, 58):
        return None
    if found := cluster.service_by_address(address, port, protocol):
        service, service_port = found
        return (service, service_port) if service_port else None
    if cluster.node_by_address(address):
        return cluster.service_by_node_port(port, protocol)
    return None


def _backends(service: Service, port: ServicePort, address: Address, node: str) -> Iterator[Backend]:
    """The backends that may be picked: ready ones, and with a local policy those of the node that picks."""
    local = (service.internal_policy if address in service.cluster_addresses else service.external_policy) == "Local"
    for backend in service.backends:
        fits = (backend.port_name, backend.protocol) == (port.name, port.protocol) and backend.ready
        elsewhere = local and node and backend.node and backend.node != node
        if fits and backend.address.version == address.version and not elsewhere:
            yield backend


def _picking_node(asked: Flow, service: Service, cluster: ClusterState) -> str:
    """The node that translates: of the client inside the cluster, else the one it comes to. "" if not known."""
    pod = cluster.pod_by_address(asked.source.address)
    if pod is not None and asked.destination.address in service.cluster_addresses:
        return pod.node
    node = cluster.node_by_address(asked.destination.address)
    return node.name if node else asked.via or ""


def _doubt(cluster: ClusterState, service: Service, source: Address, address: Address, backend: Backend) -> str:
    """Why the backend may see another source than the client: kube-proxy masquerades, Calico's eBPF does not."""
    if address not in service.cluster_addresses and service.external_policy != "Local":
        return "a node may send traffic from outside on with an address of its own"
    if cluster.pod_by_address(source) is None:
        return "a node may send traffic that is not a pod's to a service with an address of its own"
    if source == backend.address:
        return "a pod that reaches itself through a service may be seen with its node's address"
    return ""
