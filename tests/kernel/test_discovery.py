"""IPv6 neighbour discovery that a host endpoint's policy cuts, in the kernel and in the walk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.engine import Engine
from calico_debug.state.resolve import resolve_flow
from tests.lab import namespaces
from tests.lab.conftest import need_lab
from tests.lab.lab import Lab
from tests.lab.model import HostEndpoint, Model, Policy, Rule, Selector, Tier
from tests.lab.topology import small_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from calico_debug.model.explanation import FlowExplanation

TCP_ONLY = (Rule("Allow", "tcp"),)
TCP_AND_ICMPV6 = (*TCP_ONLY, Rule("Allow", 58))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    need_lab()
    with Lab(small_cluster()) as built:
        yield built


def _model(rules: tuple[Rule, ...]) -> Model:
    policy = Policy(
        "GlobalNetworkPolicy", "guard", order=1, selector=Selector("host", ("node2",)), ingress=rules, egress=rules
    )
    endpoint = HostEndpoint("node2-eth0", "node2", "eth0", {"host": "node2"})
    return Model((Tier("default", 1_000_000),), (policy,), host_endpoints=(endpoint,))


def _forget_neighbours(lab: Lab) -> None:
    for node in lab.topology.nodes:
        for other in lab.topology.nodes:
            if other is not node:
                namespaces.run(
                    lab.namespace(node.name), ["ip", "-6", "neigh", "replace", other.v6, "dev", "eth0", "nud", "failed"]
                )


def _explain(lab: Lab, bundle: Path) -> FlowExplanation:
    lab.evidence(bundle, complete=True)
    engine = Engine(open_bundle(bundle))
    pod, target = lab.topology.address("red/cli1", 6), lab.topology.address("blue/web2", 6)
    return engine.explain(resolve_flow(pod, f"[{target}]:80", cluster=engine.cluster, nodes=engine.states))


@pytest.mark.kernel
@pytest.mark.parametrize(("rules", "expected"), [(TCP_ONLY, "denied"), (TCP_AND_ICMPV6, "allowed")])
def test_a_host_policy_without_icmpv6_cuts_the_link(
    lab: Lab, tmp_path: Path, rules: tuple[Rule, ...], expected: str
) -> None:
    lab.program(_model(rules))
    _forget_neighbours(lab)
    explained = _explain(lab, tmp_path / "bundle")
    outcome = lab.send(lab.flow("red/cli1", "blue/web2", "tcp", 80, 6))
    assert (outcome.verdict, explained.verdict) == (expected, expected), explained.decision
    if expected == "denied":
        assert explained.decision is not None
        assert (explained.decision.reason, explained.decision.node) == ("neighbour-discovery", "node2")
        assert explained.decision.tier == "default"


@pytest.mark.kernel
def test_a_neighbour_that_is_known_needs_no_discovery(tmp_path: Path) -> None:
    need_lab()
    with Lab(small_cluster()) as fresh:
        fresh.program(_model(TCP_ONLY))
        assert _explain(fresh, tmp_path / "bundle").verdict == "allowed"
        assert fresh.send(fresh.flow("red/cli1", "blue/web2", "tcp", 80, 6)).verdict == "allowed"
