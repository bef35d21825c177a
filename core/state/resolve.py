"""From what the user typed to a `Flow`: names become addresses, and what is assumed on the way becomes a note."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network

from calico_debug.errors import EvidenceError, MissingEvidence, UsageError
from calico_debug.model.cluster import Pod, Service
from calico_debug.model.flow import PROTOCOL_NUMBERS, Address, Endpoint, Flow, protocol_name
from calico_debug.state.cluster import ENDED, ClusterState
from calico_debug.state.endpoint_text import EndpointText, parse_endpoint
from calico_debug.state.ends import (
    ECHO_REQUEST,
    PORT_PROTOCOLS,
    TCP,
    End,
    choose_addresses,
    destination_port,
    fitting_ports,
    full_name,
    is_everywhere,
    listed,
    no_service_port,
    service_addresses,
    source_port,
    suggestion,
)
from calico_debug.state.node import NodeState

OUTSIDE: Mapping[int, tuple[IPv4Network | IPv6Network, ...]] = {
    4: (IPv4Network("192.0.2.0/24"), IPv4Network("198.51.100.0/24"), IPv4Network("203.0.113.0/24")),
    # Not 2001:db8::/64, from which Felix takes the next hop of its routes to services in eBPF mode.
    6: (IPv6Network("2001:db8:ffff::/120"), IPv6Network("2001:db8:fffe::/120")),
}
"""Documentation ranges (RFC 5737, RFC 3849): nobody's, so they stand for everybody outside."""


