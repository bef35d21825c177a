"""One command for both nodes of a flow, with a real API server between: over TLS from a pod, by exec from a laptop."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calico_debug.agent.routing import OBSERVER
from tests.agent.packets.conftest import need_observer
from tests.cluster.nodes import EXEC, NODES, Nodes, both_nodes, observers
from tests.kernel.test_reach import ENDS, WITNESSED, facts
from tests.lab import namespaces
from tests.lab.agents import NAMESPACE, PROGRAM, SECONDS

pytestmark = [pytest.mark.cluster, pytest.mark.kernel]

KUBECTL = "CALICO_DEBUG_KUBECTL"
ALL = ("--watch", "0.2", "--observe", "0.5", "--probe")


@pytest.fixture(scope="module")
def nodes(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    if reason := namespaces.supported():
        pytest.skip(reason)
    with both_nodes(tmp_path_factory.mktemp("reach"), directory / "reach") as made:
        yield made


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def codes(document: Any) -> set[str]:
    return {finding["code"] for finding in document["findings"] if finding["severity"] != "info"}


def test_reading_is_no_right_to_observe(nodes: Nodes) -> None:
    source, target = ENDS["denied by ingress"]
    asked = ("trace", "--from", source, "--to", target, "-o", "json", "--observe", "0.3", "--probe")
    found = answer(nodes.in_pod("node1", *asked))
    assert (found["verdict"], found["decision"]["node"]) == ("denied", "node2")
    (refusal,) = [one["message"] for one in found["findings"] if one["code"] == "not-observed"]
    assert refusal.startswith("node2: ")
    assert "/calico-debug/v1/observations" in refusal
    assert found["witnesses"]["observed"]["node"] == "node1"
    assert (found["witnesses"]["counted"]["verdict"], found["witnesses"]["counted"]["node"]) == ("denied", "node2")


def test_reading_is_no_right_to_capture(nodes: Nodes) -> None:
    refused = nodes.in_pod("node1", "capture", "list", "--node", "node2")
    assert (refused.returncode, refused.stdout) == (1, "")
    (line,) = refused.stderr.splitlines()
    assert "may not get /calico-debug/v1/captures: bind ClusterRole" in line
    assert OBSERVER in line


def test_a_capture_on_another_node_from_a_pod_and_from_a_laptop(nodes: Nodes, tmp_path: Path) -> None:
    need_observer()
    there = ("--node", "node2")
    laptop = nodes.user("operator", EXEC, {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]})
    with observers(nodes):
        nodes.api.until(
            "captures may be listed", lambda: nodes.in_pod("node1", "capture", "list", *there).returncode == 0
        )
        source, target = ENDS["allowed"]
        asked = ("capture", "start", "--from", source, "--to", target, "-o", "json", *there)
        begun = answer(nodes.in_pod("node1", *asked))
        nodes.lab.send(nodes.lab.flow("red/cli1", "blue/web2", "tcp", 80))
        stopped = answer(nodes.from_laptop(laptop, "capture", "stop", begun["id"], "-o", "json", *there))
        assert (stopped["node"], stopped["state"], stopped["packets"] > 0) == ("node2", "ended", True)
        path = tmp_path / "flow.pcapng"
        got = nodes.from_laptop(laptop, "capture", "get", begun["id"], "-w", str(path), *there)
        assert (got.returncode, got.stderr) == (0, "")
        assert path.stat().st_size == sum(file["bytes"] for file in stopped["files"])
        assert nodes.in_pod("node1", "capture", "delete", begun["id"], *there).returncode == 0
        assert nodes.in_pod("node1", "capture", "list", *there).stdout == "no captures\n"


@pytest.mark.parametrize("case", WITNESSED)
def test_from_either_pod_and_from_a_laptop_the_answer_is_the_same(nodes: Nodes, case: str) -> None:
    source, target = ENDS[case]
    asked = ("trace", "--from", source, "--to", target, "-o", "json", *ALL)
    laptop = nodes.user("operator", EXEC, {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]})
    with observers(nodes):
        answers = [answer(nodes.in_pod(node, *asked)) for node in NODES]
    answers.append(answer(nodes.from_laptop(laptop, *asked)))
    verdict, where, seen = WITNESSED[case]
    for one in answers:
        assert facts(one) == facts(answers[0])
        assert (one["verdict"], one["decision"]["node"]) == (verdict, where)
        assert [one["witnesses"][name]["verdict"] for name in ("counted", "observed")] == [seen, seen], one["witnesses"]
        assert codes(one) == set()


def test_a_laptop_needs_exec_and_is_told_so(nodes: Nodes) -> None:
    source, target = ENDS["allowed"]
    listing = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
    without = nodes.user("reader", listing)
    found = answer(nodes.from_laptop(without, "trace", "--from", source, "--to", target, "-o", "json"))
    assert found["verdict"] == "undetermined"
    said = [one["message"] for one in found["findings"] if one["code"] == "node-not-read"]
    assert [one.partition(":")[0] for one in said] == ["node1", "node2"]
    assert all("grant get and create on pods/exec in namespace calico-debug" in one for one in said), said
    assert nodes.kubelet.running == [] or all(process.poll() is not None for process in nodes.kubelet.running)


def test_what_is_run_through_the_api_server_is_in_its_audit_log(nodes: Nodes) -> None:
    source, target = ENDS["allowed"]
    laptop = nodes.user("operator", EXEC)
    answer(nodes.from_laptop(laptop, "trace", "--from", source, "--to", target, "-o", "json"))
    logged = [
        event["objectRef"]["name"]
        for event in nodes.api.audit()
        if event.get("objectRef", {}).get("subresource") == "exec" and event["user"]["username"].endswith(":operator")
    ]
    assert {"calico-debug-node1", "calico-debug-node2"} <= set(logged)


def test_an_agent_that_is_gone_is_named(nodes: Nodes) -> None:
    """Its Lease is still there: nobody answers at its address."""
    source, target = ENDS["allowed"]
    place = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/node2"
    lease = nodes.api.call("GET", place)
    moved = json.loads(json.dumps(lease))
    moved["metadata"]["annotations"]["calico-debug/url"] = f"https://{nodes.lab.topology.address('node2', 4)}:9"
    nodes.api.call("PUT", place, moved)
    try:
        found = answer(nodes.in_pod("node1", "trace", "--from", source, "--to", target, "-o", "json"))
    finally:
        now = nodes.api.call("GET", place)
        now["metadata"]["annotations"] = lease["metadata"]["annotations"]
        nodes.api.call("PUT", place, now)
    assert found["verdict"] == "undetermined"
    (said,) = [one["message"] for one in found["findings"] if one["code"] == "node-not-read"]
    assert said.startswith("node2: no answer from agent https://")
    assert "Connection refused" in found["decision"]["detail"]
    with pytest.raises(urllib.error.HTTPError):
        nodes.api.call("GET", f"{place}-none")


@pytest.fixture
def kubectl() -> str:
    found = os.environ.get(KUBECTL, "")
    if not shutil.which(found):
        pytest.skip(f"{KUBECTL} names no kubectl: run make test-cluster")
    return found


def test_kubectl_takes_it_for_a_plugin(nodes: Nodes, kubectl: str) -> None:
    laptop = nodes.user("operator", EXEC)
    variables = {**os.environ, "KUBECONFIG": laptop, "PATH": f"{Path(PROGRAM).parent}{os.pathsep}{os.environ['PATH']}"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([kubectl, *words], capture_output=True, text=True, timeout=SECONDS, env=variables)

    source, target = ENDS["denied by ingress"]
    found = answer(run("calico-debug", "trace", "--from", source, "--to", target, "-o", "json"))
    assert (found["verdict"], found["decision"]["node"]) == ("denied", "node2")
    assert run("calico-debug", "trace", "--help").stdout.startswith("Usage: kubectl calico-debug trace ")
    completed = run("__complete", "calico-debug", "trace", "--kubec").stdout.splitlines()
    assert completed[0].startswith("--kubeconfig\t")
    assert completed[-1] == ":4"
