"""One command for both nodes of a flow, with a real API server between: over TLS from a pod, by exec from a laptop."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import urllib.error
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from calico_debug.agent.publication import CERTIFICATE, URL
from calico_debug.agent.routing import OBSERVER
from calico_debug.cli.agent_client import AgentClient, Trust, file_token
from calico_debug.errors import EvidenceError, MissingEvidence
from tests.agent.exec_server import ExecServer, exec_server
from tests.agent.packets.conftest import need_observer
from tests.cluster.contents import OBSERVER_ROLE, definitions, grant_role, install, load, path_of
from tests.cluster.forwarder import Forwarder
from tests.cluster.server import Server, make_certificate
from tests.kernel.test_reach import ENDS, MODEL, WITNESSED, facts
from tests.lab import namespaces
from tests.lab.agents import NAMESPACE, PROGRAM, SECONDS, agent, agent_pod
from tests.lab.cluster_objects import cluster_files
from tests.lab.lab import Lab

pytestmark = [pytest.mark.cluster, pytest.mark.kernel]

KUBECTL = "CALICO_DEBUG_KUBECTL"
NODES = ("node1", "node2")
BINDING = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
ALL = ("--watch", "0.2", "--observe", "0.5", "--probe")
IN_POD = """
mount --rbind /run/netns "$0/netns" && mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io /run/netns &&
mount --rbind "$0/netns" /run/netns &&
cp -r "$0/serviceaccount" /run/secrets/kubernetes.io/ && cp -r "$0/calico-debug" /run/secrets/ && exec "$@"
"""
"""What kubelet mounts into the agent's pod, in a mount namespace of the command's own."""


@dataclass
class Nodes:
    """Both nodes with their agents, and the API server that knows them."""

    lab: Lab
    api: Server
    kubelet: ExecServer
    folder: Path

    @property
    def token(self) -> Path:
        """That of the agents' account, for agents."""
        return self.folder / "pod" / "calico-debug" / "token"

    def in_pod(self, node: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command line as `kubectl exec` starts it in the agent's pod on a node."""
        namespace = self.lab.namespace(node)
        with Forwarder(namespace, self.api.port) as forwarder:
            given = [
                "KUBERNETES_SERVICE_HOST=127.0.0.1",
                f"KUBERNETES_SERVICE_PORT={forwarder.port}",
                f"NODENAME={node}",
            ]
            inside = [
                "ip",
                "netns",
                "exec",
                namespace,
                "unshare",
                "--mount",
                "sh",
                "-c",
                IN_POD,
                str(self.folder / "pod"),
            ]
            command = [*inside, "env", "-u", "KUBECONFIG", f"HOME={self.folder}", *given, PROGRAM, *arguments]
            return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)

    def from_laptop(self, kubeconfig: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [PROGRAM, *arguments, "--kubeconfig", kubeconfig]
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)

    def user(self, name: str, *rules: dict[str, Any]) -> str:
        """A kubeconfig of somebody who may list what a trace reads, and in the agents' namespace what rules say."""
        place = "/apis/rbac.authorization.k8s.io/v1"
        self.api.create(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", {"metadata": {"name": name}})
        who = [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}]
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "calico-debug"}
        self.api.create(BINDING, {"metadata": {"name": name}, "roleRef": reference, "subjects": who})
        self.api.create(f"{place}/namespaces/{NAMESPACE}/roles", {"metadata": {"name": name}, "rules": list(rules)})
        self.api.create(
            f"{place}/namespaces/{NAMESPACE}/rolebindings",
            {"metadata": {"name": name}, "roleRef": {**reference, "kind": "Role", "name": name}, "subjects": who},
        )
        return self.api.kubeconfig(self.folder / f"{name}.yaml", self.api.token(NAMESPACE, name))


