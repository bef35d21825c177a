"""Which agent a command speaks to, over which way, and what it says when there is none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from calico_debug.agent.authorised import Authorised
from calico_debug.agent.certificate import OwnCertificate
from calico_debug.agent.reviews import Reviewer
from calico_debug.agent.routing import OBSERVER
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.options import CONFLICTS
from tests.agent.captures.made import Made, serving_captures
from tests.agent.exec_server import exec_server
from tests.agent.fake_api_server import kubeconfig
from tests.agent.reviewing import Reviews, token
from tests.cli.worlds import Ran, run
from tests.lab.agents import NAMESPACE, PROGRAM, agent_pod, pod_of

if TYPE_CHECKING:
    from calico_debug.agent.application import Application

OWN = OwnCertificate(["127.0.0.1"])
FRIEND, READING = token("friend"), token("reader")
PATH = "/calico-debug/v1/captures"
RIGHTS = {("friend", "get", PATH), ("friend", "post", PATH), ("reader", "get", "/calico-debug/v1/nodes")}


@dataclass
class World:
    """An agent with captures, its URL, and files about it."""

    made: Made
    socket: str
    url: str
    folder: Path

    def tls(self, given: str = FRIEND) -> tuple[str, ...]:
        """Options that name the agent over TLS, with a token."""
        (self.folder / "agent.pem").write_text(OWN.pem())
        (self.folder / "token").write_text(given)
        files = ("--agent-ca", f"{self.folder}/agent.pem", "--agent-token-file", f"{self.folder}/token")
        return ("--agent", self.url, *files)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = Made(tmp_path / "captures")
    reviews = Reviews({FRIEND: "friend", READING: "reader"}, RIGHTS)

    def guard(application: Application) -> Authorised:
        return Authorised(application, Reviewer(lambda: reviews))

    with serving_captures(tmp_path, made, certificate=OWN, guard=guard) as agent:
        yield World(made, agent.path, f"https://127.0.0.1:{agent.secure}", tmp_path)


def capture(*arguments: str, **variables: str) -> Ran:
    return run("capture", *arguments, variables=variables)


def refusal(ran: Ran) -> str:
    """The one line that is said instead of an answer."""
    assert ran.code in (ExitCode.FAILED, ExitCode.USAGE)
    assert ran.out == ""
    (line,) = ran.err.splitlines()
    return line


def test_over_tls_with_a_token(world: World) -> None:
    started = capture("start", "--drops", "-o", "json", *world.tls())
    assert (started.code, started.err) == (ExitCode.ANSWERED, "warning: a note\n")
    assert json.loads(started.out)["id"] in capture("list", *world.tls()).out
    (world.folder / "token").unlink()
    named = ("--agent", world.url, "--agent-ca", f"{world.folder}/agent.pem")
    assert capture("list", *named, CALICO_DEBUG_AGENT_TOKEN=FRIEND).code == ExitCode.ANSWERED


def test_who_is_not_let_in(world: World) -> None:
    assert "cannot be trusted" in refusal(capture("list", "--agent", world.url, CALICO_DEBUG_AGENT_TOKEN=FRIEND))
    assert f"reader may not get {PATH}" in (said := refusal(capture("list", *world.tls(READING))))
    assert OBSERVER in said
    assert "refused: the API server does not accept this token" in refusal(capture("list", *world.tls(token("x"))))
    gone = ("--agent-token-file", f"{world.folder}/none")
    assert "cannot read the token" in refusal(capture("list", *world.tls()[:-2], *gone))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--agent-ca", "x"), "--agent-ca is about an agent: name it with --agent https://ADDR:PORT"),
        (("--agent-token-file", "x"), "--agent-token-file is about an agent"),
        (("--agent", "/x", "--agent-ca", "y"), "--agent-ca is for agents over TLS"),
        (("--agent", "ftp://x"), "--agent 'ftp://x' is none"),
        (("--agents", "x"), "--agents is for the agent of another node: name that with --node"),
        (("--kubeconfig", "x"), "--kubeconfig is for the agent of another node"),
        (("--context", "x"), "--context is for the agent of another node"),
        (("--node", "n1", "--agents", "off"), "--agents off asks no other node"),
        (("--node", "n1", "--agent-ca", "x"), "--agent-ca is about an agent"),
    ],
)
@pytest.mark.parametrize("words", [("start", "--drops"), ("list",), ("get", "x", "-w", "-"), ("stop", "x")])
def test_options_that_make_no_sense(words: Sequence[str], given: Sequence[str], said: str) -> None:
    ran = capture(*words, *given)
    assert said in refusal(ran)
    assert ran.code == ExitCode.USAGE


@pytest.mark.parametrize("second", ["--node", "--agents"])
def test_an_address_and_a_node_contradict_each_other(second: str) -> None:
    (conflict,) = (one for one in CONFLICTS if (one.first, one.second) == ("--agent", second))
    said = refusal(capture("delete", "x", "--agent", "/x", second, "y"))
    assert f"--agent and {second}" in said
    assert conflict.remedy in said


@dataclass
class Cluster:
    """An API server that runs the relay in agents' pods; ``ran`` are the pods."""

    kubeconfig: str
    ran: list[str]

    def capture(self, *arguments: str) -> Ran:
        return capture(*arguments, "--kubeconfig", self.kubeconfig)


@pytest.fixture
def cluster(world: World) -> Iterator[Cluster]:
    ran: list[str] = []

    def command(pod: str, words: Sequence[str]) -> Sequence[str]:
        assert list(words) == ["calico-debug", "agent-relay"]
        ran.append(pod)
        return [PROGRAM, "agent-relay", "--socket", world.socket]

    pods = [agent_pod("n1"), agent_pod("n2"), agent_pod("n3", ready=False)]
    lists: dict[str, Any] = {"/apis": {"groups": []}, f"/api/v1/namespaces/{NAMESPACE}/pods": {"items": pods}}
    with exec_server(command, lists) as server:
        yield Cluster(str(kubeconfig(world.folder, server.url, token="secret")), ran)


def test_the_agent_of_a_node(cluster: Cluster, world: World) -> None:
    started = cluster.capture("start", "--drops", "--node", "n1", "-o", "json")
    assert started.code == ExitCode.ANSWERED, started.err
    name = json.loads(started.out)["id"]
    assert cluster.capture("stop", name, "--node", "n1").out.startswith(f"{name}  ended")
    path = world.folder / "out.pcapng"
    assert cluster.capture("get", name, "--node", "n1", "-w", str(path)).code == ExitCode.ANSWERED
    assert path.read_bytes() == (world.folder / "captures" / name / "00001.pcapng").read_bytes()
    assert set(cluster.ran) == {pod_of("n1")}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--node", "n2"), "is that of another node"),
        (("--node", "n3"), "the pod is not ready"),
        (("--node", "n4"), "namespace calico-debug has no agent on n4"),
        (("--node", "n1", "--agents", "elsewhere"), "the agents in namespace elsewhere cannot be listed"),
    ],
)
def test_a_node_whose_agent_is_not_had(cluster: Cluster, given: Sequence[str], said: str) -> None:
    assert said in refusal(cluster.capture("list", *given))


def test_a_node_without_a_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    said = refusal(capture("list", "--node", "n1"))
    assert "--node n1: the cluster cannot be asked for its agent" in said
    assert "--kubeconfig" in said
