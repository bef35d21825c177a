"""Policies of endpoints: those that the API's selectors give against those in chains and programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from calico_debug.drift.model import Drift
from calico_debug.state.dataplane import EBPF

if TYPE_CHECKING:
    from calico_debug.explain.listing.policy_view import EndpointView
    from calico_debug.intent.applies import Applicability, AppliedTier
    from calico_debug.intent.model import Endpoint
    from calico_debug.model.explanation import PolicyRef

STARTING = frozenset({"Pending", ""})
"""Phases of pods whose network may not be there yet."""

UNNAMED = frozenset({"bpf-policy-debug-missing", "bpf-policy-debug-stale"})
"""Findings of programs that were read from their code alone, which does not tell of policies without rules."""

BEHIND = "Felix has not caught up with the API, or cannot: look at its log and its metric felix_resyncs_started"
"""Why a node may lag behind."""


class PolicyDrift:
    """Compares the endpoints of one node. `not_compared` and `compared` grow with each."""

    def __init__(self, node: str, applicability: Applicability) -> None:
        """``applicability`` is the whole cluster's."""
        self.not_compared: dict[str, None] = {}
        self.compared = 0
        self._node = node
        self._intent = applicability

    def compare(self, views: Sequence[EndpointView]) -> Iterator[Drift]:
        """The differences of all endpoints. ``views`` are what the node is programmed with."""
        yield from self._endpoints(views)
        told: set[tuple[str, str, str, str]] = set()
        for view in views:
            if view.problem or view.pod is None or view.stage:
                continue
            endpoint = self._intent.pod(*view.pod)
            if endpoint is None:
                continue
            if unnamed := next((one.message for one in view.findings if one.code in UNNAMED), ""):
                self._leave_out(f"policies of pod {endpoint}: {unnamed}")
                continue
            for drift in self._compare(view, endpoint):
                # The same for both IP versions is said once.
                if (key := (drift.code, drift.object, drift.message, drift.node)) not in told:
                    told.add(key)
                    yield drift

    def _endpoints(self, views: Sequence[EndpointView]) -> Iterator[Drift]:
        programmed = {view.pod for view in views if view.pod is not None and not view.problem}
        unread = {view.pod: view.problem for view in views if view.pod is not None and view.unread}
        phases = {(pod.namespace, pod.name): pod.phase for pod in self._intent.cluster.pods}
        for endpoint in self._intent.endpoints:
            pod = (endpoint.namespace, endpoint.name)
            if endpoint.kind != "pod" or endpoint.node != self._node or pod in programmed:
                continue
            if pod in unread:
                self._leave_out(f"policies of pod {'/'.join(pod)}: {unread[pod]}")
                continue
            if phases.get(pod, "") in STARTING:
                self._leave_out(f"pod {'/'.join(pod)}: it is starting")
                continue
            yield Drift(
                "endpoint-missing",
                "error",
                self._node,
                f"pod {'/'.join(pod)}",
                "the API has the pod on this node, and no interface of the node has its policy",
                "the CNI plugin has not finished, another one made the interface, or Felix does not know the pod",
            )
        for view in views:
            if view.kind == "pod" and view.pod is None and view.direction == "egress" and self._intent.cluster.pods:
                yield Drift(
                    "endpoint-left",
                    "warning",
                    self._node,
                    f"interface {view.interface}",
                    "the interface has policy, and no pod of the API has an address behind it",
                    "the pod is gone and its workload endpoint is left over, or it has no address yet",
                )

    def _compare(self, view: EndpointView, endpoint: Endpoint) -> Iterator[Drift]:
        direction = view.direction
        assert direction in ("ingress", "egress")
        intended = self._intent.tiers_of(endpoint, "ingress" if direction == "ingress" else "egress")
        self.compared += 1
        unsure = {
            _key(applied.policy.key): applied.doubt for tier in intended for applied in tier.enforced if applied.doubt
        }
        for name, doubt in unsure.items():
            self._leave_out(f"{_words(name)} at pod {endpoint}: {doubt}")
        wanted = [name for tier in intended for name in _names(tier) if name not in unsure]
        present = [_ref(policy.ref) for tier in view.tiers for policy in tier.policies]
        here = f"pod {endpoint}"
        for name in wanted:
            if name not in present:
                yield Drift(
                    "policy-missing",
                    "error",
                    self._node,
                    here,
                    f"{_words(name)} selects the pod for {direction} and is not programmed",
                    BEHIND,
                )
        of_hosts = self._of_hosts if view.dataplane == EBPF else frozenset()
        for name in present:
            if name not in wanted and name not in unsure and name not in of_hosts:
                yield self._left(name, endpoint, direction)
        both = [name for name in wanted if name in present]
        there = [name for name in present if name in wanted]
        if both != there:
            yield Drift(
                "policy-order",
                "error",
                self._node,
                here,
                f"{direction} asks {_list(there)}; the API's order is {_list(both)}",
                "the order of a policy or tier was changed, and Felix has not caught up",
            )

    @cached_property
    def _of_hosts(self) -> frozenset[_Name]:
        """Policies of the node's host endpoints for all interfaces: eBPF programs of pods ask those, too."""
        hosts = [one for one in self._intent.endpoints if one.node == self._node and one.interface == "*"]
        return frozenset(
            _key(policy.key) for policy in self._intent.policies for host in hosts if self._intent.selects(policy, host)
        )

    def _left(self, name: _Name, endpoint: Endpoint, direction: str) -> Drift:
        known = any(_key(policy.key) == name for policy in self._intent.policies)
        why = (
            f"is programmed for {direction}, and it does not select the pod or is not for {direction}"
            if known
            else f"is programmed for {direction}, and the API has no such policy"
        )
        cause = BEHIND if known else f"the policy was deleted or renamed, or evidence of it is missing. {BEHIND}"
        return Drift("policy-left", "error", self._node, f"pod {endpoint}", f"{_words(name)} {why}", cause)

    def _leave_out(self, text: str) -> None:
        self.not_compared.setdefault(f"{self._node}: {text}")


_Name = tuple[str, str, str]
"""Kind, namespace, name."""


def _key(key: tuple[str, str, str]) -> _Name:
    return (key[0], key[1], key[2])


def _ref(ref: PolicyRef) -> _Name:
    return (ref.kind, ref.namespace, ref.name)


def _names(tier: AppliedTier) -> list[_Name]:
    return [_key(applied.policy.key) for applied in tier.enforced]


def _words(name: _Name) -> str:
    kind, namespace, own = name
    return f"{kind} {namespace}/{own}" if namespace else f"{kind} {own}"


def _list(names: Sequence[_Name]) -> str:
    return ", ".join(f"{namespace}/{own}" if namespace else own for _, namespace, own in names)
