"""Agents on the lab's nodes, each a process of its own, behind an API server that runs programs in their pods."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.agent.exec_server import ExecServer, exec_server
from tests.agent.fake_api_server import kubeconfig
from tests.cluster.forwarder import Forwarder
from tests.lab.cluster_objects import cluster_files

if TYPE_CHECKING:
    from tests.lab.lab import Lab
    from tests.lab.model import Model

PROGRAM = str(Path(sys.executable).with_name("calico-debug"))
NAMESPACE = "calico-debug"
SECONDS = 30
GROUPS = {
    "discovery.k8s.io": "v1",
    "networking.k8s.io": "v1",
    "crd.projectcalico.org": "v1",
}


@dataclass
class Agents:
    """``sockets`` are the agents' by node, ``server`` is what the command line asks."""

    lab: Lab
    server: ExecServer
    kubeconfig: str
    sockets: dict[str, str]

    def run(self, *arguments: str, node: str = "") -> subprocess.CompletedProcess[str]:
        """The command line on a node, or from outside of the cluster."""
        if not node:
            command = [PROGRAM, *arguments, "--kubeconfig", self.kubeconfig]
            return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        namespace = self.lab.namespace(node)
        with Forwarder(namespace, self.server.port) as forwarder:
            inside = Path(self.kubeconfig).with_name(f"kubeconfig-{node}")
            text = Path(self.kubeconfig).read_text().replace(str(self.server.port), str(forwarder.port))
            inside.write_text(text)
            command = ["ip", "netns", "exec", namespace, PROGRAM, *arguments, "--node", node]
            command += ["--kubeconfig", str(inside)]
            return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)

    def executed(self) -> list[str]:
        """The pods in which something was run, in order."""
        return [path.split("/")[6] for path, _ in self.server.asked if "/exec?" in path]


def pod_of(node: str) -> str:
    """The name of the agent's pod on a node."""
    return f"calico-debug-{node}"


@contextmanager
def agents(lab: Lab, model: Model, folder: Path, nodes: Sequence[str] = ("node1", "node2")) -> Iterator[Agents]:
    """An agent on each of ``nodes``; all end with the block."""
    with ExitStack() as stack:
        sockets = {node: str(folder / f"{node}.sock") for node in nodes}
        for node, path in sockets.items():
            stack.enter_context(agent(lab, node, path))

        def command(pod: str, words: Sequence[str]) -> Sequence[str]:
            assert list(words) == ["calico-debug", "agent-relay"]
            return [PROGRAM, "agent-relay", "--socket", sockets[pod.removeprefix("calico-debug-")]]

        server = stack.enter_context(exec_server(command, api_lists(lab, model, nodes)))
        config = kubeconfig(folder, server.url, token="secret")
        yield Agents(lab, server, str(config), sockets)


@contextmanager
def agent(lab: Lab, node: str, path: str, *more: str, name: str = "", **variables: str) -> Iterator[None]:
    """The agent of a node, which answers at the socket ``path``, and calls itself ``name``."""
    command = [PROGRAM, "agent", "--socket", path, "--metrics", "off", "--node", name or node, *more]
    enter = ["ip", "netns", "exec", lab.namespace(node)]
    environment = {**os.environ, **variables}
    process = subprocess.Popen([*enter, *command], stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        assert "listening on" in process.stderr.readline()
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            _, said = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
        assert "Traceback" not in said, said


def api_lists(lab: Lab, model: Model, nodes: Sequence[str]) -> Mapping[str, Any]:
    """What the API server answers, by path."""
    found: dict[str, Any] = {}
    served: dict[str, list[str]] = {group: [] for group in GROUPS}
    for file, content in cluster_files(lab.topology, model).items():
        plural, _, group = file.removesuffix(".json").partition(".")
        place = f"/apis/{group}/{GROUPS[group]}" if group else "/api/v1"
        found[f"{place}/{plural}"] = {"kind": "List", "metadata": {}, "items": content["items"]}
        if group:
            served[group].append(plural)
    for plural in ("services", "serviceaccounts", "endpoints"):
        found.setdefault(f"/api/v1/{plural}", {"kind": "List", "metadata": {}, "items": []})
    found["/apis"] = {
        "groups": [{"name": name, "versions": [{"version": GROUPS[name]}]} for name in served],
    }
    for group, plurals in served.items():
        entries = [{"name": plural, "verbs": ["list"]} for plural in plurals]
        found[f"/apis/{group}/{GROUPS[group]}"] = {"resources": entries}
    found[f"/api/v1/namespaces/{NAMESPACE}/pods"] = {"items": [agent_pod(node) for node in nodes]}
    return found


def agent_pod(node: str, *, ready: bool = True) -> dict[str, Any]:
    """The agent's pod on a node, as the API server lists it."""
    return {
        "metadata": {"name": pod_of(node), "namespace": NAMESPACE},
        "spec": {"nodeName": node, "containers": [{"name": "agent"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }
