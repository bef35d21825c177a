"""The question: one flow between two endpoints, names already resolved to addresses."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a flow.

    ``pod`` is (namespace, name), ``service`` (namespace, name, port name); ``node`` is the node on which the end lives
    where that is known (a host-network pod and a node's own address have a node and no interface of their own).
    ``external`` marks an address outside the cluster that stands for "somewhere outside".
    """

    address: Address
    port: int | None = None
    pod: tuple[str, str] | None = None
    service: tuple[str, str, str] | None = None
    node: str | None = None
    external: bool = False


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow as asked for. ``protocol`` is the IP protocol number; ``via`` the node through which a source outside the
    cluster arrives, None when the user did not say. ``notes`` are assumptions made while resolving, to be stated.
    """

    source: Endpoint
    destination: Endpoint
    protocol: int
    via: str | None = None
    icmp: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()


PROTOCOL_NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}
"""Names that the command line takes, with the numbers that IANA assigned."""

PROTOCOL_NAMES = {number: name for name, number in PROTOCOL_NUMBERS.items()}


def protocol_name(number: int) -> str:
    """The name the JSON uses for a protocol: its usual name, or the number in decimal."""
    return PROTOCOL_NAMES.get(number, str(number))
