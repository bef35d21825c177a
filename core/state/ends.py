"""The ends of a flow while they are resolved: choosing one of their addresses, and their ports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from calico_debug.errors import UsageError
from calico_debug.model.cluster import Pod, Service, ServicePort
from calico_debug.model.flow import PROTOCOL_NAMES, PROTOCOL_NUMBERS, Address, protocol_name
from calico_debug.state.endpoint_text import EndpointText

ICMP, TCP, ICMPV6 = PROTOCOL_NUMBERS["icmp"], PROTOCOL_NUMBERS["tcp"], PROTOCOL_NUMBERS["icmpv6"]

PORT_PROTOCOLS = frozenset({6, 17, 33, 132, 136})
"""TCP, UDP, DCCP, SCTP and UDPlite: protocols whose packets have ports."""

ECHO_REQUEST = {ICMP: (8, 0), ICMPV6: (128, 0)}
"""(type, code) of what ping sends: RFC 792, RFC 4443."""

SHOWN = 6
"""How many candidates a message lists."""


@dataclass(frozen=True, slots=True)
class End:
    """An end that was found, before one of its addresses and a port are chosen."""

    text: EndpointText
    addresses: tuple[Address, ...]
    pod: Pod | None = None
    service: Service | None = None
    node: str | None = None
    external: bool = False


# ------------------------------------------------------------------------------------------------------------ ports


def source_port(sender: End, protocol: int) -> int | None:
    """The port typed for the source, None when none was. Raises `UsageError`."""
    port = sender.text.port
    if port is None:
        return None
    if protocol not in PORT_PROTOCOLS:
        raise UsageError(f"{sender.text.text!r} has a port and {protocol_name(protocol)} has none: leave it out")
    if isinstance(port, str):
        return _named_pod_port(sender, port, protocol)
    return port


def destination_port(receiver: End, protocol: int, notes: list[str]) -> int:
    """The port typed for a destination that is no service, or the one that its pod declares, with a note.

    Raises `UsageError`.
    """
    port, word = receiver.text.port, protocol_name(protocol)
    if isinstance(port, int):
        return port
    if isinstance(port, str):
        return _named_pod_port(receiver, port, protocol)
    if receiver.pod is None:
        raise UsageError(f"{receiver.text.text!r} needs a port for {word}: write {_with_port(receiver.text)}")
    declared = [number for proto, number in receiver.pod.container_ports if proto == word.upper()]
    name = f"pod {receiver.pod.namespace}/{receiver.pod.name}"
    if len(declared) != 1:
        says = f"declares {listed([str(number) for number in declared])}" if declared else f"declares no {word} port"
        raise UsageError(f"{receiver.text.text!r} needs a port, {name} {says}: write {_with_port(receiver.text)}")
    notes.append(f"port {declared[0]} is taken, the only {word} port that {name} declares")
    return declared[0]


def _named_pod_port(end: End, port: str, protocol: int) -> int:
    word = protocol_name(protocol)
    if end.pod is None:
        raise UsageError(
            f"port {port!r} in {end.text.text!r} is a name: only pods and services name ports; give a number"
        )
    number = end.pod.ports.get((word.upper(), port))
    if number is None:
        names = [f"{name} ({proto.lower()} {value})" for (proto, name), value in end.pod.ports.items()]
        says = f"it names {listed(names)}" if names else "it names none; give a number"
        raise UsageError(f"pod {end.pod.namespace}/{end.pod.name} has no {word} port named {port!r}: {says}")
    return number


def fitting_ports(service: Service, port: int | str | None, protocol: str | None) -> Sequence[ServicePort]:
    """The ports of a service that a port as typed and a protocol ("TCP", …) mean; None means any."""
    return [
        candidate
        for candidate in service.ports
        if protocol in (None, candidate.protocol) and (port is None or port == candidate.port or port == candidate.name)
    ]


def no_service_port(
    service: Service, port: int | str | None, protocol: str | None, fitting: Sequence[ServicePort]
) -> UsageError:
    """The error when not exactly one port of a service is meant."""
    name = f"service {service.namespace}/{service.name}"
    ports = [f"{p.port}/{p.protocol.lower()}" + (f" ({p.name})" if p.name else "") for p in service.ports]
    says = f"its ports are {listed(ports)}" if ports else "it has no ports"
    if port is None and fitting:
        return UsageError(f"{name} has several ports: give one, {says}")
    word = f"{protocol.lower()} port" if protocol else "port"
    return UsageError(f"{name} has no {word}{'' if port is None else f' {port}'}: {says}")


# -------------------------------------------------------------------------------------------------------- addresses


def service_addresses(service: Service) -> tuple[Address, ...]:
    """The cluster addresses of a service. Raises `UsageError` when it has none of its own."""
    name = f"service {service.namespace}/{service.name}"
    if service.type == "ExternalName":
        raise UsageError(
            f"{name} is of type ExternalName, a name in DNS and no address: give the address it stands for"
        )
    if service.cluster_addresses:
        return service.cluster_addresses
    pods = list(dict.fromkeys(f"pod/{b.pod[0]}/{b.pod[1]}:{b.port}" for b in service.backends if b.pod))
    remedy = f"its clients reach its pods directly: name one, {listed(pods)}" if pods else "and it has no pods to name"
    raise UsageError(f"{name} is headless and has no address: {remedy}")


def choose_addresses(sender: End, receiver: End, protocol: int) -> tuple[Address, Address]:
    """The first address of either end that are of one family, IPv4 first unless the protocol is ICMPv6."""
    for family in (4, 6):
        if (protocol == ICMP and family == 6) or (protocol == ICMPV6 and family == 4):
            continue
        source = next((a for a in sender.addresses if a.version == family), None)
        destination = next((a for a in receiver.addresses if a.version == family), None)
        if source and destination:
            return source, destination
    raise _no_common_family(sender, receiver, protocol)


def _no_common_family(sender: End, receiver: End, protocol: int) -> UsageError:
    families = [{a.version for a in end.addresses} for end in (sender, receiver)]
    if protocol in (ICMP, ICMPV6) and families[0] & families[1]:
        wrong, right = (ICMP, ICMPV6) if protocol == ICMP else (ICMPV6, ICMP)
        return UsageError(
            f"{receiver.text.text!r} has no address for {PROTOCOL_NAMES[wrong]} that {sender.text.text!r} can use: "
            f"ask for --protocol {PROTOCOL_NAMES[right]}"
        )
    shown = [" and ".join(f"IPv{version}" for version in sorted(family)) or "no" for family in families]
    return UsageError(
        f"{sender.text.text!r} has {shown[0]} addresses and {receiver.text.text!r} {shown[1]}: "
        "give two ends of one address family"
    )


def is_everywhere(address: Address) -> bool:
    """Whether every node has this address, or one like it."""
    return address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast


# --------------------------------------------------------------------------------------------------------- messages


def full_name(text: EndpointText) -> str:
    """The name as typed, with its namespace where one is known."""
    return f"{text.namespace}/{text.name}" if text.namespace else text.name


def _with_port(text: EndpointText) -> str:
    bare = f"[{text.address}]" if text.address and text.address.version == 6 else text.text
    return f"{bare}:PORT"


def listed(names: Sequence[str]) -> str:
    """Names for a message, shortened when they are many."""
    shown = ", ".join(names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown


def suggestion(text: EndpointText, names: Sequence[str], what: str = "names") -> str:
    """The end of a message: what may have been meant, or all there is when that is little."""
    # A mistyped name is the only reason to compare strings, and start-up time counts.
    from difflib import get_close_matches

    parts = [(name, *name.rpartition("/")[::2]) for name in names]
    same = [full for full, _, name in parts if name == text.name]
    longer = [full for full, _, name in parts if name.startswith(f"{text.name}-")]
    # Within a namespace that exists only the name can be mistyped; its own letters would make everything look close.
    inside = {name: full for full, space, name in parts if space == text.namespace}
    close = [inside[name] for name in get_close_matches(text.name, inside, n=3)]
    if not inside:
        close = get_close_matches(full_name(text), names, n=3)
    found = list(dict.fromkeys([*same, *longer, *close]))
    if found:
        return f": did you mean {listed(found)}?"
    return f": the {what} there are {listed(sorted(names))}" if names else f": there are no {what}"
