"""What policy is applied to, with every label that selectors see, and who has an address.

Pods: libcalico-go/lib/backend/k8s/conversion (conversion.go, workload_endpoint_default.go); host endpoints and network
sets: libcalico-go/lib/backend/syncersv1/updateprocessors; inheritance: felix/labelindex (v3.32.1; as in v3.28).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Final

from calico_debug.intent.convert_calico import NAMESPACE, NAMESPACE_PREFIX, SERVICE_ACCOUNT, SERVICE_ACCOUNT_PREFIX
from calico_debug.intent.fields import Unreadable, protocol
from calico_debug.intent.model import Endpoint, LabelledNets, NamedPort
from calico_debug.intent.nets import NetIndex
from calico_debug.model.cluster import Address, Cluster, HostEndpoint, NetworkSet, Pod

ORCHESTRATOR: Final = "projectcalico.org/orchestrator"
NAME: Final = "projectcalico.org/name"
LONGEST_ACCOUNT: Final = 62
"""A service account with a longer name is no label of its pods."""

ENDED: Final = frozenset({"Succeeded", "Failed", "Completed"})
"""Phases of pods that have given their addresses back."""


def endpoints(cluster: Cluster) -> tuple[Endpoint, ...]:
    """Every endpoint: pods with a node and an address of their own, then host endpoints."""
    pods = [_pod(pod, cluster) for pod in cluster.pods if _has_policy(pod)]
    return (*pods, *(_host(one) for one in cluster.host_endpoints))


def _has_policy(pod: Pod) -> bool:
    return bool(pod.node) and not pod.host_network and bool(pod.addresses) and pod.phase not in ENDED


def _pod(pod: Pod, cluster: Cluster) -> Endpoint:
    inherited, unknown = _namespace_labels(pod.namespace, cluster)
    own = {**pod.labels, NAMESPACE: pod.namespace, ORCHESTRATOR: "k8s"}
    profiles = [f"kns.{pod.namespace}"]
    if pod.service_account:
        profiles.append(f"ksa.{pod.namespace}.{pod.service_account}")
        if len(pod.service_account) <= LONGEST_ACCOUNT:
            own[SERVICE_ACCOUNT] = pod.service_account
        account = cluster.service_accounts.get((pod.namespace, pod.service_account))
        if account is not None or not cluster.service_accounts:
            inherited |= {f"{SERVICE_ACCOUNT_PREFIX}{key}": value for key, value in (account or {}).items()}
            inherited[SERVICE_ACCOUNT_PREFIX + NAME] = pod.service_account
        if account is None and not cluster.service_accounts:
            unknown.append(SERVICE_ACCOUNT_PREFIX)
    return Endpoint(
        kind="pod",
        namespace=pod.namespace,
        name=pod.name,
        node=pod.node,
        addresses=pod.addresses,
        labels={**inherited, **own},
        profiles=tuple(profiles),
        ports=tuple(_named_ports(pod.named_ports)),
        unknown=tuple(unknown),
    )


def _namespace_labels(namespace: str, cluster: Cluster) -> tuple[dict[str, str], list[str]]:
    """Labels that everything in a namespace inherits, and the prefix of those that evidence does not have."""
    labels = cluster.namespaces.get(namespace)
    name = {NAMESPACE_PREFIX + NAME: namespace}
    if labels is None:
        # Kubernetes gives every namespace this label
        return {**name, f"{NAMESPACE_PREFIX}kubernetes.io/metadata.name": namespace}, [NAMESPACE_PREFIX]
    return {**{f"{NAMESPACE_PREFIX}{key}": value for key, value in labels.items()}, **name}, []


def _host(one: HostEndpoint) -> Endpoint:
    return Endpoint(
        kind="host",
        namespace="",
        name=one.name,
        node=one.node,
        addresses=tuple(_addresses(one.expected_addresses)),
        labels=one.labels,
        profiles=one.profiles,
        ports=tuple(_named_ports((str(named), name, number) for named, name, number in one.ports)),
        interface=one.interface,
    )


def _addresses(texts: Iterable[str]) -> Iterator[Address]:
    for text in texts:
        try:
            yield ip_address(text)
        except ValueError:
            continue  # Felix leaves it out, too


def _named_ports(given: Iterable[tuple[str, str, int]]) -> Iterator[NamedPort]:
    for named, name, number in given:
        try:
            known = protocol(named)
        except Unreadable:
            continue  # Felix leaves it out, too
        if known is not None:
            yield NamedPort(name, known, number)


def network_sets(cluster: Cluster) -> tuple[LabelledNets, ...]:
    """Every network set with its labels: those of a namespace inherit its labels."""
    return tuple(_network_set(one, cluster) for one in cluster.network_sets)


def _network_set(one: NetworkSet, cluster: Cluster) -> LabelledNets:
    if not one.namespace:
        return LabelledNets("", one.name, one.nets, one.labels)
    inherited, unknown = _namespace_labels(one.namespace, cluster)
    labels = {**inherited, **one.labels, NAMESPACE: one.namespace}
    return LabelledNets(one.namespace, one.name, one.nets, labels, tuple(unknown))


class Owners:
    """Who has an address: endpoints by their own, network sets by their ranges."""

    def __init__(self, found: Iterable[Endpoint], sets: Iterable[LabelledNets]) -> None:
        """Index both."""
        self._endpoints: dict[Address, list[Endpoint]] = {}
        for endpoint in found:
            for address in endpoint.addresses:
                self._endpoints.setdefault(address, []).append(endpoint)
        self._sets = NetIndex((net, one) for one in sets for net in one.nets)
        self._answers: dict[Address, tuple[Endpoint | LabelledNets, ...]] = {}

    def of(self, address: Address) -> tuple[Endpoint | LabelledNets, ...]:
        """Endpoints that have the address, and network sets with a range that has it."""
        known = self._answers.get(address)
        if known is None:
            known = self._answers[address] = (*self._endpoints.get(address, ()), *self._sets.covering(address))
        return known

    def endpoints(self, address: Address) -> tuple[Endpoint, ...]:
        """Endpoints that have the address."""
        return tuple(self._endpoints.get(address, ()))

    def pod(self, address: Address) -> Endpoint | None:
        """The first pod that has the address."""
        return next((one for one in self._endpoints.get(address, ()) if one.kind == "pod"), None)


def named(found: Iterable[Endpoint]) -> Mapping[tuple[str, str, str], Endpoint]:
    """Endpoints by (kind, namespace, name)."""
    return {(one.kind, one.namespace, one.name): one for one in found}
