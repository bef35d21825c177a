"""A live node in a network namespace, its rules from the kernel and its names from a real API server."""

from __future__ import annotations

import json
import os
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.contents import definitions, grant_role, install, load
from tests.cluster.forwarder import Forwarder
from tests.cluster.server import Server
from tests.lab import namespaces
from tests.lab.cluster_objects import cluster_files
from tests.lab.demo import MODEL, PROGRAM
from tests.lab.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.cluster, pytest.mark.kernel]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if reason := namespaces.supported():
        pytest.skip(reason)
    with Lab() as built:
        built.program(MODEL)
        yield built


@pytest.fixture(scope="module")
def api(directory: Path, lab: Lab) -> Iterator[Server]:
    """The lab's cluster in an API server."""
    started = Server(directory / "lab")
    try:
        install(started, definitions())
        load(started, cluster_files(lab.topology, MODEL))
        grant_role(started)
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="module")
def kubeconfig(directory: Path, lab: Lab, api: Server) -> Iterator[str]:
    """For the first node of the lab, which can reach the API server."""
    with Forwarder(lab.namespace("node1"), api.port) as forwarder:
        reached = {"server": f"https://127.0.0.1:{forwarder.port}"}
        token = api.token("calico-debug", "calico-debug")
        yield api.kubeconfig(directory / "lab.yaml", token, cluster=reached, context={"namespace": "red"})


def explain(lab: Lab, *arguments: str) -> Any:
    with namespaces.entered(lab.namespace("node1")):
        command = [PROGRAM, "trace", "--node", "node1", "--agents", "off", "-o", "json", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("source", "target", "protocol"),
    [
        ("red/cli1", "red/web1:80", "tcp"),
        ("red/cli1", "red/web1:81", "tcp"),
        ("blue/db1", "red/web1:53", "udp"),
        ("blue/db1", "svc/red/ghost", "tcp"),
        ("cli1", "svc/blue/shop", "tcp"),
        ("blue/db1", "node/node1:22", "tcp"),
    ],
)
def test_names_on_a_live_node(
    lab: Lab, kubeconfig: str, tmp_path: Path, source: str, target: str, protocol: str
) -> None:
    """What a bundle of the node and the cluster says, live: and nothing is missing for it."""
    live = explain(lab, "--kubeconfig", kubeconfig, "--from", source, "--to", target, "-p", protocol)
    recorded = lab_bundle(lab, tmp_path)
    command = ["trace", "--bundle", recorded, "-o", "json", "-n", "red"]
    done = subprocess.run(
        [PROGRAM, *command, "--from", source, "--to", target, "-p", protocol],
        capture_output=True,
        text=True,
        timeout=60,
    )
    offline = json.loads(done.stdout)
    assert facts(live) == facts(offline)
    assert live["flow"]["source"]["pod"]
    assert live["verdict"] != "undetermined" or "shop" in target


def on_node(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    with namespaces.entered(lab.namespace("node1")):
        return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=120)


def test_a_bundle_of_node_and_cluster_explains_byte_for_byte(lab: Lab, kubeconfig: str, tmp_path: Path) -> None:
    written = tmp_path / "bundle.tar.gz"
    done = on_node(lab, "bundle", "--node", "node1", "--kubeconfig", kubeconfig, "-f", str(written))
    assert done.returncode == 0, done.stderr
    assert written.stat().st_mode & 0o777 == 0o600
    ends = ("--from", "red/cli1", "--to", "red/web1:81")
    offline = subprocess.run(
        [PROGRAM, "trace", "--bundle", str(written), "-o", "json", *ends], capture_output=True, text=True, timeout=60
    )
    live = explain(lab, "--kubeconfig", kubeconfig, *ends)
    assert timeless(live) == timeless(json.loads(offline.stdout))


def timeless(document: dict[str, Any]) -> str:
    for witness in document["witnesses"].values():
        witness.pop("at", None)
    return json.dumps(document)


def test_intent_of_a_live_cluster(lab: Lab, kubeconfig: str) -> None:
    """Policies, endpoints and drift by the least rights: the lab's node is programmed as its objects say."""
    cluster = ("--node", "node1", "--kubeconfig", kubeconfig)
    policies = on_node(lab, "policies", "--pod", "red/cli1", "-o", "json", *cluster)
    assert (policies.returncode, policies.stderr) == (0, "")
    assert json.loads(policies.stdout)["pod"] == {"namespace": "red", "name": "cli1"}
    staged = on_node(lab, "staged", "--kubeconfig", kubeconfig)
    assert (staged.returncode, staged.stdout) == (0, "no staged policy\n")