EXEC = {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get", "create"]}


@pytest.fixture(scope="module")
def nodes(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    if reason := namespaces.supported():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("reach")
    certificate = make_certificate(folder)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, folder / "other.key")

    def command(pod: str, words: Sequence[str]) -> Sequence[str]:
        assert list(words) == ["calico-debug", "agent-relay"]
        return [PROGRAM, "agent-relay", "--socket", str(folder / f"{pod.removeprefix('calico-debug-')}.sock")]

    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        lab.program(MODEL)
        kubelet = stack.enter_context(exec_server(command, tls=tls))
        api = Server(directory / "reach")
        stack.callback(api.stop)
        install(api, definitions())
        grant_role(api)
        load(api, listed(lab, kubelet.port))
        made = Nodes(lab, api, kubelet, folder)
        _write_pod_files(made)
        for node in NODES:
            stack.enter_context(_agent(made, node))
        api.until("both agents are published", lambda: len(_leases(api)) == len(NODES))
        yield made


def listed(lab: Lab, port: int) -> dict[str, Any]:
    """The lab's objects; its nodes have their kubelet on loopback, and agents' pods."""
    lists = cluster_files(lab.topology, MODEL)
    for node in lists["nodes.json"]["items"]:
        node["status"]["daemonEndpoints"] = {"kubeletEndpoint": {"Port": port}}
        node["status"]["addresses"].insert(0, {"type": "Hostname", "address": "127.0.0.1"})
    for name in NODES:
        pod = {"kind": "Pod", "apiVersion": "v1", **agent_pod(name)}
        pod["metadata"]["labels"] = {"app.kubernetes.io/name": "calico-debug"}
        lists["pods.json"]["items"].append(pod)
    return lists


def _write_pod_files(nodes: Nodes) -> None:
    account = nodes.folder / "pod" / "serviceaccount"
    account.mkdir(parents=True)
    (account / "token").write_text(nodes.api.token(NAMESPACE, "calico-debug"))
    (account / "namespace").write_text(NAMESPACE)
    shutil.copy(nodes.api.certificate, account / "ca.crt")
    (nodes.folder / "pod" / "netns").mkdir()
    nodes.token.parent.mkdir()
    nodes.token.write_text(nodes.api.token(NAMESPACE, "calico-debug", ["calico-debug"]))


@contextmanager
def _agent(nodes: Nodes, node: str) -> Iterator[None]:
    with Forwarder(nodes.lab.namespace(node), nodes.api.port) as forwarder:
        token = nodes.api.token(NAMESPACE, "calico-debug")
        config = nodes.api.kubeconfig(
            nodes.folder / f"agent-{node}.yaml", token, cluster={"server": f"https://127.0.0.1:{forwarder.port}"}
        )
        address = f"{nodes.lab.topology.address(node, 4)}:9098"
        captures = ("--captures", str(nodes.folder / f"captures-{node}"))
        socket = str(nodes.folder / f"{node}.sock")
        with agent(nodes.lab, node, socket, "--listen", address, *captures, KUBECONFIG=config):
            yield


def _leases(api: Server) -> list[Any]:
    found: list[Any] = api.call("GET", f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases")["items"]
    return found


@contextmanager
def observers(nodes: Nodes) -> Iterator[None]:
    """What the overlay "trace" has beside the base, from the moment on that both agents count it."""
    api = nodes.api
    documents = list(yaml.safe_load_all(OBSERVER_ROLE.read_text()))
    for document in documents:
        api.create(path_of(document), document)
    try:
        for node in NODES:
            api.until(f"observing on {node} is allowed", lambda node=node: may_observe(nodes, node))  # type: ignore[misc]
        yield
    finally:
        for document in documents:
            api.call("DELETE", f"{path_of(document)}/{document['metadata']['name']}")


def may_observe(nodes: Nodes, node: str) -> bool:
    """An agent remembers for seconds which path somebody may not ask."""
    lease = next(one for one in _leases(nodes.api) if one["metadata"]["name"] == node)
    notes = lease["metadata"]["annotations"]
    client = AgentClient(notes[URL], trust=Trust(pem=notes[CERTIFICATE]), token=file_token(nodes.token))
    with namespaces.entered(nodes.lab.namespace(node)):
        try:
            client.json("/v1/observations", {"node": "none", "kind": "rules", "flows": [{}], "milliseconds": 1})
        except MissingEvidence:
            return True
        except EvidenceError:
            return False
        finally:
            client.close()
    raise AssertionError("there is no such node")


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
