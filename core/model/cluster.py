"""The Kubernetes and Calico objects that give packets their names, from lists as ``kubectl get -A -o json`` prints.

Only what the project uses is kept; ``spec`` of policies stays as the API has it, since rules are quoted from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calico_debug.model.routing import Network

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod. ``ports`` maps (protocol name in upper case, container port name) to the number.

    ``named_ports`` are (protocol, name, number) of all containers, those too that run only at the start: Calico takes
    them all for a port of that name. ``workload`` is what made it, as in "Deployment web", "" when nothing did.
    """

    namespace: str
    name: str
    node: str
    addresses: tuple[Address, ...]
    host_network: bool = False
    phase: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    service_account: str = ""
    ports: Mapping[tuple[str, str], int] = field(default_factory=dict)
    container_ports: tuple[tuple[str, int], ...] = ()
    named_ports: tuple[tuple[str, str, int], ...] = ()
    workload: str = ""


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a service; ``node_port`` is 0 when there is none; ``protocol`` is "TCP", "UDP" or "SCTP"."""

    name: str
    protocol: str
    port: int
    target_port: int | str
    node_port: int = 0


@dataclass(frozen=True, slots=True)
class Backend:
    """One endpoint of a service port, from its EndpointSlices. ``port`` is after service translation."""

    address: Address
    port: int
    protocol: str
    port_name: str
    ready: bool
    node: str = ""
    pod: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """A service with every address that reaches it. ``type`` is ClusterIP, NodePort, LoadBalancer or ExternalName."""

    namespace: str
    name: str
    type: str
    cluster_addresses: tuple[Address, ...]
    ports: tuple[ServicePort, ...]
    external_addresses: tuple[Address, ...] = ()
    load_balancer_addresses: tuple[Address, ...] = ()
    backends: tuple[Backend, ...] = ()
    internal_policy: str = "Cluster"
    external_policy: str = "Cluster"


@dataclass(frozen=True, slots=True)
class Node:
    """A node with its own addresses (InternalIP first), and those of its tunnels where annotations give them."""

    name: str
    addresses: tuple[Address, ...]
    tunnel_addresses: tuple[Address, ...] = ()
    pod_cidrs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyObject:
    """A policy of any kind as the API has it.

    ``kind`` is NetworkPolicy or GlobalNetworkPolicy (Calico's), KubernetesNetworkPolicy, ClusterNetworkPolicy,
    AdminNetworkPolicy, BaselineAdminNetworkPolicy, or a Staged… kind; ``name`` is what kubectl shows.
    """

    kind: str
    namespace: str
    name: str
    tier: str
    order: float | None
    spec: Mapping[str, Any]
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tier:
    """A tier; ``default_action`` is Deny or Pass."""

    name: str
    order: float | None
    default_action: str = "Deny"


@dataclass(frozen=True, slots=True)
class HostEndpoint:
    """A host endpoint; ``interface`` is "*" for every interface of the node, "" when only addresses are expected.

    ``ports`` are (protocol as the API has it, name, number).
    """

    name: str
    node: str
    interface: str
    expected_addresses: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    ports: tuple[tuple[str | int, str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class FelixConfiguration:
    """Felix's settings: of every node ("default") or of one ("node.NAME"); ``spec`` as the API has it."""

    name: str
    spec: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NetworkSet:
    """A NetworkSet, or with ``namespace`` "" a GlobalNetworkSet: ranges that selectors find by labels."""

    namespace: str
    name: str
    nets: tuple[Network, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Every object that was found. ``missing`` lists the resources that evidence did not have, for the user.

    ``problems`` say which lists could not be read, and are empty here for that. ``namespaces`` are labels by name,
    ``service_accounts`` labels by (namespace, name); a cluster has some of both, so an empty one means that evidence
    does not have them.
    """

    pods: Sequence[Pod] = ()
    services: Sequence[Service] = ()
    nodes: Sequence[Node] = ()
    policies: Sequence[PolicyObject] = ()
    tiers: Sequence[Tier] = ()
    host_endpoints: Sequence[HostEndpoint] = ()
    network_sets: Sequence[NetworkSet] = ()
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    service_accounts: Mapping[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