class Resolver:
    """Resolves flows against one cluster and the nodes that evidence exists for; keep it for many flows."""

    def __init__(self, cluster: ClusterState, nodes: Mapping[str, NodeState]) -> None:
        """``nodes`` are by name; each is only read when an address is in no list of the cluster."""
        self._cluster = cluster
        self._nodes = nodes

    def resolve(
        self,
        source: str,
        destination: str,
        *,
        protocol: str | None = None,
        namespace: str | None = None,
        via: str | None = None,
    ) -> Flow:
        """The flow between two endpoints as typed (`calico_debug.state.endpoint_text`).

        ``protocol`` is a name of `PROTOCOL_NUMBERS` or a number; None means the service port's, else TCP. ``namespace``
        is that of names without one, ``via`` the node through which an outside source arrives. Raises `UsageError` for
        what cannot be meant, `EvidenceError` when a name cannot be looked up for lack of evidence.
        """
        number = parse_protocol(protocol)
        sender = self._find_source(parse_endpoint(source, namespace))
        receiver = self._find(parse_endpoint(destination, namespace))
        notes: list[str] = []
        chosen = self._choose_protocol(receiver, number, notes)
        if sender.external and receiver.external:
            raise UsageError("both ends are outside the cluster: name a pod, a service, a node or an address for one")
        from_address, to_address = choose_addresses(sender, receiver, chosen)
        start = self._endpoint(sender, from_address, source_port(sender, chosen), notes)
        target = self._destination(receiver, to_address, chosen, notes)
        self._check_via(via, start)
        return Flow(start, target, chosen, via, ECHO_REQUEST.get(chosen), tuple(dict.fromkeys(notes)))

    def find_end(self, text: str, namespace: str | None = None) -> End:
        """One end as typed, with all its addresses; raises as `resolve`."""
        return self._find(parse_endpoint(text, namespace))

    # ------------------------------------------------------------------------------------------------- look-up

    def _find_source(self, text: EndpointText) -> End:
        if text.kind != "service":
            return self._find(text)
        service = self._service(text)
        pods = list(dict.fromkeys(f"pod/{b.pod[0]}/{b.pod[1]}" for b in service.backends if b.pod))
        remedy = f"name one of its pods: {listed(pods)}" if pods else "name a pod, a node or an address"
        raise UsageError(f"service {service.namespace}/{service.name} opens no connections: {remedy}")

    def _find(self, text: EndpointText) -> End:
        if text.kind == "address" and text.address is not None:
            return self._find_address(text, text.address)
        if text.kind == "external":
            return End(text, tuple(self._outside_addresses), external=True)
        if text.kind == "node":
            return End(text, self._node_addresses(text), node=text.name)
        if text.kind == "service":
            service = self._service(text)
            return End(text, service_addresses(service), service=service)
        pod = self._pod(text)
        return End(text, pod.addresses, pod=pod, node=pod.node or None)

    def _find_address(self, text: EndpointText, address: Address) -> End:
        pod = self._cluster.pod_by_address(address)
        if pod is not None:
            return End(text, (address,), pod=pod, node=pod.node or None)
        port = text.port if isinstance(text.port, int) else None
        owner = self._cluster.service_by_address(address, port)
        node = self._cluster.node_by_address(address)
        if owner is not None and (node is None or owner[1] is not None):
            return End(text, (address,), service=owner[0], node=node.name if node else None)
        return End(text, (address,), node=self._node_of(address))

    def _pod(self, text: EndpointText) -> Pod:
        if text.namespace:
            pod = self._cluster.pod(text.namespace, text.name)
            found = [pod] if pod else []
        else:
            found = list(self._cluster.pods_named(text.name))
        if not found:
            raise self._no_pod(text)
        if len(found) > 1:
            names = [f"{pod.namespace}/{pod.name}" for pod in found]
            raise UsageError(f"{text.text!r} could be any of {listed(names)}: give the namespace")
        pod = found[0]
        if pod.phase in ENDED:
            raise UsageError(
                f"pod {pod.namespace}/{pod.name} has ended (phase {pod.phase}) and has no address: name a running pod"
            )
        if not pod.addresses:
            raise UsageError(
                f"pod {pod.namespace}/{pod.name} has no address (phase {pod.phase or 'unknown'}): wait until it runs"
            )
        return pod

    def _no_pod(self, text: EndpointText) -> Exception:
        self._need("pods.json", text)
        service = self._services_for(text)
        if service:
            names = [f"svc/{s.namespace}/{s.name}" for s in service]
            return UsageError(f"no pod is named {full_name(text)!r}, but a service is: write {listed(names)}")
        names = [f"{pod.namespace}/{pod.name}" for pod in self._cluster.pods]
        return UsageError(f"no pod is named {full_name(text)!r} in {self._cluster.origin}{suggestion(text, names)}")

    def _service(self, text: EndpointText) -> Service:
        found = self._services_for(text)
        if not found:
            self._need("services.json", text)
            names = [f"{s.namespace}/{s.name}" for s in self._cluster.services]
            raise UsageError(
                f"no service is named {full_name(text)!r} in {self._cluster.origin}{suggestion(text, names)}"
            )
        if len(found) > 1:
            names = [f"svc/{s.namespace}/{s.name}" for s in found]
            raise UsageError(f"{text.text!r} could be any of {listed(names)}: give the namespace")
        return found[0]

    def _services_for(self, text: EndpointText) -> Sequence[Service]:
        if text.namespace:
            service = self._cluster.service(text.namespace, text.name)
            return [service] if service else []
        return self._cluster.services_named(text.name)

    def _node_addresses(self, text: EndpointText) -> tuple[Address, ...]:
        node = self._cluster.node(text.name)
        if node is not None and node.addresses:
            return node.addresses
        if text.name in self._nodes:
            owned = [
                a for a in self._nodes[text.name].addresses if a.scope == "global" and not is_everywhere(a.address)
            ]
            if owned:
                return tuple(a.address for a in owned)
            raise EvidenceError(f"node {text.name} has no address in {self._nodes[text.name].origin}: give an address")
        if node is not None:
            raise EvidenceError(f"nodes.json of {self._cluster.origin} has no address of node {text.name}: give one")
        names = self._node_names
        if not names:
            self._need("nodes.json", text)
        raise UsageError(f"no node is named {text.name!r} in {self._cluster.origin}{suggestion(text, names, 'nodes')}")

    @cached_property
    def _node_names(self) -> Sequence[str]:
        return sorted({*(node.name for node in self._cluster.nodes), *self._nodes})

    def _node_of(self, address: Address) -> str | None:
        if is_everywhere(address):
            return None
        node = self._cluster.node_by_address(address)
        return node.name if node else self._owned_addresses.get(address)

    @cached_property
    def _owned_addresses(self) -> Mapping[Address, str]:
        """Addresses of nodes that no list of the cluster has: second interfaces, bridges, or no list at all.

        What several nodes have, such as the service addresses on every kube-ipvs0, says nothing about one of them.
        """
        owners: dict[Address, set[str]] = {}
        for name, node in self._nodes.items():
            try:
                owned = node.addresses
            except EvidenceError:
                continue  # the walk asks for the same file and says what is wrong with it
            for address in owned:
                owners.setdefault(address.address, set()).add(name)
        return {address: names.pop() for address, names in owners.items() if len(names) == 1}

    def _need(self, file: str, text: EndpointText) -> None:
        problem = self._cluster.problem(file)
        if problem:
            raise MissingEvidence(f"{text.text!r} cannot be looked up: {problem}; or give the IP address")

    @cached_property
    def _outside_addresses(self) -> Sequence[Address]:
        """For each family, the first address of the documentation ranges that nothing in the cluster has."""
        taken = [*self._cluster.pools, *(net for one in self._cluster.network_sets for net in one.nets)]
        chosen: list[Address] = []
        for ranges in OUTSIDE.values():
            candidates: Iterable[Address] = (address for network in ranges for address in network.hosts())
            for address in candidates:
                if not any(address in network for network in taken) and not self._is_inside(address):
                    chosen.append(address)
                    break
        return chosen

    def _is_inside(self, address: Address) -> bool:
        cluster = self._cluster
        return bool(
            cluster.pod_by_address(address) or cluster.service_by_address(address) or cluster.node_by_address(address)
        )

    # ------------------------------------------------------------------------------------------------- choices

    def _choose_protocol(self, receiver: End, number: int | None, notes: list[str]) -> int:
        if number is not None:
            return number
        if receiver.service is None or receiver.text.kind != "service":
            return TCP
        fitting = fitting_ports(receiver.service, receiver.text.port, None)
        if receiver.text.port is None and len(fitting) > 1:
            raise no_service_port(receiver.service, None, None, fitting)
        protocols = list(dict.fromkeys(port.protocol.lower() for port in fitting))
        if not protocols or "tcp" in protocols:
            if len(protocols) > 1:
                notes.append(
                    f"{receiver.text.text} is a port of {' and '.join(protocols)}: tcp is meant, ask for another with "
                    "--protocol"
                )
            return TCP
        return PROTOCOL_NUMBERS.get(protocols[0], TCP)

    def _destination(self, receiver: End, address: Address, protocol: int, notes: list[str]) -> Endpoint:
        if protocol not in PORT_PROTOCOLS:
            if receiver.text.port is not None:
                raise UsageError(
                    f"{receiver.text.text!r} has a port and {protocol_name(protocol)} has none: leave it out"
                )
            return self._endpoint(receiver, address, None, notes)
        if receiver.service is not None:
            return self._service_endpoint(receiver, receiver.service, address, protocol)
        port = destination_port(receiver, protocol, notes)
        return self._endpoint(receiver, address, port, notes, protocol)

    def _service_endpoint(self, receiver: End, service: Service, address: Address, protocol: int) -> Endpoint:
        wanted, word = receiver.text.port, protocol_name(protocol).upper()
        fitting = fitting_ports(service, wanted, word)
        if receiver.text.kind == "address" and isinstance(wanted, int) and not fitting:
            # The address is a service's and the port is none of its ports: worth explaining, so no error.
            return Endpoint(address, wanted, service=(service.namespace, service.name, ""), node=receiver.node)
        if len(fitting) != 1:
            raise no_service_port(service, wanted, word, fitting)
        port = fitting[0]
        return Endpoint(address, port.port, service=(service.namespace, service.name, port.name), node=receiver.node)

    def _endpoint(
        self, end: End, address: Address, port: int | None, notes: list[str], protocol: int | None = None
    ) -> Endpoint:
        service: tuple[str, str, str] | None = None
        if end.service is not None:
            service = (end.service.namespace, end.service.name, "")
        elif end.node and port and protocol is not None:
            behind = self._cluster.service_by_node_port(port, protocol_name(protocol).upper())
            if behind is not None and end.pod is None:
                service = (behind[0].namespace, behind[0].name, behind[1].name)
        if end.external:
            notes.append(
                f"{address}, an address of a documentation range, stands for every address outside the cluster"
            )
        elif not (end.pod or end.node or end.service) and any(address in pool for pool in self._cluster.pools):
            notes.append(f"{address} is in an IP pool of the cluster, and no pod of {self._cluster.origin} has it")
        return Endpoint(
            address=address,
            port=port,
            pod=(end.pod.namespace, end.pod.name) if end.pod else None,
            service=service,
            node=end.node,
            external=end.external,
        )

    def _check_via(self, via: str | None, source: Endpoint) -> None:
        if via is None:
            return
        if via not in self._node_names:
            raise UsageError(
                f"--via {via!r} is no node of {self._cluster.origin}: its nodes are {listed(self._node_names)}"
                if self._node_names
                else f"--via {via!r}: {self._cluster.origin} knows no nodes; leave --via out"
            )
        if source.node:
            raise UsageError(
                f"--via is for sources outside the cluster, and {source.address} is on node {source.node}: leave it out"
            )


def resolve_flow(
    source: str,
    destination: str,
    *,
    cluster: ClusterState,
    nodes: Mapping[str, NodeState],
    protocol: str | None = None,
    namespace: str | None = None,
    via: str | None = None,
) -> Flow:
    """One flow; see `Resolver.resolve`."""
    return Resolver(cluster, nodes).resolve(source, destination, protocol=protocol, namespace=namespace, via=via)


def parse_protocol(text: str | None) -> int | None:
    """A protocol's number from its name or number as typed; None stays None. Raises `UsageError`."""
    if text is None:
        return None
    word = text.strip().lower()
    if word in PROTOCOL_NUMBERS:
        return PROTOCOL_NUMBERS[word]
    if word.isascii() and word.isdigit() and len(word) <= 3 and int(word) <= 255:
        return int(word)
    raise UsageError(f"{text[:40]!r} is no protocol: give {', '.join(PROTOCOL_NUMBERS)} or a number from 0 to 255")
