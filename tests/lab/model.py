"""What the lab's cluster is made of, as plain data: pods, nodes, services and Calico's policy objects.

Selectors are evaluated here over labels, in the few forms that the generator writes; everything that a packet can
meet (rules, sets, verdict maps) is rendered from this, and so are the cluster objects that the product reads.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Protocol = Literal["tcp", "udp", "icmp", "icmpv6", "sctp"]
Action = Literal["Allow", "Deny", "Pass", "Log"]
Direction = Literal["ingress", "egress"]
Release = Literal["v3.29", "v3.30", "v3.31", "v3.32"]


@dataclass(frozen=True, slots=True)
class NamedPort:
    name: str
    protocol: str
    number: int


@dataclass(frozen=True, slots=True)
class Pod:
    """A workload. Its host interface is named as Calico does: cali + 11 hex digits of SHA-1 of "ns.name".

    ``prefix`` is Felix's InterfacePrefix; other CNI plugins have their own (AKS: azv).
    """

    namespace: str
    name: str
    node: str
    v4: str
    v6: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    ports: tuple[NamedPort, ...] = ()
    service_account: str = "default"
    prefix: str = "cali"

    @property
    def place(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def interface(self) -> str:
        """libcalico-go/lib/backend/k8s/conversion/workload_endpoint_default.go, VethNameForWorkload."""
        return self.prefix + hashlib.sha1(f"{self.namespace}.{self.name}".encode()).hexdigest()[:11]  # noqa: S324

    @property
    def profiles(self) -> tuple[str, ...]:
        return (f"kns.{self.namespace}", f"ksa.{self.namespace}.{self.service_account}")

    def all_labels(self) -> dict[str, str]:
        """The pod's labels and those Calico adds."""
        return {
            **self.labels,
            "projectcalico.org/namespace": self.namespace,
            "projectcalico.org/orchestrator": "k8s",
            "projectcalico.org/serviceaccount": self.service_account,
        }

    def address(self, version: int) -> str:
        return self.v4 if version == 4 else self.v6


@dataclass(frozen=True, slots=True)
class Node:
    name: str
    v4: str
    v6: str
    pods_v4: str
    pods_v6: str
    tunnel: str = ""

    def address(self, version: int) -> str:
        return self.v4 if version == 4 else self.v6


@dataclass(frozen=True, slots=True)
class Selector:
    """``all()``, ``key in {…}`` or ``key not in {…}``; with ``namespace``, only of that namespace."""

    key: str = ""
    values: tuple[str, ...] = ()
    negated: bool = False
    namespace: str = ""

    def __str__(self) -> str:
        """The canonical text of libcalico-go's selector parser, whose hash is the set's id."""
        own = "all()"
        if self.key and len(self.values) == 1:
            own = f'{self.key} {"!=" if self.negated else "=="} "{self.values[0]}"'
        elif self.key:
            listed = ", ".join(f'"{value}"' for value in sorted(self.values))
            own = f"{self.key} {'not in' if self.negated else 'in'} {{{listed}}}"
        if not self.namespace:
            return own
        return f'({own} && projectcalico.org/namespace == "{self.namespace}")'

    def matches(self, labels: Mapping[str, str]) -> bool:
        if self.namespace and labels.get("projectcalico.org/namespace") != self.namespace:
            return False
        if not self.key:
            return True
        return (labels.get(self.key) in self.values) is not self.negated


PortSpec = int | tuple[int, int] | str
"""A number, an inclusive range, or the name of a container port."""


@dataclass(frozen=True, slots=True)
class Entity:
    """One side of a rule: every criterion given must hold, each list means any-of (``not_…``: none-of)."""

    nets: tuple[str, ...] = ()
    not_nets: tuple[str, ...] = ()
    selector: Selector | None = None
    not_selector: Selector | None = None
    ports: tuple[PortSpec, ...] = ()
    not_ports: tuple[PortSpec, ...] = ()
    service: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    action: Action
    protocol: str | int | None = None
    not_protocol: str | int | None = None
    source: Entity = Entity()
    destination: Entity = Entity()
    icmp_type: int | None = None
    icmp_code: int | None = None
    not_icmp_type: int | None = None
    ip_version: int | None = None
    annotations: tuple[tuple[str, str], ...] = ()


