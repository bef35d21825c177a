"""What a preview says of a node's own flows, against a kernel that is programmed with the policy: real connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from calico_debug.doctor.model import ClusterView
from calico_debug.evidence.bundle import open_bundle
from calico_debug.lockout.changes import decode_change
from calico_debug.lockout.failsafes import failsafes_of
from calico_debug.lockout.judge import CUT, SAVED, STAYS, Judge
from calico_debug.lockout.report import preview
from calico_debug.lockout.vitals import TCP, Facts
from calico_debug.model.cluster import FelixConfiguration
from calico_debug.state.cluster import load_cluster
from tests.lab.conftest import need_lab
from tests.lab.lab import Lab
from tests.lab.model import (
    Entity,
    Felix,
    HostEndpoint,
    Model,
    Policy,
    Profile,
    Rule,
    Selector,
    Service,
    ServicePort,
    Tier,
)
from tests.lab.topology import small_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hypothesis.strategies import DrawFn

    from calico_debug.lockout.report import Row

pytestmark = pytest.mark.kernel

PORTS = {"tcp": (22, 179, 5473, 6443, 10250), "udp": (53,)}
HOST = Selector("host", ("node1",))
TIERS = (Tier("security", 100), Tier("default", 1_000_000))
SERVICES = (
    Service("default", "kubernetes", (ServicePort(443, 6443),), "10.96.0.1", backends=("node2",)),
    Service("calico-system", "calico-typha", (ServicePort(5473, 5473),), "10.96.0.2", backends=("node1", "node2")),
)
ALLOWING = Profile("projectcalico-default-allow", (Rule("Allow"),), (Rule("Allow"),))
# The outside client is in none of these networks, like the address that stands for those not known
ENTITIES = st.builds(
    Entity,
    nets=st.sampled_from([(), (), ("172.30.0.0/26",), ("172.30.0.12/32",), ("172.30.0.11/32", "10.0.0.0/8")]),
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    need_lab()
    with Lab(small_cluster(ipv6=False), PORTS) as built:
        yield built


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@st.composite
def rules(draw: DrawFn) -> Rule:
    ports = draw(st.sampled_from([(), (22,), (10250, 6443), ((1, 1023),), (5473, 179), ((1000, 65535),)]))
    peer, other = draw(ENTITIES), Entity(ports=ports)
    return Rule(draw(st.sampled_from(["Allow", "Allow", "Deny", "Pass"])), "tcp", source=peer, destination=other)


@st.composite
def policies(draw: DrawFn, number: int) -> Policy:
    form = draw(st.sampled_from(["normal", "normal", "forward", "pre-dnat", "untracked"]))
    some = st.lists(rules(), max_size=3).map(tuple)
    return Policy(
        "GlobalNetworkPolicy",
        f"host-{number}",
        draw(st.sampled_from(["default", "security"])),
        order=float(number),
        selector=HOST,
        ingress=draw(some),
        egress=draw(st.none() | some) if form != "pre-dnat" else None,
        pre_dnat=form == "pre-dnat",
        apply_on_forward=form != "normal",
        do_not_track=form == "untracked",
    )


@st.composite
def models(draw: DrawFn) -> Model:
    made = tuple(draw(policies(number)) for number in range(draw(st.integers(0, 3))))
    profiles = draw(st.sampled_from([(), (), ("projectcalico-default-allow",)]))
    interface = draw(st.sampled_from(["eth0", "*"]))
    ports = st.lists(st.sampled_from([("tcp", port) for port in PORTS["tcp"]]), unique=True, max_size=3).map(tuple)
    felix = draw(st.builds(Felix, failsafe_in=ports, failsafe_out=ports))
    host = HostEndpoint("node1-host", "node1", interface, {"host": "node1"}, profiles)
    return Model(TIERS, made, (ALLOWING,), (host,), services=SERVICES, felix=felix)


def configuration(felix: Felix) -> FelixConfiguration:
    def listed(ports: tuple[tuple[str, int], ...]) -> list[dict[str, Any]]:
        return [{"protocol": protocol.upper(), "port": port} for protocol, port in ports]

    given = {"failsafeInboundHostPorts": felix.failsafe_in, "failsafeOutboundHostPorts": felix.failsafe_out}
    return FelixConfiguration("default", {name: listed(ports) for name, ports in given.items()})


def check(lab: Lab, directory: Path, model: Model) -> set[str]:
    """Every TCP flow of node1, as judged and as it is."""
    lab.program(model)
    bundle = directory / f"case-{len(list(directory.iterdir()))}"
    lab.evidence(bundle)
    source = open_bundle(bundle)
    state = load_cluster(source)
    felix = configuration(model.felix)
    judge = Judge(state.cluster, lambda node: failsafes_of(node, [felix], {}, known=True), {})
    node = next(one for one in state.nodes if one.name == "node1")
    met = set()
    for one in Facts(ClusterView(source, state), [felix]).flows(node):
        if one.vital.protocol != TCP or str(one.peer_address) not in ("172.30.0.12", "192.0.2.1"):
            continue
        # The outside client stands for addresses that are not known
        peer = "external" if one.unknown else "node2"
        sender, target = (peer, "node1") if one.vital.direction == "ingress" else ("node1", peer)
        outcome = lab.send(lab.flow(sender, target, "tcp", one.flow.destination_port))
        judged = judge.judge("node1", one)
        met.add(f"{one.vital.direction}: {judged.standing}")
        if judged.standing in (STAYS, SAVED):
            assert outcome.verdict == "allowed", (one, judged, outcome)
        elif judged.standing == CUT:
            assert outcome.verdict == "denied", (one, judged, outcome)
    return met


@pytest.mark.slow
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    print_blob=True,
)
@given(model=models())
def test_generated_host_policies(lab: Lab, directory: Path, model: Model) -> None:
    for word in check(lab, directory, model):
        event(word)


def test_a_host_endpoint_that_comes_to_be_cuts_what_nothing_allows(lab: Lab, directory: Path) -> None:
    """Before it is made, the preview tells; then the kernel is programmed with it, and connections end so."""
    felix = Felix(failsafe_in=(("tcp", 22),), failsafe_out=(("tcp", 6443),))
    lab.program(Model(TIERS, services=SERVICES, felix=felix))
    bundle = directory / "before"
    lab.evidence(bundle)
    source = open_bundle(bundle)
    state = load_cluster(source)
    manifest = b"""
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: node1-host}
spec: {node: node1, interfaceName: eth0}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec:
  failsafeInboundHostPorts: [{protocol: TCP, port: 22}]
  failsafeOutboundHostPorts: [{protocol: TCP, port: 6443}]
"""
    found = preview(state, ClusterView(source, state), decode_change(manifest, "the manifest"), {}, {})
    rows: dict[tuple[str, str], Row] = {(row.name, row.direction): row for row in found.rows if row.node == "node1"}
    host = HostEndpoint("node1-host", "node1", "eth0")
    lab.program(Model(TIERS, host_endpoints=(host,), services=SERVICES, felix=felix))
    expected = {
        ("kubelet", "ingress"): (CUT, "denied", "node2", 10250),
        ("SSH", "ingress"): (SAVED, "allowed", "external", 22),
        ("BGP", "ingress"): (CUT, "denied", "node2", 179),
        ("Typha", "ingress"): (CUT, "denied", "node2", 5473),
        ("API server", "egress"): (SAVED, "allowed", "node2", 6443),
        ("BGP", "egress"): (CUT, "denied", "node2", 179),
    }
    for (name, direction), (standing, verdict, peer, port) in expected.items():
        sender, target = (peer, "node1") if direction == "ingress" else ("node1", peer)
        assert rows[name, direction].standing == standing, name
        assert lab.send(lab.flow(sender, target, "tcp", port)).verdict == verdict, name
    assert found.worst == CUT
    assert "no profile" in rows["kubelet", "ingress"].why
