"""Pods that took the place of others: those of the same workload, or with all labels that outlive a pod."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from calico_debug.decode.kubernetes import TEMPLATE_HASH
from calico_debug.state.cluster import ENDED

if TYPE_CHECKING:
    from calico_debug.model.cluster import Pod

OF_ONE_POD: Final = frozenset(
    {
        "apps.kubernetes.io/pod-index",
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-completion-index",
        "controller-revision-hash",
        "controller-uid",
        "pod-template-generation",
        TEMPLATE_HASH,
        "statefulset.kubernetes.io/pod-name",
    }
)
"""Labels that controllers give to each pod, or to each generation of pods (Kubernetes, well-known labels)."""

Name = tuple[str, str]
"""Namespace and name."""


def lasting_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Those of a pod's labels that its successors have, too."""
    return {key: value for key, value in labels.items() if key not in OF_ONE_POD}


def runs(pod: Pod) -> bool:
    """Whether the pod has addresses of its own."""
    return bool(pod.addresses) and not pod.host_network and pod.phase not in ENDED


def successors(before: Iterable[Pod], after: Iterable[Pod]) -> Mapping[Name, Name]:
    """For pods that are there only ``before``, one that is there only ``after``, each at most once.

    It is of the same workload, or else has the same labels, of which there is one at least; one on the same node first.
    """
    old, new = ({(pod.namespace, pod.name): pod for pod in pods if runs(pod)} for pods in (before, after))
    gone = [pod for name, pod in sorted(old.items()) if name not in new]
    come = {name: pod for name, pod in sorted(new.items()) if name not in old}
    found: dict[Name, Name] = {}
    for same in (_workload, _labels):
        for on_its_node in (True, False):
            free: dict[Hashable, list[Name]] = {}
            for name, pod in come.items():
                free.setdefault(_key(pod, same, on_its_node), []).append(name)
            for pod in gone:
                own = pod.namespace, pod.name
                fitting = free.get(_key(pod, same, on_its_node))
                if own not in found and same(pod) and fitting:
                    found[own] = fitting.pop(0)
                    del come[found[own]]
    return found


def _workload(pod: Pod) -> Hashable:
    return pod.workload


def _labels(pod: Pod) -> Hashable:
    return frozenset(lasting_labels(pod.labels).items())


def _key(pod: Pod, same: Callable[[Pod], Hashable], on_its_node: bool) -> Hashable:
    return pod.namespace, same(pod), pod.node if on_its_node else ""
