"""A connection that outlives a change of policy, on a real kernel: it goes on, a new one does not come through."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from calico_debug.explain.engine import Engine
from calico_debug.explain.outlived import StaleReport, find_outlived
from tests.explain.world import Node, Tier, deny, endpoint, policy
from tests.kernel.small_node import NAME, SmallNode, small_node
from tests.lab import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

SERVER = ("10.244.1.2", 8080)
PATIENCE = 5.0
REFUSED_AFTER = 0.5


@pytest.fixture
def node() -> Iterator[SmallNode]:
    with small_node() as made:
        yield made


def looked_at(node: SmallNode) -> StaleReport:
    with namespaces.entered(node.host):
        return find_outlived(Engine(node.source()), [NAME])


def test_the_old_connection_lives_and_is_found(node: SmallNode) -> None:
    node.program(Node(1, pods=[1, 2]))
    with namespaces.entered(node.pod(2)):
        listener = socket.create_server(SERVER)
    with namespaces.entered(node.pod(1)):
        client = socket.create_connection(SERVER, PATIENCE)
        late = socket.socket()
    served, (_, port) = listener.accept()
    served.settimeout(PATIENCE)
    with listener, client, late, served:
        client.sendall(b"before")
        assert served.recv(16) == b"before"
        before = looked_at(node)
        assert (before.live, before.refused, before.undetermined) == (1, (), ())

        chains = {
            **endpoint("cali-tw-cali2", [Tier("t", ["gnp/p"])]),
            **policy("gnp", "p", "ingress", deny("dport=8080")),
        }
        node.program(Node(1, pods=[1, 2], chains=chains))
        client.sendall(b"after")
        assert served.recv(16) == b"after"
        late.settimeout(REFUSED_AFTER)
        with pytest.raises(TimeoutError):
            late.connect(SERVER)

        (flow,) = looked_at(node).refused
        decision = flow.answer.decision
        assert decision is not None
        assert decision.policy is not None
        assert (decision.tier, decision.policy.name) == ("t", "p")
        assert [one.client[1] for one in flow.connections] == [port]
