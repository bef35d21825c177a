"""Services: backends that EndpointSlices have against those that the node translates to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from calico_debug.drift.model import Drift

if TYPE_CHECKING:
    from calico_debug.model.cluster import Address, Service, ServicePort
    from calico_debug.state.cluster import ClusterState

LOCAL = "Local"

Frontend = tuple[str, int, str]
"""Address, port, protocol in lower case."""

Target = tuple[str, int]
"""Address and port of a backend."""


def compare(node: str, cluster: ClusterState, proxy: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Drift]:
    """The differences of a node's services. ``rows`` are documents of `calico-debug nat`, ``proxy`` who writes them."""
    programmed: dict[Frontend, set[Target]] = {}
    names: dict[Frontend, str] = {}
    for row in rows:
        if row.get("nodePort") or "ip" not in row:
            continue
        frontend = (row["ip"], row["port"], str(row["protocol"]).lower())
        programmed.setdefault(frontend, set()).update((one["ip"], one["port"]) for one in row["backends"])
        names[frontend] = str(row.get("service", ""))
    cause = f"{proxy} has not caught up with the API: look at its log, and whether it reaches the API server"
    wanted = dict(_frontends(cluster))
    families = {ip_address(frontend[0]).version for frontend in programmed}
    for frontend, (service, port) in wanted.items():
        if ip_address(frontend[0]).version in families:
            subject = f"service {service.namespace}/{service.name}"
            if frontend not in programmed:
                message = f"{_words(frontend)} is not translated"
                yield Drift("service-missing", "error", node, subject, message, cause)
            else:
                ready, possible = _wanted(service, port, node, frontend)
                yield from _backends(node, subject, frontend, ready, possible, programmed[frontend], cause)
    own = {str(address) for one in cluster.nodes for address in (*one.addresses, *one.tunnel_addresses)}
    known = {(str(address), port.port, port.protocol.lower()) for address, port in _every_address(cluster)}
    node_ports = {(port.node_port, port.protocol.lower()) for service in cluster.services for port in service.ports}
    for frontend in sorted(programmed.keys() - known):
        # An address of the node that no object names has node ports, too.
        if frontend[0] not in own and frontend[1:] not in node_ports and cluster.services:
            subject = f"service {names[frontend] or _words(frontend)}"
            yield Drift("service-left", "warning", node, subject, f"{_words(frontend)} is translated still", cause)


def _backends(
    node: str,
    subject: str,
    frontend: Frontend,
    ready: set[Target],
    possible: set[Target],
    held: set[Target],
    cause: str,
) -> Iterator[Drift]:
    hints = "; fewer are right where topology hints keep to near ones"
    if missing := sorted(ready - held):
        message = f"{_words(frontend)} is not balanced to {_list(missing)}"
        yield Drift("backends-missing", "warning", node, subject, message, cause + hints)
    if left := sorted(held - possible):
        message = f"{_words(frontend)} is balanced to {_list(left)}, which no ready endpoint has"
        yield Drift("backends-left", "error", node, subject, message, cause)


def _frontends(cluster: ClusterState) -> Iterator[tuple[Frontend, tuple[Service, ServicePort]]]:
    for service in cluster.services:
        if service.type == "ExternalName":
            continue
        for port in service.ports:
            # Without endpoints an address is refused by rules of its own, or has no entry.
            for address in service.cluster_addresses:
                if any(
                    _serves(backend.port_name, backend.protocol, port) and backend.address.version == address.version
                    for backend in service.backends
                ):
                    yield (str(address), port.port, port.protocol.lower()), (service, port)


def _every_address(cluster: ClusterState) -> Iterator[tuple[Address, ServicePort]]:
    for service in cluster.services:
        for address in (*service.cluster_addresses, *service.external_addresses, *service.load_balancer_addresses):
            yield from ((address, port) for port in service.ports)


def _wanted(service: Service, port: ServicePort, node: str, frontend: Frontend) -> tuple[set[Target], set[Target]]:
    """The ready backends of the address's IP version; and all, where none is ready: some may serve while they end."""
    version = ip_address(frontend[0]).version
    own = [
        one for one in service.backends if _serves(one.port_name, one.protocol, port) and one.address.version == version
    ]
    local = [one for one in own if one.node == node] if service.internal_policy == LOCAL else own
    # Calico's map holds all backends of a local service, those of the node first; kube-proxy's rules the node's alone.
    ready = {(str(one.address), one.port) for one in local if one.ready}
    possible = {(str(one.address), one.port) for one in own if one.ready}
    return ready, possible or {(str(one.address), one.port) for one in own}


def _serves(port_name: str, protocol: str, port: ServicePort) -> bool:
    return port_name == port.name and protocol == port.protocol


def _words(frontend: Frontend) -> str:
    address, port, protocol = frontend
    return f"{protocol} [{address}]:{port}" if ":" in address else f"{protocol} {address}:{port}"


def _list(targets: Iterable[Target]) -> str:
    return ", ".join(f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip, port in targets)