def facts(document: dict[str, Any]) -> Any:
    """What does not depend on when the node was read, and how."""
    decision = {key: value for key, value in (document["decision"] or {}).items() if key != "evidence"}
    steps = [{key: value for key, value in step.items() if key != "evidence"} for step in document["steps"]]
    return document["flow"], document["verdict"], decision, steps


def lab_bundle(lab: Lab, directory: Path) -> str:
    """A bundle of the cluster's objects and of the first node alone."""
    from tests.lab.evidence import write_node

    (directory / "cluster").mkdir()
    for file, content in cluster_files(lab.topology, MODEL).items():
        (directory / "cluster" / file).write_text(json.dumps(content))
    node = lab.topology.nodes[0]
    write_node(directory / "nodes" / node.name, lab.wiring, MODEL, node, complete=False)
    return str(directory)


def test_addresses_alone_need_no_cluster(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    client, web = lab.topology.address("red/cli1", 4), lab.topology.address("red/web1", 4)
    answer = explain(lab, "--from", client, "--to", f"{web}:80")
    assert answer["verdict"] == "allowed"
    assert not [finding for finding in answer["findings"] if finding["severity"] == "warning"]


def test_a_cluster_that_was_found_and_is_away_is_a_finding(
    lab: Lab, kubeconfig: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = tmp_path / "away.yaml"
    # Port 1 of the node's own namespace: nobody listens.
    away.write_text(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", Path(kubeconfig).read_text()))
    monkeypatch.setenv("KUBECONFIG", str(away))
    client, web = lab.topology.address("red/cli1", 4), lab.topology.address("red/web1", 4)
    answer = explain(lab, "--from", client, "--to", f"{web}:80")
    assert answer["verdict"] == "allowed"
    warnings = [finding["message"] for finding in answer["findings"] if finding["severity"] == "warning"]
    assert len(warnings) == 1
    assert warnings[0].startswith("cannot reach https://127.0.0.1:1 ")


LEASE = "/apis/coordination.k8s.io/v1/namespaces/calico-debug/leases/node1"


@contextmanager
def agent_on(lab: Lab, node: str, kubeconfig: str, *arguments: str) -> Iterator[None]:
    """An agent in the namespace of a node, ended by its process."""
    environment = {**os.environ, "KUBECONFIG": kubeconfig}
    command = ["ip", "netns", "exec", lab.namespace(node), PROGRAM, "agent", "--node", node, "--metrics", "off"]
    with subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield
        finally:
            process.terminate()
            _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "Traceback" not in said


def test_another_node_asks_the_agent(lab: Lab, kubeconfig: str, api: Server, tmp_path: Path) -> None:
    """Over the wire, with the certificate of the Lease and the token of a service account: the answer is the node's."""
    address = lab.topology.address("node1", 4)
    ends = ("--from", "red/cli1", "--to", "red/web1:81", "-o", "json")
    certificate, token = tmp_path / "agent.pem", tmp_path / "token"
    token.write_text(api.token("calico-debug", "calico-debug", ["calico-debug"]))

    def ask(*more: str, file: Path = token) -> subprocess.CompletedProcess[str]:
        command = [PROGRAM, "trace", "--agent", f"https://{address}:9098", "--agent-token-file", file, *more, *ends]
        with namespaces.entered(lab.namespace("node2")):
            return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def published() -> bool:
        certificate.write_text(api.call("GET", LEASE)["metadata"]["annotations"]["calico-debug/certificate"])
        return True

    with agent_on(lab, "node1", kubeconfig, "--socket", "off", "--listen", f"{address}:9098"):
        api.until("the agent is published", published)
        done = ask("--agent-ca", str(certificate))
        assert (done.returncode, done.stderr) == (0, "")
        assert facts(json.loads(done.stdout)) == facts(explain(lab, "--kubeconfig", kubeconfig, *ends))
        other = tmp_path / "other"
        other.write_text(api.token("calico-debug", "calico-debug"))
        for refused, said in (
            (ask(), "): name its certificate, or the authority that signed it, with --agent-ca"),
            (ask("--agent-ca", str(certificate), file=other), "this token is not for audience calico-debug: make one"),
        ):
            assert (refused.returncode, refused.stdout) == (1, "")
            assert said in refused.stderr
            assert len(refused.stderr.splitlines()) == 1
