"""Our rendering of kube-proxy's table held against a recorded one, and services that really translate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.conftest import need_lab
from tests.lab.kube_proxy_shape import kube_proxy_text
from tests.lab.lab import Lab
from tests.lab.listing import kernel_listing, listed
from tests.lab.model import Model, Service, ServicePort
from tests.lab.recorded import recorded_model, recorded_topology

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.kernel

WEB = (ServicePort(80, 80, "tcp", "http", 30080), ServicePort(53, 53, "udp", "dns"))
SERVICES = (
    Service("red", "web", WEB, "10.96.1.1", "fd00:96::101", ("red/web1", "blue/web2")),
    Service("red", "none", (ServicePort(80, 80, "tcp", "http", 30081),), "10.96.1.2", "fd00:96::102"),
    Service(
        "red",
        "local",
        (ServicePort(80, 8080, "tcp", "http", 30082),),
        "10.96.1.3",
        "fd00:96::103",
        ("red/db2",),
        load_balancer=("172.30.0.200",),
        source_ranges=("172.30.0.100/32",),
        external_policy="Local",
        affinity_seconds=60,
    ),
    Service("red", "near", (ServicePort(80, 80),), "10.96.1.4", "fd00:96::104", ("red/db2",), internal_policy="Local"),
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    need_lab()
    with Lab() as built:
        built.program(Model(services=SERVICES))
        yield built


@pytest.mark.parametrize("node", ["node1", "node2"])
def test_the_recorded_table_is_rendered_alike(capture: Path, node: str) -> None:
    topology, model = recorded_topology(capture), recorded_model(capture)
    recorded = listed((capture / "nodes" / node / "nft-ruleset.txt").read_text(), ["ip kube-proxy"])
    ours = listed(kernel_listing(kube_proxy_text(topology, model, topology.node(node))), ["ip kube-proxy"])
    assert set(ours) == set(recorded)
    assert {name: (recorded[name], ours[name]) for name in ours if recorded[name] != ours[name]} == {}


@pytest.mark.parametrize("version", [4, 6])
def test_a_service_reaches_every_backend(lab: Lab, version: int) -> None:
    address = "10.96.1.1" if version == 4 else "fd00:96::101"
    outcomes = lab.send_all([lab.flow("red/cli1", address, "tcp", 80) for _ in range(40)])
    assert {outcome.verdict for outcome in outcomes} == {"allowed"}
    assert {outcome.answered_by for outcome in outcomes} == {"red/web1", "blue/web2"}
    assert lab.send(lab.flow("node2", address, "udp", 53)).verdict == "allowed"


@pytest.mark.parametrize(
    ("source", "target", "port", "verdict"),
    [
        ("external", "node1", 30080, "allowed"),
        ("external", "node2", 30080, "allowed"),
        ("external", "node1", 30081, "rejected"),  # no endpoints
        ("red/cli1", "10.96.1.2", 80, "rejected"),
        ("red/cli1", "10.96.1.1", 81, "rejected"),  # not a port of the service
        ("red/cli1", "10.96.77.1", 80, "denied"),  # nobody's cluster address
        ("external", "node1", 30082, "denied"),  # externalTrafficPolicy Local, backend on node2
        ("external", "node2", 30082, "allowed"),
        ("external", "172.30.0.200", 80, "denied"),  # arrives at node1, backend on node2
        ("red/cli1", "172.30.0.200", 80, "denied"),  # not in loadBalancerSourceRanges
        ("red/cli1", "10.96.1.4", 80, "denied"),  # internalTrafficPolicy Local, backend on node2
        ("blue/cli2", "10.96.1.4", 80, "allowed"),
        ("red/web1", "10.96.1.1", 80, "allowed"),  # perhaps to itself, then masqueraded
    ],
)
def test_services_do_what_kube_proxy_means(lab: Lab, source: str, target: str, port: int, verdict: str) -> None:
    assert lab.send(lab.flow(source, target, "tcp", port)).verdict == verdict


def test_local_policy_keeps_the_clients_address_and_cluster_policy_hides_it(lab: Lab) -> None:
    kept = lab.send(lab.flow("external", "node2", "tcp", 30082))
    assert kept.seen_source == (lab.topology.address("external"), kept.source_port)
    hidden = lab.send(lab.flow("external", "node1", "tcp", 30080))
    assert hidden.seen_source is not None
    assert hidden.seen_source[0] == lab.topology.address("node1")


def test_affinity_keeps_a_client_at_its_backend() -> None:
    need_lab()
    sticky = Service("red", "web", WEB[:1], "10.96.1.1", "", ("red/web1", "blue/web2"), affinity_seconds=60)
    with Lab() as lab:
        lab.program(Model(services=(sticky,)))
        outcomes = [lab.send(lab.flow("red/cli1", "10.96.1.1", "tcp", 80)) for _ in range(12)]
    assert len({outcome.answered_by for outcome in outcomes}) == 1
