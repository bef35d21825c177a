"""Who took whose place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from calico_debug.model.cluster import Pod
from calico_debug.state.successors import Name, lasting_labels, runs, successors
from tests.intent.clusters import pod


def of(workload: str, *pods: Pod) -> tuple[Pod, ...]:
    return tuple(replace(one, workload=workload) for one in pods)


def names(found: Mapping[Name, Name]) -> dict[str, str]:
    return {"/".join(old): "/".join(new) for old, new in found.items()}


def test_what_a_controller_writes_does_not_last() -> None:
    labels = {"app": "web", "pod-template-hash": "x", "statefulset.kubernetes.io/pod-name": "web-0"}
    assert lasting_labels(labels) == {"app": "web"}


def test_pods_without_an_address_of_their_own_do_not_run() -> None:
    one = pod("shop/web-1", 1)
    assert runs(one)
    assert not any(runs(other) for other in (replace(one, addresses=()), replace(one, host_network=True)))
    assert not runs(replace(one, phase="Succeeded"))


def test_those_of_a_workload_though_its_labels_changed() -> None:
    before = of("Deployment web", pod("shop/web-a", 1, app="web", version="1"))
    after = of("Deployment web", pod("shop/web-b", 2, app="web", version="2"))
    assert names(successors(before, after)) == {"shop/web-a": "shop/web-b"}


def test_those_with_the_same_labels_where_the_workload_is_not_known() -> None:
    before = (pod("shop/web-a", 1, app="web", **{"pod-template-hash": "a"}),)
    after = (pod("shop/web-b", 2, app="web", **{"pod-template-hash": "b"}), pod("shop/web-c", 3, app="web2"))
    assert names(successors(before, after)) == {"shop/web-a": "shop/web-b"}


def test_neither_without_labels_nor_of_another_namespace() -> None:
    before = pod("shop/a", 1), pod("shop/web-a", 2, app="web")
    after = pod("shop/b", 1), pod("bank/web-b", 2, app="web")
    assert successors(before, after) == {}


def test_one_on_the_same_node_first_and_each_once() -> None:
    before = of("DaemonSet log", pod("ops/log-1", 1, "n1", app="log"), pod("ops/log-2", 2, "n2", app="log"))
    after = of("DaemonSet log", pod("ops/log-3", 3, "n2", app="log"), pod("ops/log-4", 4, "n3", app="log"))
    assert names(successors(before, after)) == {"ops/log-2": "ops/log-3", "ops/log-1": "ops/log-4"}
    assert names(successors(before, after[:1])) == {"ops/log-2": "ops/log-3"}


def test_who_is_still_there_is_not_replaced() -> None:
    before = pod("shop/web-a", 1, app="web"), pod("shop/web-b", 2, app="web")
    after = pod("shop/web-b", 2, app="web"), pod("shop/web-c", 3, app="web")
    assert names(successors(before, after)) == {"shop/web-a": "shop/web-c"}
    assert names(successors(before, before)) == {}
