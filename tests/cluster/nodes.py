"""Both nodes of a flow with an agent each, a real API server between, and the command line in a pod and on a laptop."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from calico_debug.agent.publication import CERTIFICATE, URL
from calico_debug.cli.agent_client import AgentClient, Trust, file_token
from calico_debug.errors import EvidenceError, MissingEvidence
from tests.agent.exec_server import ExecServer, exec_server
from tests.cluster.contents import OBSERVER_ROLE, definitions, grant_role, install, load, path_of
from tests.cluster.forwarder import Forwarder
from tests.cluster.server import Server, make_certificate
from tests.kernel.test_reach import MODEL
from tests.lab import namespaces
from tests.lab.agents import NAMESPACE, PROGRAM, SECONDS, agent, agent_pod
from tests.lab.cluster_objects import cluster_files
from tests.lab.lab import Lab

NODES = ("node1", "node2")
BINDING = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
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


@contextmanager
def both_nodes(folder: Path, directory: Path) -> Iterator[Nodes]:
    """All of it; ``directory`` is for the API server."""
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
        api = Server(directory)
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
