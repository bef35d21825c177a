"""Services that keep a client at its backend, in nftables mode: the kernel's sets tell which one it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.engine import Engine
from calico_debug.state.resolve import Resolver
from tests.lab import namespaces
from tests.lab.conftest import need_lab
from tests.lab.lab import Lab
from tests.lab.model import Model, Service, ServicePort
from tests.lab.topology import small_cluster

if TYPE_CHECKING:
    from pathlib import Path

    from calico_debug.model.explanation import FlowExplanation

pytestmark = pytest.mark.kernel

ADDRESS, CLIENT, BACKENDS = "10.96.1.1", "red/cli1", ("red/web1", "blue/web2")
STICKY = Service("red", "web", (ServicePort(80, 80, "tcp", "http"),), ADDRESS, "", BACKENDS, affinity_seconds=60)


def explained(lab: Lab, directory: Path) -> FlowExplanation:
    lab.evidence(directory)
    engine = Engine(open_bundle(directory))
    asked = lab.question(lab.flow(CLIENT, ADDRESS, "tcp", 80))
    return engine.explain(Resolver(engine.cluster, engine.states).resolve(asked["from"], asked["to"], protocol="tcp"))


def test_a_client_that_was_there_is_followed_to_its_backend(tmp_path: Path) -> None:
    need_lab()
    with Lab(small_cluster(ipv6=False)) as lab:
        lab.program(Model(services=(STICKY,)))
        before = explained(lab, tmp_path / "before")
        assert (before.verdict, len(before.backends)) == ("allowed", len(BACKENDS))
        chosen = lab.send(lab.flow(CLIENT, ADDRESS, "tcp", 80)).answered_by
        assert chosen is not None
        lab.forget_connections(lab.topology.places[CLIENT].node)  # type: ignore[union-attr]
        after = explained(lab, tmp_path / "after")
        assert [backend.ip for backend in after.backends] == [lab.topology.address(chosen)]
        assert lab.send(lab.flow(CLIENT, ADDRESS, "tcp", 80)).answered_by == chosen
        sets = namespaces.run(lab.namespace("node1"), ["nft", "list", "sets", "ip"])
        assert "expires" in sets, "what is followed is an element that will be forgotten"
