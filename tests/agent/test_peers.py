"""The agents of a cluster as the API server lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from calico_debug.agent.apiserver import ApiServer
from calico_debug.agent.kubeconfig import find_access
from calico_debug.agent.peers import Peer, agents_namespace, find_peers
from calico_debug.errors import EvidenceError, UsageError
from tests.agent.fake_api_server import Answer, FakeApiServer, document, failure, kubeconfig, listed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PATH = "/api/v1/namespaces/calico-debug/pods"


def pod(name: Any, node: Any, *, ready: str = "True", **metadata: Any) -> dict[str, Any]:
    status = {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": ready}]}
    return {"metadata": {"name": name, **metadata}, "spec": {"nodeName": node}, "status": status}


def peers(folder: Path, answer: Answer) -> Mapping[str, Peer]:
    with FakeApiServer({PATH: answer}) as server:
        access = find_access(str(kubeconfig(folder, server.url)))
        assert access is not None
        found = find_peers(ApiServer(access), "calico-debug")
        assert server.asked[0][1]["labelSelector"] == "app.kubernetes.io/name=calico-debug"
    return found


def test_one_a_node(tmp_path: Path) -> None:
    found = peers(tmp_path, listed("Pod", pod("a", "n1"), pod("b", "n2", ready="False")))
    assert found["n1"] == Peer("n1", "calico-debug", "a", "10.0.0.1")
    assert found["n2"].problem == "the pod is not ready (phase Running)"


def test_while_a_pod_is_replaced_the_one_that_stays_counts(tmp_path: Path) -> None:
    old, new = pod("old", "n1", deletionTimestamp="2026-01-01T00:00:00Z"), pod("new", "n1")
    for order in ((old, new), (new, old)):
        assert peers(tmp_path, listed("Pod", *order))["n1"].pod == "new"
    assert peers(tmp_path, listed("Pod", old))["n1"].problem == "the pod is being deleted"


@pytest.mark.parametrize(
    "odd",
    [
        pod("a/../../secrets", "n1"),
        pod("a", ""),
        pod("a", 7),
        pod(None, "n1"),
        {"metadata": "x", "spec": [], "status": None},
        "pod",
        None,
    ],
)
def test_what_is_no_pod_is_passed_over(tmp_path: Path, odd: Any) -> None:
    assert list(peers(tmp_path, listed("Pod", odd, pod("b", "n2")))) == ["n2"]


def test_a_pod_of_odd_status_is_not_ready(tmp_path: Path) -> None:
    odd = {**pod("a", "n1"), "status": {"conditions": "x"}}
    assert peers(tmp_path, listed("Pod", odd))["n1"].problem == "the pod is not ready (phase unknown)"


def test_what_may_not_be_listed_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        EvidenceError, match=r"namespace calico-debug cannot be listed \(no\): grant list on pods there"
    ):
        peers(tmp_path, failure(403, "no"))
    with pytest.raises(EvidenceError, match="something that is no list"):
        peers(tmp_path, document({"items": "x"}))


def test_the_namespace() -> None:
    assert agents_namespace("typed", {"CALICO_DEBUG_NAMESPACE": "set", "POD_NAMESPACE": "own"}) == "typed"
    assert agents_namespace(None, {"CALICO_DEBUG_NAMESPACE": "set", "POD_NAMESPACE": "own"}) == "set"
    assert agents_namespace(None, {"POD_NAMESPACE": "own"}) == "own"
    assert agents_namespace(None, {}) == "calico-debug"
    for odd in ("a/b", "A", "x" * 64, "..", "a\n"):
        with pytest.raises(UsageError, match="name that of the agents with --agents"):
            agents_namespace(odd, {})
