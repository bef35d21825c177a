"""Which ports a matrix asks about: those that were named, else those that containers, services and policies name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from calico_debug.errors import UsageError
from calico_debug.matrix.model import Asked
from calico_debug.model.flow import PROTOCOL_NUMBERS

if TYPE_CHECKING:
    from calico_debug.intent.applies import Applicability
    from calico_debug.intent.model import Endpoint
    from calico_debug.model.cluster import Cluster

MOST_PORTS: Final = 24
"""Ports that are asked about when none is named."""

TCP: Final = 6
WITH_PORTS: Final = frozenset(PROTOCOL_NUMBERS[name] for name in ("tcp", "udp", "sctp"))
LARGEST_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Ports:
    """What is asked about, in order, and a note of what was left out, "" for nothing."""

    asked: tuple[Asked, ...]
    note: str = ""


def parse_port(text: str) -> Asked:
    """``80`` (TCP), ``udp/53``, ``icmp`` or the name of another protocol. Raises `UsageError`."""
    name, slash, port = text.partition("/") if not text.isdecimal() else ("tcp", "/", text)
    number = PROTOCOL_NUMBERS.get(name.lower()) or (int(name) if name.isascii() and name.isdecimal() else None)
    how = "write 80, tcp/80, udp/53, sctp/9, icmp or icmpv6"
    if number is None or not 0 < number <= 255:
        raise UsageError(f"--port {text!r}: {name!r} is no protocol: {how}")
    if number not in WITH_PORTS:
        if port:
            raise UsageError(f"--port {text!r}: {name} has no ports: {how}")
        return Asked(number)
    if not slash or not (port.isascii() and port.isdecimal()) or not 0 < int(port) <= LARGEST_PORT:
        raise UsageError(f"--port {text!r}: a port is a number from 1 to {LARGEST_PORT}: {how}")
    return Asked(number, int(port))


def mentioned_ports(applicability: Applicability, destinations: Iterable[Endpoint]) -> Ports:
    """The ports that containers of the destinations, services of theirs and rules of policies name, the nearest first.

    Of a range the first and the last one. Beyond `MOST_PORTS` they are left out, and it is said.
    """
    wanted = {(one.namespace, one.name): one for one in destinations}
    found: dict[Asked, None] = {}
    for one in (*_containers(applicability.cluster, wanted), *_backends(applicability.cluster, wanted)):
        found.setdefault(one)
    for one in _rules(applicability):
        found.setdefault(one)
    asked = tuple(found) or (Asked(TCP, 80),)
    note = ""
    if len(asked) > MOST_PORTS:
        note = f"{len(asked) - MOST_PORTS} more ports are named and not asked about: name those that matter with --port"
    elif not found:
        note = "nothing names a port, so TCP port 80 is asked about: name others with --port"
    return Ports(tuple(sorted(asked[:MOST_PORTS])), note)


def _containers(cluster: Cluster, wanted: Iterable[tuple[str, str]]) -> Iterator[Asked]:
    keys = set(wanted)
    for pod in cluster.pods:
        if (pod.namespace, pod.name) in keys:
            declared = (*pod.container_ports, *((protocol, number) for protocol, _, number in pod.named_ports))
            yield from _known(declared)


def _backends(cluster: Cluster, wanted: dict[tuple[str, str], Endpoint]) -> Iterator[Asked]:
    addresses = {address for endpoint in wanted.values() for address in endpoint.addresses}
    for service in cluster.services:
        yield from _known((one.protocol, one.port) for one in service.backends if one.address in addresses)


def _known(declared: Iterable[tuple[str, int]]) -> Iterator[Asked]:
    for name, port in declared:
        number = PROTOCOL_NUMBERS.get(name.lower())
        if number in WITH_PORTS and 0 < port <= LARGEST_PORT:
            yield Asked(number, port)


def _rules(applicability: Applicability) -> Iterator[Asked]:
    for policy in applicability.policies:
        if policy.staged:
            continue
        for rule in (*policy.ingress, *policy.egress):
            protocol = rule.protocol if rule.protocol in WITH_PORTS else TCP
            for span in (*rule.destination.ports, *rule.destination.not_ports):
                yield from (Asked(protocol, port) for port in dict.fromkeys(span) if 0 < port <= LARGEST_PORT)
