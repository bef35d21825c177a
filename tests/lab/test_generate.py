"""Every generated model is one the kernel takes, and its flows get an outcome."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.lab import namespaces
from tests.lab.cluster_objects import cluster_files
from tests.lab.conftest import need_lab
from tests.lab.generate import cases, flow, models
from tests.lab.lab import Lab, ruleset
from tests.lab.meaning import Packet, allowed
from tests.lab.model import Model, Pod
from tests.lab.topology import small_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.traffic import Flow

CLUSTER = small_cluster()
UNHURRIED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    need_lab()
    with Lab(CLUSTER) as built:
        yield built


@pytest.mark.kernel
@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=UNHURRIED, print_blob=True)
@given(model=models(CLUSTER))
def test_the_kernel_takes_every_model(lab: Lab, model: Model) -> None:
    for node in CLUSTER.nodes:
        namespaces.nft(lab.namespace(node.name), ruleset(CLUSTER, model, node.name))


@pytest.mark.kernel
@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=UNHURRIED, print_blob=True)
@given(data=st.data())
def test_flows_have_outcomes_and_move_counters(lab: Lab, data: st.DataObject) -> None:
    case = data.draw(cases(CLUSTER, flows=3))
    lab.program(case.model)
    for one in case.flows:
        before = lab.counters()
        outcome = lab.send(one)
        moved = lab.moved(before)
        assert outcome.verdict in {"allowed", "denied", "rejected"}
        touched = {node for node, rules in moved.items() if rules}
        assert touched, one  # every flow leaves its place through a node, or starts on one


@pytest.mark.kernel
@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=UNHURRIED, print_blob=True)
@given(model=models(CLUSTER), data=st.data())
def test_the_kernel_does_what_the_policies_mean(lab: Lab, model: Model, data: st.DataObject) -> None:
    """Between pods, with rules of any generated shape, against an evaluation that knows nothing of nftables."""
    model = replace(model, host_endpoints=(), policies=tuple(p for p in model.policies if not p.name.startswith("h")))
    lab.program(model)
    pods = st.sampled_from(CLUSTER.pods)
    ends = [data.draw(st.tuples(pods, pods, st.sampled_from(ENDS))) for _ in range(12)]
    flows = [
        lab.flow(source.place, target.place, protocol, port, version)
        for source, target, (protocol, port, version) in ends
        if source != target
    ]
    outcomes = lab.send_all(flows)
    for sent, outcome in zip(flows, outcomes, strict=True):
        assert (outcome.verdict == "allowed") is meant(model, sent, outcome.source_port), (sent, outcome)


ENDS = [
    (protocol, port, version)
    for version in (4, 6)
    for protocol, port in (("tcp", 80), ("tcp", 8080), ("tcp", 9001), ("udp", 53), ("icmp", None))
]


def meant(model: Model, sent: Flow, source_port: int) -> bool:
    """Both pods' policies, source egress and destination ingress."""
    source = CLUSTER.places[sent.source]
    target = CLUSTER.places[CLUSTER.owner(sent.destination) or ""]
    assert isinstance(source, Pod)
    assert isinstance(target, Pod)
    own = source_port if sent.port is not None else 0
    packet = Packet(source.address(sent.version), sent.destination, sent.protocol, own, sent.port or 0)
    return allowed(CLUSTER, model, source, "egress", packet) and allowed(CLUSTER, model, target, "ingress", packet)


@settings(max_examples=100, deadline=None, suppress_health_check=UNHURRIED)
@given(model=models(CLUSTER), data=st.data())
def test_objects_cover_the_model(model: Model, data: st.DataObject) -> None:
    files = cluster_files(CLUSTER, model)
    listed = sum(len(files[name]["items"]) for name in files if "policies" in name)
    assert listed == len(model.policies)
    drawn = data.draw(flow(CLUSTER, model))
    assert (":" in drawn.destination) == (drawn.version == 6)