PolicyKind = Literal[
    "NetworkPolicy", "GlobalNetworkPolicy", "KubernetesNetworkPolicy", "KubernetesClusterNetworkPolicy"
]


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy; ``name`` is the API object's. None for a direction means that the policy does not apply to it."""

    kind: PolicyKind
    name: str
    tier: str = "default"
    namespace: str = ""
    order: float | None = None
    selector: Selector = Selector()
    ingress: tuple[Rule, ...] | None = None
    egress: tuple[Rule, ...] | None = None
    staged: bool = False
    pre_dnat: bool = False
    apply_on_forward: bool = False
    do_not_track: bool = False

    def rules(self, direction: Direction) -> tuple[Rule, ...] | None:
        return self.ingress if direction == "ingress" else self.egress

    def selects(self, labels: Mapping[str, str]) -> bool:
        if self.namespace and labels.get("projectcalico.org/namespace") != self.namespace:
            return False
        return self.selector.matches(labels)

    def full_selector(self) -> str:
        return str(replace(self.selector, namespace=self.namespace))


@dataclass(frozen=True, slots=True)
class Tier:
    name: str
    order: float | None = None
    default_action: Literal["Deny", "Pass"] = "Deny"


@dataclass(frozen=True, slots=True)
class Profile:
    """None for a direction: no rules. A namespace's own profile allows everything, a service account's nothing."""

    name: str
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class HostEndpoint:
    """``interface`` "*" is a wildcard host endpoint."""

    name: str
    node: str
    interface: str = "eth0"
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    profiles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkSet:
    """A GlobalNetworkSet."""

    name: str
    nets: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class ServicePort:
    port: int
    target_port: int
    protocol: str = "tcp"
    name: str = ""
    node_port: int = 0


@dataclass(frozen=True, slots=True)
class Service:
    """``backends`` are pods ("ns/name"), names of nodes (a backend in the host's network), or IPv4 addresses."""

    namespace: str
    name: str
    ports: tuple[ServicePort, ...]
    cluster_v4: str = ""
    cluster_v6: str = ""
    backends: tuple[str, ...] = ()
    external_addresses: tuple[str, ...] = ()
    load_balancer: tuple[str, ...] = ()
    source_ranges: tuple[str, ...] = ()
    external_policy: Literal["Cluster", "Local"] = "Cluster"
    internal_policy: Literal["Cluster", "Local"] = "Cluster"
    affinity_seconds: int = 0

    @property
    def kind(self) -> str:
        if self.load_balancer:
            return "LoadBalancer"
        return "NodePort" if any(port.node_port for port in self.ports) else "ClusterIP"

    def cluster_address(self, version: int) -> str:
        return self.cluster_v4 if version == 4 else self.cluster_v6


_CONTROL_PLANE = tuple(("tcp", port) for port in (179, 2379, 2380, 5473, 6443, 6666, 6667))
FAILSAFE_IN = (("tcp", 22), ("udp", 68), *_CONTROL_PLANE)
FAILSAFE_OUT = (("udp", 53), ("udp", 67), *_CONTROL_PLANE)
"""Felix's defaults, felix/config/config_params.go."""


@dataclass(frozen=True, slots=True)
class Felix:
    """Felix's configuration, as far as it changes rules. ``release`` picks the shape."""

    release: Release = "v3.32"
    mark_mask: int = 0xFFFF0000
    deny_action: Literal["Drop", "Reject"] = "Drop"
    allow_action: Literal["Accept", "Return"] = "Accept"
    endpoint_to_host: Literal["Accept", "Drop", "Return", "Reject"] = "Accept"
    flow_logs: bool = False
    group_policies: bool = True
    vxlan: bool = False
    nat_outgoing: bool = True
    drop_invalid: bool = True
    service_cidrs_blocked: tuple[str, ...] = ()
    failsafe_in: tuple[tuple[str, int], ...] = FAILSAFE_IN
    failsafe_out: tuple[tuple[str, int], ...] = FAILSAFE_OUT


@dataclass(frozen=True, slots=True)
class Model:
    """Everything that decides what happens to packets in the lab, apart from its wiring (tests.lab.topology)."""

    tiers: tuple[Tier, ...] = (Tier("default", 1_000_000),)
    policies: tuple[Policy, ...] = ()
    profiles: tuple[Profile, ...] = ()
    host_endpoints: tuple[HostEndpoint, ...] = ()
    network_sets: tuple[NetworkSet, ...] = ()
    services: tuple[Service, ...] = ()
    felix: Felix = Felix()
    kube_proxy_first: bool = False
