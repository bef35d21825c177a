"""Which flows are written down: those of open connections, and those that matter in any cluster, equals once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from calico_debug.explain.outlived import entrance
from calico_debug.model.flow import PROTOCOL_NUMBERS
from calico_debug.model.routing import address_from_int
from calico_debug.state.resolve import OUTSIDE
from calico_debug.state.successors import runs
from calico_debug.switch.ends import identity, pod_end
from calico_debug.switch.model import Question, RecordedEnd

if TYPE_CHECKING:
    from collections.abc import Hashable

    from calico_debug.explain.engine import Engine
    from calico_debug.explain.live_connections import LiveConnection
    from calico_debug.model.cluster import Address, Pod, Service, ServicePort
    from calico_debug.switch.answers import Asker

TCP = PROTOCOL_NUMBERS["tcp"]
KUBELET = 10250
"""What pods ask their own node for in the matrix (kubernetes/pkg/cluster/ports)."""
HTTPS = 443
"""What pods ask the world for."""


def of_connections(asker: Asker, connections: Iterable[LiveConnection]) -> Sequence[Question]:
    """One question for connections that policy cannot tell apart, those with most connections first."""
    found: dict[Hashable, Question] = {}
    for one in connections:
        asked = asker.ends.name(*one.asked, one.protocol)
        client = asker.ends.name(one.client[0])
        question = Question(client, asked, one.protocol, entrance(asker.engine, one), "connection", 1)
        key = question_key(question)
        known = found.get(key)
        found[key] = replace(known, connections=known.connections + 1) if known is not None else question
    return sorted(found.values(), key=lambda question: -question.connections)


def asked_question(asker: Asker, source: str, destination: str, protocol: str | None, via: str | None) -> Question:
    """The question for a flow as ``trace`` takes it. Raises `CalicoDebugError`."""
    flow = asker.resolve(source, destination, protocol, via)
    port = flow.destination.port
    client = asker.ends.name(flow.source.address, flow.source.port)
    server = asker.ends.name(flow.destination.address, port, flow.protocol)
    return Question(client, server, flow.protocol, flow.via, "asked")


def question_key(question: Question) -> Hashable:
    """Equal for questions that have the same answer."""
    return identity(question.source), identity(question.destination), question.protocol, question.via


def matrix(engine: Engine) -> Iterator[Question]:
    """The flows that matter anywhere, the most important kinds first, equals once."""
    seen: set[Hashable] = set()
    world = _World(engine)
    for kind in KINDS:
        for question in kind(world):
            key = question_key(question)
            if key not in seen:
                seen.add(key)
                yield question


class _World:
    """The cluster's ends, pods of one kind once a node."""

    def __init__(self, engine: Engine) -> None:
        self.services = engine.cluster.services
        self.nodes = [(name, _own(engine, name)) for name in engine.states]
        groups: dict[Hashable, Pod] = {}
        for pod in sorted(engine.cluster.pods, key=lambda pod: (pod.namespace, pod.name)):
            if runs(pod):
                labels = identity(pod_end(pod, pod.addresses[0]))
                groups.setdefault((labels, pod.service_account), pod)
        self.pods = [pod for pod in groups.values() if pod.node in engine.states]
        self.everywhere = list(groups.values())
        self.ports = _pod_ports(engine.cluster.services, self.everywhere)


def _own(engine: Engine, name: str) -> Sequence[Address]:
    node = engine.cluster.node(name)
    return node.addresses if node is not None else ()


def _pod_ports(services: Sequence[Service], pods: Sequence[Pod]) -> Mapping[tuple[str, str], Sequence[tuple[str, int]]]:
    ports: dict[tuple[str, str], dict[tuple[str, int], None]] = {}
    for pod in pods:
        ports.setdefault((pod.namespace, pod.name), {}).update(dict.fromkeys(pod.container_ports))
    for service in services:
        for backend in service.backends:
            if backend.pod in ports:
                ports[backend.pod][backend.protocol, backend.port] = None
    return {pod: tuple(found) for pod, found in ports.items()}


