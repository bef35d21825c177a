"""Ends of flows: named by what outlives a restart of pods, and found again afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from ipaddress import ip_address
from typing import TYPE_CHECKING

from calico_debug.model.flow import protocol_name
from calico_debug.state.successors import lasting_labels, runs
from calico_debug.switch.model import RecordedEnd

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from calico_debug.model.cluster import Address, Pod
    from calico_debug.state.cluster import ClusterState
    from calico_debug.state.node import NodeState


def identity(end: RecordedEnd) -> Hashable:
    """Equal for ends that the same rules apply to on the same node: pods of one controller there are one."""
    if end.kind == "pod":
        return end.kind, end.namespace, frozenset(end.labels.items()), end.node, end.port, ":" in end.ip
    return end.kind, end.namespace, end.name, end.ip, end.port


def same_pods(one: RecordedEnd, other: RecordedEnd) -> bool:
    """Whether both are pods of one controller on one node, whatever the port."""
    return one.kind == other.kind == "pod" and identity(replace(one, port=None)) == identity(replace(other, port=None))


def pod_end(pod: Pod, address: Address, port: int | None = None) -> RecordedEnd:
    """A pod by one of its addresses."""
    return RecordedEnd("pod", str(address), port, pod.namespace, pod.name, lasting_labels(pod.labels), pod.node)


class Ends:
    """Names addresses of one cluster, and finds recorded ends in it."""

    def __init__(self, cluster: ClusterState, states: Mapping[str, NodeState]) -> None:
        """``states`` are asked for addresses that no object has."""
        self._cluster = cluster
        self._states = states

    def name(self, address: Address, port: int | None = None, protocol: int | None = None) -> RecordedEnd:
        """The end that has an address."""
        cluster, ip = self._cluster, str(address)
        if (pod := cluster.pod_by_address(address)) is not None:
            return pod_end(pod, address, port)
        word = None if protocol is None else protocol_name(protocol).upper()
        node = cluster.node_by_address(address)
        service = cluster.service_by_address(address, port, word)
        if service is not None and (node is None or service[1] is not None):
            return RecordedEnd("service", ip, port, service[0].namespace, service[0].name)
        own = node.name if node is not None else self._owner(address)
        return RecordedEnd("node", ip, port, name=own) if own else RecordedEnd("outside", ip, port)

    def find(self, end: RecordedEnd) -> RecordedEnd | None:
        """The end as it is now: a pod by its name, else a pod with its labels, of the same node if there is one.

        None when nothing like it is left.
        """
        if end.kind == "pod":
            return self._pod(end)
        if end.kind == "service":
            return self._service(end)
        return end

    def _pod(self, end: RecordedEnd) -> RecordedEnd | None:
        family = ip_address(end.ip).version
        same = self._cluster.pod(end.namespace, end.name)
        is_same = same is not None and runs(same) and lasting_labels(same.labels) == end.labels
        found: Sequence[Pod] = [same] if same is not None and is_same else ()
        if not found:
            alike = self._pods_by_labels.get((end.namespace, frozenset(end.labels.items())), ())
            found = sorted(alike, key=lambda pod: (pod.node != end.node, pod.name))
        for pod in found:
            address = next((one for one in pod.addresses if one.version == family), None)
            if address is not None:
                return pod_end(pod, address, end.port)
        return None

    @cached_property
    def _pods_by_labels(self) -> Mapping[tuple[str, frozenset[tuple[str, str]]], Sequence[Pod]]:
        found: dict[tuple[str, frozenset[tuple[str, str]]], list[Pod]] = {}
        for pod in self._cluster.pods:
            if runs(pod):
                found.setdefault((pod.namespace, frozenset(lasting_labels(pod.labels).items())), []).append(pod)
        return found

    def _service(self, end: RecordedEnd) -> RecordedEnd | None:
        service = self._cluster.service(end.namespace, end.name)
        if service is None:
            return None
        own = (*service.cluster_addresses, *service.external_addresses, *service.load_balancer_addresses)
        address = ip_address(end.ip)
        if address in own:
            return end
        place = next((one for one in service.cluster_addresses if one.version == address.version), None)
        if place is None:
            return None
        return RecordedEnd("service", str(place), end.port, end.namespace, end.name)

    def _owner(self, address: Address) -> str:
        return next((name for name, state in self._states.items() if state.is_local(address)), "")
