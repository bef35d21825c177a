"""Every generated model is one the kernel takes, and its flows get an outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.lab import namespaces
from tests.lab.cluster_objects import cluster_files
from tests.lab.conftest import need_lab
from tests.lab.generate import cases, flow, models
from tests.lab.lab import Lab, ruleset
from tests.lab.topology import small_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

CLUSTER = small_cluster()
UNHURRIED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    need_lab()
    with Lab(CLUSTER) as built:
        yield built


@pytest.mark.kernel
@settings(max_examples=150, deadline=None, suppress_health_check=UNHURRIED, print_blob=True)
@given(model=models(CLUSTER))
def test_the_kernel_takes_every_model(lab: Lab, model: object) -> None:
    for node in CLUSTER.nodes:
        namespaces.nft(lab.namespace(node.name), ruleset(CLUSTER, model, node.name))  # type: ignore[arg-type]


@pytest.mark.kernel
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


@settings(max_examples=100, deadline=None, suppress_health_check=UNHURRIED)
@given(model=models(CLUSTER), data=st.data())
def test_objects_cover_the_model(model: object, data: st.DataObject) -> None:
    files = cluster_files(CLUSTER, model)  # type: ignore[arg-type]
    listed = sum(len(files[name]["items"]) for name in files if "policies" in name)
    assert listed == len(model.policies)  # type: ignore[attr-defined]
    drawn = data.draw(flow(CLUSTER, model))  # type: ignore[arg-type]
    assert (":" in drawn.destination) == (drawn.version == 6)
