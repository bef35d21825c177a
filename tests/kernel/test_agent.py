"""The agent as a process on a node of the lab: what it answers is what the command says there, and it keeps nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from calico_debug.cli.agent_client import AgentClient
from calico_debug.cli.agent_source import AgentSource
from tests.lab.conftest import need_lab
from tests.lab.lab import Lab
from tests.lab.model import Model, Policy, Rule, Selector

if TYPE_CHECKING:
    from tests.lab.traffic import Flow

pytestmark = pytest.mark.kernel

PROGRAM = Path(sys.executable).with_name("calico-debug")
SECONDS = 30
POLICY = Policy(
    "NetworkPolicy", "only-tcp", namespace="red", selector=Selector("app", ("web",)), ingress=(Rule("Allow", "tcp"),)
)


@dataclass
class Running:
    """A node with an agent."""

    lab: Lab
    namespace: str
    socket: str
    process: subprocess.Popen[str]

    def command(self, *arguments: str, inside: bool = False) -> Any:
        enter = ["ip", "netns", "exec", self.namespace] if inside else []
        done = subprocess.run([*enter, PROGRAM, *arguments], capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def ends(self, flow: Flow) -> list[str]:
        asked = self.lab.question(flow)
        return ["--from", asked["from"], "--to", asked["to"], "-p", asked["protocol"], "-o", "json"]

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    need_lab()
    path = str(tmp_path_factory.mktemp("agent") / "agent.sock")
    with Lab() as lab:
        lab.program(Model(policies=(POLICY,)))
        namespace = lab.namespace("node1")
        agent = [PROGRAM, "agent", "--socket", path, "--metrics", "off", "--node", "node1"]
        process = subprocess.Popen(["ip", "netns", "exec", namespace, *agent], stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None
            assert "listening on" in process.stderr.readline()
            yield Running(lab, namespace, path, process)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                _, said = process.communicate(timeout=SECONDS)
            finally:
                process.kill()
    assert process.returncode == 0, said
    assert "Traceback" not in said


def without_times(explanation: Any) -> Any:
    """When evidence was taken, and whose it is, differs."""
    text = json.dumps({**explanation, "witnesses": {k: {**w, "at": ""} for k, w in explanation["witnesses"].items()}})
    return json.loads(text)


@pytest.mark.parametrize(
    "asked",
    [
        ("red/cli1", "red/web1", "tcp", 80, 4),
        ("red/cli1", "red/web1", "udp", 53, 4),
        ("red/cli1", "red/web1", "tcp", 80, 6),
        ("blue/db1", "red/web1", "icmp", None, 4),
        ("red/cli1", "blue/web2", "tcp", 80, 4),
    ],
    ids=lambda asked: "-".join(map(str, asked)),
)
def test_a_trace_is_the_same_here_there_and_in_between(running: Running, asked: Any) -> None:
    ends = running.ends(running.lab.flow(*asked))
    there = running.command("trace", "--node", "node1", *ends, inside=True)
    through = running.command("trace", "--agent", running.socket, *ends)
    question = running.lab.question(running.lab.flow(*asked))
    asked_of_agent = AgentSource(AgentClient(running.socket)).json("/v1/trace", question)
    assert without_times(through) == without_times(there) == without_times(asked_of_agent)
    assert there["verdict"] == ("denied" if asked[2] in ("udp", "icmp") else there["verdict"])


def test_files_are_those_of_the_node(running: Running) -> None:
    source = AgentSource(AgentClient(running.socket))
    assert source.nodes() == ("node1",)
    node = source.node("node1")
    assert {link["ifname"] for link in json.loads(node.read("ip-link.json"))} >= {
        pod.interface for pod in running.lab.topology.pods_of("node1")
    }
    assert b"only-tcp" in node.read("nft-ruleset.json")
    assert source.json("/v1/nodes/node1")["dataplane"] == "nftables"
    assert source.ask("/readyz") == b"ok\n"


def test_metrics_and_counters_are_of_the_node(running: Running) -> None:
    source = AgentSource(AgentClient(running.socket))
    page = source.ask("/metrics").decode()
    assert 'policy="only-tcp"' in page
    listed = source.json("/v1/counters")["counters"]
    assert "only-tcp" in {one["labels"].get("policy") for one in listed}


def test_many_questions_leave_nothing_behind(running: Running) -> None:
    question = running.lab.question(running.lab.flow("red/cli1", "red/web1", "tcp", 80))
    source = AgentSource(AgentClient(running.socket))
    source.json("/v1/trace", question)
    before = running.descriptors()
    for _ in range(30):
        source.json("/v1/trace", question)
        source.json("/v1/nodes/node1")
    # Requests of a connection are worked on one after the other: what came before has let go of everything.
    assert source.ask("/healthz") == b"ok\n"
    assert running.descriptors() <= before
