"""Connections whose answers pass another node than their requests, in a real kernel: what gets to the client."""

from __future__ import annotations

import socket
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

FIRST, POD, NEIGHBOUR = "node1", "blue/web2", "blue/cli2"
"""The client's gateway, and pods of the other node, which has the client on its own link."""
DECLARED, LISTENING, CLOSED = 80, 443, 4444
PATIENCE = 10.0
GUARD = "table ip guard { chain c { type filter hook forward priority 10; ct state invalid counter drop; }; }\n"
"""As kube-proxy's KUBE-FORWARD, and Calico's chains of host endpoints."""

SEND_REDIRECTS = "net/ipv4/conf/all/send_redirects"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    need_lab()
    with Lab(small_cluster(ipv6=False)) as built:
        yield built


@pytest.fixture
def guarded(lab: Lab) -> Iterator[Lab]:
    """The gateway drops what is invalid, and tells nobody of a shorter way."""
    lab.program(Model())
    namespaces.nft(lab.namespace(FIRST), GUARD)
    yield lab
    namespaces.sysctl(lab.namespace(FIRST), {SEND_REDIRECTS: "0"})
    namespaces.nft(lab.namespace(FIRST), "delete table ip guard\n")


def sent(lab: Lab, port: int) -> tuple[Outcome, int]:
    """What the client got, and how many packets the guard dropped."""
    before = lab.counters()
    outcome = lab.send(lab.flow(OUTSIDE, POD, "tcp", port))
    dropped = sum(packets for rule, packets in lab.moved(before)[FIRST].items() if rule.table == "guard")
    return outcome, dropped


def explained(lab: Lab, directory: Path, port: int, target: str = POD, protocol: str = "tcp") -> FlowExplanation:
    lab.evidence(directory)
    engine = Engine(open_bundle(directory))
    asked = lab.question(lab.flow(OUTSIDE, target, protocol, port))
    resolver = Resolver(engine.cluster, engine.states)
    return engine.explain(resolver.resolve(asked["from"], asked["to"], protocol=protocol, via=asked["via"]))


CUT, OPEN = ("denied", "ct-invalid"), ("undetermined", "alternatives")


def told(answer: FlowExplanation) -> tuple[str, str]:
    assert answer.decision is not None
    return answer.verdict, answer.decision.reason


def assumptions(answer: FlowExplanation) -> list[str]:
    return [finding.message for finding in answer.findings if finding.code == "assumption"]


def test_what_listens_is_cut_and_what_refuses_is_heard(guarded: Lab, tmp_path: Path) -> None:
    assert LISTENING in SERVER_PORTS["tcp"]
    assert CLOSED not in SERVER_PORTS["tcp"]
    for port in (DECLARED, LISTENING, CLOSED):
        answer = explained(guarded, tmp_path / str(port), port)
        outcome, dropped = sent(guarded, port)
        assert (outcome.verdict, dropped > 0) == (("rejected", False) if port == CLOSED else ("denied", True))
        assert told(answer) == (CUT if port == DECLARED else OPEN)
    for port, happened in ((LISTENING, "allowed"), (CLOSED, "rejected")):
        assert guarded.send(guarded.flow(NEIGHBOUR, POD, "tcp", port)).verdict == happened
        answer = explained(guarded, tmp_path / f"{port}-seen", port)
        assert told(answer) == (OPEN if port == CLOSED else CUT)
        taken = ["node2 tracks a connection that was taken there" in assumed for assumed in assumptions(answer)]
        assert taken == ([] if port == CLOSED else [True])


def test_a_client_that_is_told_of_the_shorter_way_gets_through(guarded: Lab, tmp_path: Path) -> None:
    """Its ACK is dropped, and answered by an ICMP redirect: what it sends again goes straight to the other node."""
    namespaces.sysctl(guarded.namespace(FIRST), {SEND_REDIRECTS: "1"})
    answer = explained(guarded, tmp_path, DECLARED)
    assert told(answer) == OPEN
    assert answer.decision is not None
    assert "whether the client follows the ICMP redirects by which node1 tells it" in answer.decision.detail
    before = guarded.counters()
    address = guarded.topology.address(POD)
    with namespaces.entered(guarded.namespace(POD)):
        server = socket.create_server((address, CLOSED))
    with namespaces.entered(guarded.namespace(OUTSIDE)):
        client = socket.create_connection((address, CLOSED), PATIENCE)
    server.settimeout(PATIENCE)
    with server, client:
        client.sendall(b"again and again")  # a server accepts what has acknowledged its answer
        server.accept()[0].close()
    assert any(rule.table == "guard" for rule in guarded.moved(before)[FIRST])
    assert "redirected" in namespaces.run(guarded.namespace(OUTSIDE), ["ip", "route", "get", address])


def test_a_node_that_lets_invalid_packets_pass_cuts_nothing(lab: Lab, tmp_path: Path) -> None:
    lab.program(Model())
    for port, happened in ((LISTENING, "allowed"), (CLOSED, "rejected")):
        assert sent(lab, port)[0].verdict == happened
        assert explained(lab, tmp_path / str(port), port).verdict == "allowed"


SERVICE = "198.18.0.77"


@pytest.mark.parametrize(
    ("protocol", "port", "predicted"),
    [
        ("tcp", DECLARED, ("denied", "untranslated")),
        ("tcp", CLOSED, ("denied", "untranslated")),
        ("udp", 53, ("undetermined", "alternatives")),
    ],
)
def test_an_answer_that_nobody_translates_back(
    lab: Lab, tmp_path: Path, protocol: str, port: int, predicted: tuple[str, str]
) -> None:
    lab.program(Model())
    pod = lab.topology.address(POD)
    table = (
        f"table ip moved {{ chain c {{ type nat hook prerouting priority -100; ip daddr {SERVICE} dnat to {pod}; }}; }}"
    )
    namespaces.nft(lab.namespace(FIRST), f"{table}\n")
    try:
        answer = explained(lab, tmp_path, port, SERVICE, protocol)
        assert lab.send(lab.flow(OUTSIDE, SERVICE, protocol, port)).verdict == "denied"
    finally:
        namespaces.nft(lab.namespace(FIRST), "delete table ip moved\n")
    assert told(answer) == predicted
    assert answer.decision is not None
    assert f"comes from {pod} and not from {SERVICE}" in answer.decision.detail.replace(f":{port}", "").replace(
        "comes to the client from", "comes from"
    )
