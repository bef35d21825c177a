"""Pods that were replaced by others of their workload, so that both have one name: that of the first state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from calico_debug.errors import UsageError
from calico_debug.state.endpoint_text import parse_endpoint
from calico_debug.state.ends import listed
from calico_debug.state.held import HeldCluster
from calico_debug.state.successors import Name, successors

if TYPE_CHECKING:
    from calico_debug.diff.model import FlowText
    from calico_debug.model.cluster import Pod, Service
    from calico_debug.model.flow import Endpoint, Flow
    from calico_debug.state.cluster import ClusterState


class Replaced:
    """Names of the second state's pods in the first, and back."""

    def __init__(self, before: ClusterState, after: ClusterState) -> None:
        """Pods are compared by their objects."""
        self._after: Mapping[Name, Name] = successors(before.pods, after.pods)
        self._before = {new: old for old, new in self._after.items()}

    def notes(self) -> Iterator[str]:
        """Who stands for whom."""
        if self._after:
            pairs = [f"{_text(old)} by {_text(new)}" for old, new in self._after.items()]
            yield f"{len(pairs)} of the pods were replaced by others alike, and go by their old names: {listed(pairs)}"

    def renamed(self, cluster: ClusterState) -> ClusterState:
        """The second state with the names of the first."""
        if not self._before:
            return cluster
        pods = tuple(self._pod(pod) for pod in cluster.pods)
        services = tuple(self._service(service) for service in cluster.services)
        return HeldCluster(replace(cluster.cluster, pods=pods, services=services), cluster)

    def real(self, flow: Flow) -> Flow:
        """A flow of the renamed state, as it is."""
        return replace(flow, source=self._end(flow.source), destination=self._end(flow.destination))

    def first_names(self, flow: FlowText, namespace: str | None) -> FlowText:
        """A flow that may name pods as the second state does. ``namespace`` is that of names without one."""
        return replace(
            flow, source=self._first(flow.source, namespace), destination=self._first(flow.destination, namespace)
        )

    def _pod(self, pod: Pod) -> Pod:
        old = self._before.get((pod.namespace, pod.name))
        return pod if old is None else replace(pod, name=old[1])

    def _service(self, service: Service) -> Service:
        if not any(one.pod in self._before for one in service.backends):
            return service
        backends = (
            replace(one, pod=self._before.get(one.pod, one.pod)) if one.pod else one for one in service.backends
        )
        return replace(service, backends=tuple(backends))

    def _end(self, end: Endpoint) -> Endpoint:
        return end if end.pod is None else replace(end, pod=self._after.get(end.pod, end.pod))

    def _first(self, text: str, namespace: str | None) -> str:
        try:
            asked = parse_endpoint(text, namespace)
        except UsageError:
            return text  # whoever resolves it says what is wrong
        if asked.kind != "pod":
            return text
        found = [old for new, old in self._before.items() if new == (asked.namespace or new[0], asked.name)]
        if len(found) != 1:
            return text
        port = "" if asked.port is None else f":{asked.port}"
        return f"pod/{_text(found[0])}{port}"


def _text(name: Name) -> str:
    return "/".join(name)
