"""One command for a flow over two nodes, each with an agent of its own, from one of them and from a third place."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from calico_debug.decode.nft_trace_table import PREFIX
from tests.lab import namespaces
from tests.lab.agents import PROGRAM, SECONDS, Agents, agents
from tests.lab.conftest import need_lab
from tests.lab.lab import Lab
from tests.lab.model import Entity, Model, Policy, Rule, Selector, Service, ServicePort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.kernel

WEB = Selector("app", ("web",))
MODEL = Model(
    policies=(
        Policy(
            "NetworkPolicy",
            "client-egress",
            namespace="red",
            selector=Selector("app", ("client",)),
            egress=(Rule("Allow", "tcp", destination=Entity(ports=(80, 443))),),
        ),
        Policy(
            "GlobalNetworkPolicy", "web", selector=WEB, ingress=(Rule("Allow", "tcp", destination=Entity(ports=(80,))),)
        ),
    ),
    services=(Service("blue", "shop", (ServicePort(80, 80),), "10.96.1.1", "fd00:96::1", ("blue/web2",)),),
)
ENDS = {
    "allowed": ("red/cli1", "blue/web2:80"),
    "denied by egress": ("red/cli1", "blue/web2:9001"),
    "denied by ingress": ("red/cli1", "blue/web2:443"),
    "to a service": ("red/cli1", "svc/blue/shop"),
}


@pytest.fixture(scope="module")
def reached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    need_lab()
    with Lab() as lab:
        lab.program(MODEL)
        with agents(lab, MODEL, tmp_path_factory.mktemp("agents")) as made:
            yield made


@pytest.fixture(scope="module")
def recorded(reached: Agents, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same two nodes as a bundle."""
    directory = tmp_path_factory.mktemp("bundle")
    reached.lab.evidence(directory)
    return str(directory)


def explained(reached: Agents, *arguments: str, node: str = "") -> Any:
    done = reached.run("trace", *arguments, "-o", "json", node=node)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def facts(document: Any) -> Any:
    """What does not depend on when, and how, the nodes were read."""
    if isinstance(document, dict):
        return {k: facts(v) for k, v in document.items() if k not in ("witnesses", "findings", "evidence")}
    return [facts(one) for one in document] if isinstance(document, list) else document


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "case"),
    [
        *(("outside", case) for case in ENDS),
        *((node, case) for node in ("node1", "node2") for case in ("denied by ingress", "to a service")),
    ],
)
def test_wherever_it_is_asked_the_answer_is_that_of_both_nodes(
    reached: Agents, recorded: str, case: str, place: str
) -> None:
    source, target = ENDS[case]
    ends = ("--from", source, "--to", target)
    asked = explained(reached, *ends, node="" if place == "outside" else place)
    offline = subprocess.run(
        [PROGRAM, "trace", *ends, "--bundle", recorded, "-o", "json"], capture_output=True, text=True, timeout=SECONDS
    )
    assert facts(asked) == facts(json.loads(offline.stdout))
    assert {step["node"] for step in asked["steps"]} == {"node1", "node2"}
    assert [finding for finding in asked["findings"] if finding["severity"] == "warning"] == []


WITNESSED = {
    "allowed": ("allowed", "node2", "allowed"),
    "denied by egress": ("denied", "node1", "denied"),
    "denied by ingress": ("denied", "node2", "denied"),
}
"""What each flow meets: the verdict, where it is decided, and what packets show."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "case"),
    [*(("outside", case) for case in WITNESSED), ("node1", "denied by ingress"), ("node2", "denied by ingress")],
)
def test_three_witnesses_over_two_nodes(reached: Agents, case: str, place: str) -> None:
    source, target = ENDS[case]
    verdict, where, seen = WITNESSED[case]
    asked = explained(
        reached,
        *("--from", source, "--to", target, "--watch", "0.2", "--observe", "0.5", "--probe"),
        node="" if place == "outside" else place,
    )
    witnesses = asked["witnesses"]
    assert (asked["verdict"], asked["decision"]["node"]) == (verdict, where)
    assert (witnesses["observed"]["verdict"], witnesses["observed"]["node"]) == (seen, where), witnesses
    assert (witnesses["counted"]["verdict"], witnesses["counted"]["node"]) == (seen, where), witnesses
    assert [one["node"] for one in witnesses["observed"]["nodes"]] == ["node1", "node2"]
    assert [finding["code"] for finding in asked["findings"] if finding["severity"] != "info"] == []
    assert "witnesses-agree" in {finding["code"] for finding in asked["findings"]}


@pytest.mark.slow
@pytest.mark.parametrize(("agents_of", "verdict"), [((), "denied"), (("--agents", "off"), "undetermined")])
def test_what_is_watched_on_one_node_is_predicted_over_both(
    reached: Agents, agents_of: tuple[str, ...], verdict: str
) -> None:
    source, target = ENDS["denied by ingress"]
    limits = ("--seconds", "0.3", "-o", "json")
    done = reached.run("observe", "--from", source, "--to", target, *agents_of, *limits, node="node1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["predicted"] == verdict


def tables(reached: Agents, node: str) -> str:
    return namespaces.run(reached.lab.namespace(node), ["nft", "list", "tables"])


def until(what: str, holds: Callable[[], bool]) -> None:
    """Asks again for `SECONDS`."""
    ends = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < ends, what
        time.sleep(0.05)  # what is waited for is the kernel's, which signals nobody


def test_a_command_that_is_killed_leaves_nothing_on_either_node(reached: Agents) -> None:
    source, target = ENDS["allowed"]
    before = [tables(reached, node) for node in ("node1", "node2")]
    command = [
        PROGRAM,
        "trace",
        "--from",
        source,
        "--to",
        target,
        "--observe",
        "40",
        "--kubeconfig",
        reached.kubeconfig,
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until("both nodes are observed", lambda: all(PREFIX in tables(reached, node) for node in ("node1", "node2")))
        process.kill()
    until("nothing is left", lambda: [tables(reached, node) for node in ("node1", "node2")] == before)
    assert explained(reached, "--from", source, "--to", target)["verdict"] == "allowed"


def test_traffic_of_others_is_told_from_probes_on_both_nodes(reached: Agents) -> None:
    """Without a probe, packets of the flow that somebody else sends are seen on both nodes."""
    source, target = ENDS["denied by ingress"]
    command = [PROGRAM, "trace", "--from", source, "--to", target, "--observe", "3", "-o", "json"]
    with subprocess.Popen([*command, "--kubeconfig", reached.kubeconfig], stdout=subprocess.PIPE, text=True) as process:
        until("both nodes are observed", lambda: all(PREFIX in tables(reached, node) for node in ("node1", "node2")))
        place, port = target.split(":")
        sent = reached.lab.send(reached.lab.flow(source, place, "tcp", int(port)))
        said, _ = process.communicate(timeout=SECONDS)
    assert sent.verdict == "denied"
    observed = json.loads(said)["witnesses"]["observed"]
    assert (observed["verdict"], observed["node"]) == ("denied", "node2")
    first, second = observed["nodes"]
    assert "sent out of eth0" in first["detail"]
    assert "dropped there" in second["detail"]
