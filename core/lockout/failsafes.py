"""Ports that host endpoints never police: Felix's failsafes, from its configuration.

Where they are set: FelixConfiguration "node.NAME" before "default", and Felix's environment before both
(felix/config/config_params.go, the same in v3.28 to v3.32). What they match: felix/rules/static.go (failsafeInChain,
failsafeOutChain): protocol, destination port, and the peer's network where one is given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from calico_debug.intent.model import Direction
from calico_debug.model.cluster import Address, FelixConfiguration
from calico_debug.model.flow import PROTOCOL_NUMBERS
from calico_debug.model.routing import Network

_BOTH: Final = tuple(("tcp", port) for port in (179, 2379, 2380, 5473, 6443, 6666, 6667))
DEFAULTS: Final[Mapping[Direction, tuple[tuple[str, int], ...]]] = {
    "ingress": (("tcp", 22), ("udp", 68), *_BOTH),
    "egress": (("udp", 53), ("udp", 67), *_BOTH),
}
"""Where nothing is set (felix/config/config_params.go of v3.28.0, v3.29.0, v3.30.0, v3.31.0 and v3.32.1: all alike)."""

SETTINGS: Final[Mapping[Direction, tuple[str, str]]] = {
    "ingress": ("failsafeInboundHostPorts", "FELIX_FAILSAFEINBOUNDHOSTPORTS"),
    "egress": ("failsafeOutboundHostPorts", "FELIX_FAILSAFEOUTBOUNDHOSTPORTS"),
}

_ENTRY: Final = re.compile(r"(?:(?P<protocol>[a-zA-Z]+):)?(?:\[?(?P<net>[0-9a-fA-F.:/]+)\]?:)?(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class Failsafe:
    """One port. ``protocol`` is an IP protocol number; ``net`` None means every peer."""

    protocol: int
    port: int
    net: Network | None = None

    def covers(self, protocol: int, port: int | None, peer: Address) -> bool:
        """Whether packets to the port are let through, whatever policy says."""
        if (protocol, port) != (self.protocol, self.port):
            return False
        return self.net is None or (self.net.version == peer.version and peer in self.net)


@dataclass(frozen=True, slots=True)
class Failsafes:
    """A node's failsafes by direction. ``origin`` says where they are from, ``problem`` what could not be read."""

    ports: Mapping[Direction, tuple[Failsafe, ...]]
    origin: str
    problem: str = ""

    def covers(self, direction: Direction, protocol: int, port: int | None, peer: Address) -> bool:
        """Whether a flow of the node is let through, whatever policy says."""
        return any(one.covers(protocol, port, peer) for one in self.ports[direction])


class Unreadable(ValueError):  # noqa: N818 - is never shown as such
    """A value that Felix would not take."""


def failsafes_of(
    node: str, configurations: Sequence[FelixConfiguration], environment: Mapping[str, str], *, known: bool
) -> Failsafes:
    """The failsafes of a node. ``known`` says whether evidence has the list of FelixConfigurations."""
    by_name = {one.name: one for one in configurations}
    found: dict[Direction, tuple[Failsafe, ...]] = {}
    origins: dict[str, None] = {}
    problems: dict[str, None] = {}
    for direction, (field, variable) in SETTINGS.items():
        entries, origin = defaults(direction), "Felix's defaults"
        try:
            for name in ("default", f"node.{node}"):
                given = by_name[name].spec.get(field) if name in by_name else None
                if given is not None:
                    entries, origin = _listed(given), f"FelixConfiguration {name}"
            if variable in environment:
                entries, origin = _words(environment[variable]), f"{variable} of Felix's environment"
        except (Unreadable, AttributeError, TypeError, KeyError) as error:
            problems.setdefault(f"{field} of node {node} is not understood: {error}")
        found[direction] = entries
        origins.setdefault(origin)
    if not known:
        problems.setdefault(
            "Felix's settings are not in evidence, its defaults are assumed: record cluster/felixconfigurations"
        )
    return Failsafes(found, " and ".join(origins), "; ".join(problems))


def defaults(direction: Direction) -> tuple[Failsafe, ...]:
    """What Felix has where nothing is set."""
    return tuple(Failsafe(PROTOCOL_NUMBERS[protocol], port) for protocol, port in DEFAULTS[direction])


def _listed(given: object) -> tuple[Failsafe, ...]:
    """The list of a FelixConfiguration; an empty one means that there are no failsafes."""
    if not isinstance(given, list):
        raise Unreadable(f"{given!r} is no list")
    return tuple(_entry(str(one.get("protocol") or "tcp"), one["port"], one.get("net")) for one in given)


def _words(text: str) -> tuple[Failsafe, ...]:
    """The list as an environment variable has it: ``tcp:22,udp:10.0.0.0/8:53,tcp:[fd00::/8]:22,179`` or "none"."""
    if text.strip().lower() == "none":
        return ()
    found = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        match = _ENTRY.fullmatch(word)
        if match is None:
            raise Unreadable(f"{word!r} is no port")
        found.append(_entry(match["protocol"] or "tcp", int(match["port"]), match["net"]))
    return tuple(found)


def _entry(protocol: str, port: object, net: object) -> Failsafe:
    number = PROTOCOL_NUMBERS.get(protocol.lower())
    if number is None or isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise Unreadable(f"{protocol}:{port} is no port")
    try:
        return Failsafe(number, port, ip_network(str(net), strict=False) if net else None)
    except ValueError:
        raise Unreadable(f"{net!r} is no network") from None
