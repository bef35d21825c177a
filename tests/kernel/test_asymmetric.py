"""Connections whose answers pass another node than their requests, in a real kernel: what gets to the client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.engine import Engine
from calico_debug.state.resolve import Resolver
from tests.lab import namespaces
from tests.lab.conftest import need_lab
from tests.lab.lab import Lab
from tests.lab.model import Model
from tests.lab.topology import OUTSIDE, small_cluster
from tests.lab.traffic import SERVER_PORTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from calico_debug.model.explanation import FlowExplanation
    from tests.lab.traffic import Outcome

pytestmark = pytest.mark.kernel

FIRST, POD = "node1", "blue/web2"
"""The client's gateway, and a pod of the other node, which has the client on its own link."""
DECLARED, LISTENING, CLOSED = 80, 443, 4444
GUARD = "table ip guard { chain c { type filter hook forward priority 10; ct state invalid counter drop; }; }\n"
"""As kube-proxy's KUBE-FORWARD, and Calico's chains of host endpoints."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    need_lab()
    with Lab(small_cluster(ipv6=False)) as built:
        yield built


@pytest.fixture
def guarded(lab: Lab) -> Iterator[Lab]:
    lab.program(Model())
    namespaces.nft(lab.namespace(FIRST), GUARD)
    yield lab
    namespaces.nft(lab.namespace(FIRST), "delete table ip guard\n")


def sent(lab: Lab, port: int) -> tuple[Outcome, int]:
    """What the client got, and how many packets the guard dropped."""
    before = lab.counters()
    outcome = lab.send(lab.flow(OUTSIDE, POD, "tcp", port))
    dropped = sum(packets for rule, packets in lab.moved(before)[FIRST].items() if rule.table == "guard")
    return outcome, dropped


def explained(lab: Lab, directory: Path, port: int) -> FlowExplanation:
    lab.evidence(directory)
    engine = Engine(open_bundle(directory))
    asked = lab.question(lab.flow(OUTSIDE, POD, "tcp", port))
    resolver = Resolver(engine.cluster, engine.states)
    return engine.explain(resolver.resolve(asked["from"], asked["to"], protocol="tcp", via=asked["via"]))


CUT, OPEN = ("denied", "ct-invalid"), ("undetermined", "alternatives")


def told(answer: FlowExplanation) -> tuple[str, str]:
    assert answer.decision is not None
    return answer.verdict, answer.decision.reason


def test_what_listens_is_cut_and_what_refuses_is_heard(guarded: Lab, tmp_path: Path) -> None:
    assert LISTENING in SERVER_PORTS["tcp"]
    assert CLOSED not in SERVER_PORTS["tcp"]
    for port in (DECLARED, LISTENING, CLOSED):
        before = explained(guarded, tmp_path / f"{port}-before", port)
        outcome, dropped = sent(guarded, port)
        after = explained(guarded, tmp_path / f"{port}-after", port)
        assert (outcome.verdict, dropped > 0) == (("rejected", False) if port == CLOSED else ("denied", True))
        assert told(before) == (CUT if port == DECLARED else OPEN)
        assert told(after) == (OPEN if port == CLOSED else CUT)
        if port == LISTENING:
            assumed = [finding.message for finding in after.findings if finding.code == "assumption"]
            assert ["node2 tracks a connection that was taken there" in message for message in assumed] == [True]


def test_a_node_that_lets_invalid_packets_pass_cuts_nothing(lab: Lab, tmp_path: Path) -> None:
    lab.program(Model())
    for port, happened in ((LISTENING, "allowed"), (CLOSED, "rejected")):
        assert sent(lab, port)[0].verdict == happened
        assert explained(lab, tmp_path / str(port), port).verdict == "allowed"
