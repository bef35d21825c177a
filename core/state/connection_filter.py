"""Which connections of a listing are wanted, in whatever table they are tracked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.errors import UsageError
from calico_debug.state.ends import fitting_ports

if TYPE_CHECKING:
    from calico_debug.model.conntrack import Address
    from calico_debug.state.ends import End
    from calico_debug.state.resolve import Resolver

STATES: Mapping[str, str] = {
    "syn-sent": "no answer yet, or refused on the way",
    "syn-recv": "answered, not confirmed",
    "established": "open",
    "fin-wait": "one end has finished",
    "close-wait": "one end has finished",
    "last-ack": "both ends have finished",
    "time-wait": "both ends have finished",
    "closed": "finished",
    "reset": "reset by one end",
    "unreplied": "any protocol: nothing came back",
    "assured": "any protocol: packets went both ways often enough to be kept",
}
"""Words of ``--state``. TCP states of Linux nf_conntrack_proto_tcp.c and of calico-bpf, and two flags of conntrack."""

BPF_STATES = ("syn-sent", "established", "closed", "reset", "unreplied")
"""Those that the eBPF dataplane tells apart; the kernel has all but "reset"."""

_SAME = {"close": "closed", "syn-sent2": "syn-sent"}


def state_word(text: str) -> str:
    """A state as `STATES` has it: the kernel writes SYN_SENT."""
    word = text.lower().replace("_", "-")
    return _SAME.get(word, word)


@dataclass(frozen=True, slots=True)
class ConnectionFilter:
    """Connections to list; None leaves a field open. ``clients`` opened the connection; ``servers`` are the other end
    or the service that the client asked for; ``port`` is the server's or the service's. ``state`` is a word of
    `STATES`, "" for any.
    """

    clients: frozenset[Address] | None = None
    servers: frozenset[Address] | None = None
    port: int | None = None
    protocol: int | None = None
    client_port: int | None = None
    state: str = ""

    def admits(
        self,
        protocol: int,
        client: tuple[Address, int | None],
        servers: Iterable[tuple[Address | None, int | None]],
        states: Iterable[str],
    ) -> bool:
        """Whether a connection is wanted. ``servers`` are its other end and the service asked for, if any."""
        return (
            self.protocol in (None, protocol)
            and (self.clients is None or client[0] in self.clients)
            and self.client_port in (None, client[1])
            and any((self.servers is None or ip in self.servers) and self.port in (None, at) for ip, at in servers)
            and (not self.state or self.state in states)
        )

    def has_family(self, family: int) -> bool:
        """Whether a connection of IPv``family`` can be wanted."""
        wanted = (one for one in (self.clients, self.servers) if one is not None)
        return all(any(address.version == family for address in addresses) for addresses in wanted)


ANY_CONNECTION = ConnectionFilter()
"""Wants them all."""


def connection_filter(
    resolver: Resolver,
    *,
    source: str | None = None,
    destination: str | None = None,
    port: int | None = None,
    protocol: int | None = None,
    state: str = "",
    namespace: str | None = None,
) -> ConnectionFilter:
    """The filter for ends as typed. Raises `UsageError` for what cannot be meant, `EvidenceError` as `Resolver`."""
    client = resolver.find_end(source, namespace) if source is not None else None
    server = resolver.find_end(destination, namespace) if destination is not None else None
    typed = _port(server) if server is not None else None
    if None not in (typed, port) and typed != port:
        raise UsageError(f"--port {port} and --to {destination} name two ports: leave one of them out")
    return ConnectionFilter(
        _addresses("--from", client),
        _addresses("--to", server),
        typed if port is None else port,
        protocol,
        _port(client) if client is not None else None,
        state,
    )


def _addresses(option: str, end: End | None) -> frozenset[Address] | None:
    if end is None:
        return None
    if end.external:
        raise UsageError(f"{option} external is not one address: give the address")
    if option == "--from" and end.service is not None and end.text.kind == "service":
        raise UsageError(
            f"--from {end.text.text}: a service opens no connections; name one of its pods, or give it with --to"
        )
    service = end.service if end.text.kind == "service" else None
    more = (*service.external_addresses, *service.load_balancer_addresses) if service is not None else ()
    return frozenset((*end.addresses, *more))


def _port(end: End) -> int | None:
    port = end.text.port
    if port is None or isinstance(port, int):
        return port
    if end.service is not None:
        numbers = {one.port for one in fitting_ports(end.service, port, None)}
    else:
        named = end.pod.ports if end.pod is not None else {}
        numbers = {number for (_, name), number in named.items() if name == port}
    if len(numbers) != 1:
        raise UsageError(f"{end.text.text!r}: {port!r} names {len(numbers) or 'no'} ports there; give a number")
    return numbers.pop()