def _question(source: RecordedEnd, destination: RecordedEnd, protocol: str, via: str | None = None) -> Question:
    return Question(source, destination, PROTOCOL_NUMBERS[protocol.lower()], via)


def _service_end(service: Service, address: Address, port: ServicePort) -> RecordedEnd:
    return RecordedEnd("service", str(address), port.port, service.namespace, service.name)


def _pods_to_services(world: _World) -> Iterator[Question]:
    for pod in world.pods:
        for service in world.services:
            for address in service.cluster_addresses:
                own = _of_family(pod.addresses, address.version)
                for port in service.ports if own is not None else ():
                    assert own is not None
                    yield _question(pod_end(pod, own), _service_end(service, address, port), port.protocol)


def _pods_to_their_nodes(world: _World) -> Iterator[Question]:
    for pod in world.pods:
        for name, addresses in world.nodes:
            target = _of_family(addresses, pod.addresses[0].version)
            if name == pod.node and target is not None:
                yield _question(pod_end(pod, pod.addresses[0]), _node_end(name, target, KUBELET), "tcp")


def _pods_to_the_outside(world: _World) -> Iterator[Question]:
    for pod in world.pods:
        for address in pod.addresses:
            outside = RecordedEnd("outside", str(_outside(address.version)), HTTPS)
            yield _question(pod_end(pod, address), outside, "tcp")


def _nodes_to_services(world: _World) -> Iterator[Question]:
    for name, addresses in world.nodes:
        for service in world.services:
            for address in service.cluster_addresses:
                own = _of_family(addresses, address.version)
                for port in service.ports if own is not None else ():
                    assert own is not None
                    yield _question(_node_end(name, own), _service_end(service, address, port), port.protocol)


def _nodes_to_pods(world: _World) -> Iterator[Question]:
    for name, addresses in world.nodes:
        for pod in world.everywhere:
            own = _of_family(addresses, pod.addresses[0].version)
            for protocol, number in world.ports[pod.namespace, pod.name] if own is not None else ():
                assert own is not None
                yield _question(_node_end(name, own), pod_end(pod, pod.addresses[0], number), protocol)


def _outside_to_services(world: _World) -> Iterator[Question]:
    """Node ports of every node, and addresses of load balancers and others by way of every node."""
    for name, addresses in world.nodes:
        for service in world.services:
            for port in service.ports:
                for address in addresses if port.node_port else ():
                    yield _from_outside(_node_end(name, address, port.node_port), port.protocol, name)
                for address in (*service.load_balancer_addresses, *service.external_addresses):
                    yield _from_outside(_service_end(service, address, port), port.protocol, name)


def _pods_to_node_ports(world: _World) -> Iterator[Question]:
    for pod in world.pods:
        for name, addresses in world.nodes:
            target = _of_family(addresses, pod.addresses[0].version)
            for service in world.services if target is not None else ():
                for port in service.ports:
                    if port.node_port:
                        assert target is not None
                        end = _node_end(name, target, port.node_port)
                        yield _question(pod_end(pod, pod.addresses[0]), end, port.protocol)


KINDS: Sequence[Callable[[_World], Iterator[Question]]] = (
    _pods_to_services,
    _outside_to_services,
    _nodes_to_services,
    _nodes_to_pods,
    _pods_to_their_nodes,
    _pods_to_the_outside,
    _pods_to_node_ports,
)
"""What the matrix asks about, the most important first: what does not fit is of the last ones."""


def _from_outside(destination: RecordedEnd, protocol: str, via: str) -> Question:
    outside = RecordedEnd("outside", str(_outside(ip_address(destination.ip).version)))
    return _question(outside, destination, protocol, via)


def _node_end(name: str, address: Address, port: int | None = None) -> RecordedEnd:
    return RecordedEnd("node", str(address), port, name=name)


def _outside(family: int) -> Address:
    return address_from_int(family, int(OUTSIDE[family][1].network_address) + 1)


def _of_family(addresses: Iterable[Address], family: int) -> Address | None:
    return next((address for address in addresses if address.version == family), None)
