"""IP sets: who is a member of what a rule names. Sets are found by their id and created when first used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.lab import names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.lab.model import Model, Selector
    from tests.lab.topology import Topology


@dataclass(frozen=True, slots=True)
class NftSet:
    name: str
    type: str
    interval: bool
    elements: tuple[str, ...]

    def text(self) -> str:
        lines = [f"  set {self.name} {{", f"    type {self.type}"]
        if self.interval:
            lines.append("    flags interval")
        if self.elements:
            lines.append(f"    elements = {{ {', '.join(self.elements)} }}")
        return "\n".join([*lines, "  }"])


@dataclass(slots=True)
class Sets:
    """The sets of one table, by name."""

    topology: Topology
    model: Model
    version: int
    by_name: dict[str, NftSet] = field(default_factory=dict)

    def static(self, identity: str, elements: Iterable[str], *, interval: bool = True) -> str:
        return self._add(identity, self._address_type(), interval, elements)

    def selector(self, selector: Selector) -> str:
        """Pods, host endpoints and network sets whose labels match."""
        return self._add(names.set_id("s", str(selector)), self._address_type(), True, self._members(selector))

    def named_port(self, port: str, protocol: str, selector: Selector | None) -> str:
        """(address, protocol, number) of every endpoint with a container port of that name."""
        chosen = str(selector) if selector else "all()"
        identity = names.set_id("n", f"{names.set_id('s', chosen)},{protocol},{port}")
        elements = [
            f"{pod.address(self.version)} . {protocol} . {named.number}"
            for pod in self.topology.pods
            for named in pod.ports
            if named.name == port
            and named.protocol == protocol
            and (not selector or selector.matches(pod.all_labels()))
        ]
        return self._add(identity, f"{self._address_type()} . inet_proto . inet_service", False, elements)

    def service(self, namespace: str, name: str) -> str:
        """A service's backends with protocol and port: what the policy sees after translation."""
        elements = [
            f"{self.topology.address(place, self.version)} . {port.protocol} . {port.target_port}"
            for service in self.model.services
            if (service.namespace, service.name) == (namespace, name)
            for place in service.backends
            for port in service.ports
        ]
        identity = names.set_id("svc", f"{namespace}/{name}")
        return self._add(identity, f"{self._address_type()} . inet_proto . inet_service", False, elements)

    def _members(self, selector: Selector) -> list[str]:
        found = [p.address(self.version) for p in self.topology.pods if selector.matches(p.all_labels())]
        hosts = [endpoint.node for endpoint in self.model.host_endpoints if selector.matches(endpoint.labels)]
        found += [self.topology.node(host).address(self.version) for host in hosts]
        for network_set in self.model.network_sets:
            if selector.matches(network_set.labels):
                found += [net for net in network_set.nets if (":" in net) == (self.version == 6)]
        return found

    def _address_type(self) -> str:
        return "ipv4_addr" if self.version == 4 else "ipv6_addr"

    def _add(self, identity: str, kind: str, interval: bool, elements: Iterable[str]) -> str:
        name = names.set_name(identity, self.version)
        self.by_name[name] = NftSet(name, kind, interval, tuple(dict.fromkeys(elements)))
        return name
