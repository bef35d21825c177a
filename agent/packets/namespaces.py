"""This network namespace and those of the pods behind its interfaces."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from calico_debug.agent.namespace_files import namespace_files
from calico_debug.errors import EvidenceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OWN = Path("/proc/thread-self/ns/net")
PAIR = "veth"
"""The kind of links that lead into pods."""
VXLAN_PORT = 4789


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Inodes of network namespaces.

    ``home`` is this one; ``behind`` has those that pods' interfaces lead into, by the interface at this end.
    ``hidden`` are interfaces that lead somewhere that no process which is visible from here is in. ``vxlan_port`` is
    that of a VXLAN device here, else the one that IANA assigned.
    """

    home: int
    behind: Mapping[str, int] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    vxlan_port: int = VXLAN_PORT

    @property
    def all(self) -> tuple[int, ...]:
        """Every one of them, this first."""
        return tuple(dict.fromkeys((self.home, *self.behind.values())))


def find_namespaces(prefixes: Sequence[str]) -> Namespaces:
    """Look for them; ``prefixes`` begin the names of pods' interfaces. Raises `EvidenceError`."""
    try:
        from pyroute2 import IPRoute  # type: ignore[import-untyped]
        from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]
    except ImportError as error:
        raise EvidenceError(f"{error.name or error} is not installed: install calico-debug[agent]") from None
    try:
        home = OWN.stat().st_ino
        with IPRoute() as kernel:
            links = list(kernel.get_links())
            ways = {
                link.get_attr("IFLA_IFNAME"): link.get_attr("IFLA_LINK_NETNSID")
                for link in links
                if link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == PAIR
                and link.get_attr("IFLA_IFNAME").startswith(tuple(prefixes))
            }
            wanted = {number for number in ways.values() if number is not None}
            inodes: dict[int, int] = {}
            for path in namespace_files() if wanted else ():
                if wanted <= inodes.keys():
                    break
                try:
                    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except OSError:
                    continue  # the process ended meanwhile
                try:
                    inodes.setdefault(kernel.get_netnsid(fd=descriptor)["nsid"], os.fstat(descriptor).st_ino)
                except NetlinkError:
                    continue
                finally:
                    os.close(descriptor)
    except (NetlinkError, OSError) as error:
        raise EvidenceError(f"the network namespaces of pods cannot be found ({error}); run as root") from None
    behind = {name: inodes[number] for name, number in ways.items() if number in inodes}
    hidden = tuple(name for name, number in ways.items() if number is not None and number not in inodes)
    ports = [port for link in links if (port := link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_VXLAN_PORT"))]
    return Namespaces(home, behind, hidden, ports[0] if ports else VXLAN_PORT)
