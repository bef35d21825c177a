"""One command for a flow over two nodes, each with an agent of its own, from one of them and from a third place."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.agents import PROGRAM, SECONDS, Agents, agents
from tests.lab.conftest import need_lab
from tests.lab.lab import Lab
from tests.lab.model import Entity, Model, Policy, Rule, Selector, Service, ServicePort

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.mark.parametrize("case", ENDS)
@pytest.mark.parametrize("place", ["outside", "node1", "node2"])
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


@pytest.mark.parametrize("case", WITNESSED)
@pytest.mark.parametrize("place", ["outside", "node1", "node2"])
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
