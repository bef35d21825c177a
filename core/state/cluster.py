"""The cluster's objects, each list decoded when first asked for, with the indices that questions need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TypeVar

from calico_debug.decode import kubernetes
from calico_debug.decode.policies import CALICO_GROUPS, POLICY_SOURCES, PolicySource, decode_policy
from calico_debug.errors import EvidenceError
from calico_debug.evidence.contents import CLUSTER_FILES
from calico_debug.evidence.source import EvidenceSource
from calico_debug.model.cluster import (
    Address,
    Backend,
    Cluster,
    FelixConfiguration,
    HostEndpoint,
    NetworkSet,
    Node,
    Pod,
    PolicyObject,
    Service,
    ServicePort,
    Tier,
)
from calico_debug.model.routing import Network

Item = TypeVar("Item")

ENDED = frozenset({"Succeeded", "Failed"})
"""Phases of a pod whose containers have ended for good: its address may be another pod's by now."""


class ClusterState:
    """What a source of evidence knows of the cluster.

    Nothing here raises for evidence that is missing or damaged: the part is empty, and `notes` or `problem` say why.
    """

    def __init__(self, source: EvidenceSource) -> None:
        """Nothing is read yet."""
        self._source = source
        self._notes: dict[str, None] = {}
        self._problems: dict[str, str] = {}
        self._policies: dict[PolicySource, tuple[PolicyObject, ...]] = {}

    # --------------------------------------------------------------------------------------------- what is known

    @property
    def source(self) -> EvidenceSource:
        """What the objects are read from."""
        return self._source

    @property
    def origin(self) -> str:
        """Where the objects are from, for messages."""
        return self._source.origin

    @property
    def notes(self) -> tuple[str, ...]:
        """Damaged files and objects met so far, one sentence each. Missing files are in `missing`."""
        return tuple(self._notes)

    @property
    def problems(self) -> tuple[str, ...]:
        """The notes that say why a list could not be read."""
        return tuple(dict.fromkeys(self._problems.values()))

    @cached_property
    def files(self) -> frozenset[str]:
        """The lists that evidence has."""
        return frozenset(self._source.cluster_files())

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """The files that a trace would profit from and that evidence does not have."""
        return tuple(file for file in CLUSTER_FILES if file not in self.files)

    def problem(self, file: str) -> str:
        """Why a list could not be read ("" when it could): the message of the error, with its remedy."""
        if file not in self._problems and file not in self.files:
            try:
                self._source.read_cluster(file)
            except EvidenceError as error:
                return str(error)
        return self._problems.get(file, "")

    @cached_property
    def cluster(self) -> Cluster:
        """Everything decoded at once."""
        whole = Cluster(
            pods=self.pods,
            services=self.services,
            nodes=self.nodes,
            policies=self.policies(),
            tiers=self.tiers,
            host_endpoints=self.host_endpoints,
            network_sets=self.network_sets,
            namespaces=self.namespaces,
            service_accounts=self.service_accounts,
            missing=self.missing,
        )
        return replace(whole, problems=self.problems)

    # ------------------------------------------------------------------------------------------------------ pods

    @cached_property
    def pods(self) -> Sequence[Pod]:
        """Every pod, ended ones too."""
        return self._list(("pods.json",), kubernetes.decode_pod)

    def pod(self, namespace: str, name: str) -> Pod | None:
        """The pod of that name."""
        return self._pods_by_name.get((namespace, name))

    def pods_named(self, name: str) -> Sequence[Pod]:
        """The pods of that name in every namespace."""
        return [pod for pod in self.pods if pod.name == name]

    def pod_by_address(self, address: Address) -> Pod | None:
        """The pod whose own address it is. A host-network pod's address is its node's, an ended pod has none."""
        return self._pods_by_address.get(address)

    @cached_property
    def _pods_by_name(self) -> Mapping[tuple[str, str], Pod]:
        return {(pod.namespace, pod.name): pod for pod in self.pods}

    @cached_property
    def _pods_by_address(self) -> Mapping[Address, Pod]:
        owners: dict[Address, Pod] = {}
        for pod in self.pods:
            if pod.host_network or pod.phase in ENDED:
                continue
            for address in pod.addresses:
                other = owners.setdefault(address, pod)
                if other is not pod:
                    self._note(
                        f"{address} is the address of pod {other.namespace}/{other.name} and of {pod.namespace}/"
                        f"{pod.name} in {self.origin}: the first is meant"
                    )
        return owners

    # -------------------------------------------------------------------------------------------------- services

    @cached_property
    def services(self) -> Sequence[Service]:
        """Every service with its backends."""
        services = self._list(("services.json",), kubernetes.decode_service)
        backends: dict[tuple[str, str], list[Backend]] = {}
        for service, found in self._slices():
            backends.setdefault(service, []).extend(found)
        return [replace(s, backends=tuple(dict.fromkeys(backends.get((s.namespace, s.name), ())))) for s in services]

    def service(self, namespace: str, name: str) -> Service | None:
        """The service of that name."""
        return self._services_by_name.get((namespace, name))

    def services_named(self, name: str) -> Sequence[Service]:
        """The services of that name in every namespace."""
        return [service for service in self.services if service.name == name]

    def service_by_address(
        self, address: Address, port: int | None = None, protocol: str | None = None
    ) -> tuple[Service, ServicePort | None] | None:
        """The service that has the address as cluster, external or load balancer address, and its port.

        ``protocol`` is "TCP", "UDP" or "SCTP". A service that has the address and not the port comes with None, which
        is also what several services of one address give when none has the port. None when the address is no service's.
        """
        owners = self._services_by_address.get(address, ())
        for service in owners:
            for candidate in service.ports:
                if candidate.port == port and protocol in (None, candidate.protocol):
                    return service, candidate
        return (owners[0], None) if owners else None

    def service_by_node_port(self, port: int, protocol: str) -> tuple[Service, ServicePort] | None:
        """The service behind a node port. ``protocol`` is "TCP", "UDP" or "SCTP"."""
        return self._node_ports.get((port, protocol))

    @cached_property
    def _services_by_name(self) -> Mapping[tuple[str, str], Service]:
        return {(service.namespace, service.name): service for service in self.services}

    @cached_property
    def _services_by_address(self) -> Mapping[Address, Sequence[Service]]:
        owners: dict[Address, list[Service]] = {}
        for service in self.services:
            own = (*service.cluster_addresses, *service.external_addresses, *service.load_balancer_addresses)
            for address in dict.fromkeys(own):
                owners.setdefault(address, []).append(service)
        return owners

    @cached_property
    def _node_ports(self) -> Mapping[tuple[int, str], tuple[Service, ServicePort]]:
        return {
            (port.node_port, port.protocol): (service, port)
            for service in self.services
            for port in service.ports
            if port.node_port
        }

    def _slices(self) -> Sequence[tuple[tuple[str, str], tuple[Backend, ...]]]:
        file = "endpointslices.discovery.k8s.io.json"
        if file in self.files or "endpoints.json" not in self.files:
            return self._list((file,), kubernetes.decode_endpoint_slice)
        return self._list(("endpoints.json",), kubernetes.decode_endpoints)

    # ----------------------------------------------------------------------------------------------------- nodes

    @cached_property
    def nodes(self) -> Sequence[Node]:
        """Every node."""
        return self._list(("nodes.json",), kubernetes.decode_node)

    def node(self, name: str) -> Node | None:
        """The node of that name."""
        return next((node for node in self.nodes if node.name == name), None)

    def node_by_address(self, address: Address) -> Node | None:
        """The node that has the address, or a tunnel that ends in it."""
        return self._nodes_by_address.get(address)

    @cached_property
    def _nodes_by_address(self) -> Mapping[Address, Node]:
        owners: dict[Address, Node] = {}
        for node in self.nodes:
            for address in (*node.addresses, *node.tunnel_addresses):
                owners.setdefault(address, node)
        return owners

    # ---------------------------------------------------------------------------------------------------- policy

    def policies(self, kind: str | None = None) -> Sequence[PolicyObject]:
        """The policies of a kind (`PolicyObject.kind`), or of every kind, staged ones too."""
        found: list[PolicyObject] = []
        for source in POLICY_SOURCES:
            if kind in (None, source.kind):
                if source not in self._policies:
                    decode = partial(decode_policy, source=source)
                    self._policies[source] = tuple(self._list(source.files, decode))
                found.extend(self._policies[source])
        return found

    @cached_property
    def tiers(self) -> Sequence[Tier]:
        """Every tier that evidence names."""
        return self._list(_calico_files("tiers"), kubernetes.decode_tier)

    @cached_property
    def host_endpoints(self) -> Sequence[HostEndpoint]:
        """Every host endpoint."""
        return self._list(_calico_files("hostendpoints"), kubernetes.decode_host_endpoint)

    @cached_property
    def namespaces(self) -> Mapping[str, Mapping[str, str]]:
        """Labels of every namespace by its name."""
        return dict(self._list(("namespaces.json",), kubernetes.decode_namespace))

    @cached_property
    def service_accounts(self) -> Mapping[tuple[str, str], Mapping[str, str]]:
        """Labels of every service account by (namespace, name)."""
        return dict(self._list(("serviceaccounts.json",), kubernetes.decode_service_account))

    @cached_property
    def pools(self) -> Sequence[Network]:
        """The ranges of Calico's IP pools."""
        return self._list(_calico_files("ippools"), kubernetes.decode_pool)

    @cached_property
    def felix_configurations(self) -> Sequence[FelixConfiguration]:
        """Felix's settings as the API has them: those of all nodes ("default"), and of single ones ("node.NAME")."""
        return self._list(_calico_files("felixconfigurations"), kubernetes.decode_felix_configuration)

    @cached_property
    def network_sets(self) -> Sequence[NetworkSet]:
        """Every network set, the global ones first."""
        return [
            one
            for resource in ("globalnetworksets", "networksets")
            for one in self._list(_calico_files(resource), kubernetes.decode_network_set)
        ]

    # ------------------------------------------------------------------------------------------------- internals

    def _note(self, text: str) -> None:
        self._notes.setdefault(text)

    def _list(self, files: Sequence[str], decode: Callable[[kubernetes.Object], Item]) -> Sequence[Item]:
        """The objects of the first of ``files`` that is there; the others show the same objects."""
        file = next((file for file in files if file in self.files), None)
        if file is None:
            return ()
        what = f"cluster/{file} of {self.origin}"
        try:
            decoded = kubernetes.decode_objects(self._source.read_cluster(file), what, decode)
        except EvidenceError as error:
            self._problems[file] = str(error)
            self._note(str(error))
            return ()
        for note in decoded.notes:
            self._note(note)
        return decoded.items


def load_cluster(source: EvidenceSource) -> ClusterState:
    """The cluster as ``source`` knows it; each list is read when it is first asked for."""
    return ClusterState(source)


def _calico_files(resource: str) -> Sequence[str]:
    return [f"{resource}.{group}.json" for group in CALICO_GROUPS]
