"""Which nodes are read here, which through agents, and how these are found."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from calico_debug.cli.environment import OFF, Place, Question
from calico_debug.cli.reach import PodAgents, PublishedAgents
from calico_debug.cli.reaching_tracer import ReachingTracer
from calico_debug.cli.tracer import EvidenceTracer, open_tracer
from calico_debug.errors import UsageError
from tests.agent.fake_api_server import FakeApiServer, document, groups, kubeconfig, listed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HERE = socket.gethostname().lower()
AGENTS = "/api/v1/namespaces/calico-debug/pods"


def node(name: str, address: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"addresses": [{"type": "InternalIP", "address": address}]}}


def pod(name: str, where: str, address: str) -> dict[str, Any]:
    status = {"podIP": address, "podIPs": [{"ip": address}], "phase": "Running"}
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": {"nodeName": where}, "status": status}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApiServer]:
    monkeypatch.delenv("NODENAME", raising=False)
    empty = {
        f"/api/v1/{plural}": listed("List") for plural in ("services", "namespaces", "serviceaccounts", "endpoints")
    }
    routes = {
        **empty,
        "/apis": groups(),
        "/api/v1/nodes": listed("Node", node("n1", "172.30.0.1"), node("n2", "172.30.0.2")),
        "/api/v1/pods": listed("Pod", pod("a", "n1", "10.0.1.1"), pod("b", "n2", "10.0.2.1")),
        AGENTS: listed("Pod"),
    }
    with FakeApiServer(routes) as made:
        yield made


def opened(folder: Path, server: FakeApiServer, **place: Any) -> EvidenceTracer:
    return open_tracer(Place(kubeconfig=str(kubeconfig(folder, server.url)), **place), "linux")


def test_a_machine_that_is_no_node_is_not_read(tmp_path: Path, server: FakeApiServer) -> None:
    tracer = opened(tmp_path, server)
    assert isinstance(tracer, ReachingTracer)
    assert tracer._reach.here == ()
    found = tracer.trace(Question("ns/a", "ns/b:80"))
    assert found.verdict == "undetermined"
    said = [finding.message for finding in found.findings if finding.code == "node-not-read"]
    assert [one[:2] for one in said] == ["n1", "n2"]
    assert said[0].endswith(f"; if this machine, {HERE}, is that node, say --node n1")
    assert server.paths().count(AGENTS) == 1
    assert server.paths().count("/api/v1/nodes") == 1


def test_a_node_is_read_here(tmp_path: Path, server: FakeApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODENAME", "n2")
    tracer = opened(tmp_path, server)
    assert isinstance(tracer, ReachingTracer)
    assert (tracer._reach.here, tracer._reach.is_remote("n2")) == (("n2",), False)


def test_what_the_user_calls_a_node_is_one(tmp_path: Path, server: FakeApiServer) -> None:
    tracer = opened(tmp_path, server, node="n7")
    assert isinstance(tracer, ReachingTracer)
    assert tracer._reach.here == ("n7",)


def test_no_agent_is_asked_when_the_user_says_so(tmp_path: Path, server: FakeApiServer) -> None:
    assert type(opened(tmp_path, server, agents=OFF)) is EvidenceTracer


def test_the_namespace_of_the_agents(tmp_path: Path, server: FakeApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALICO_DEBUG_NAMESPACE", "tools")
    tracer = opened(tmp_path, server)
    tracer.trace(Question("ns/a", "ns/b:80"))
    assert "/api/v1/namespaces/tools/pods" in server.paths()
    with pytest.raises(UsageError, match="no name of a namespace"):
        opened(tmp_path, server, agents="../secrets")


def test_in_a_pod_agents_are_those_that_publish_themselves(
    tmp_path: Path, server: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = opened(tmp_path, server)
    assert isinstance(outside, ReachingTracer)
    assert isinstance(outside._reach._agents, PodAgents)
    monkeypatch.setattr("calico_debug.agent.cluster.LiveCluster.of_pod", True)
    leases = "/apis/coordination.k8s.io/v1/namespaces/calico-debug/leases"
    notes = {"calico-debug/url": "ftp://x", "calico-debug/certificate": "PEM"}
    lease = {"metadata": {"name": "n1", "annotations": notes}, "spec": {}}
    server.routes[leases] = document({"items": [lease]})
    inside = opened(tmp_path, server)
    assert isinstance(inside, ReachingTracer)
    assert isinstance(inside._reach._agents, PublishedAgents)
    found = inside.trace(Question("ns/a", "ns/b:80"))
    said = [finding.message for finding in found.findings if finding.code == "node-not-read"]
    assert "published 'ftp://x', which is no https://ADDR:PORT" in said[0]
    assert "no agent on n2 has said in namespace calico-debug where it is" in said[1]
