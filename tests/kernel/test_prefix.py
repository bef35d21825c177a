"""A cluster whose pods' interfaces begin with azv, as on AKS: in the kernel, for traces, metrics and the doctor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from calico_debug.agent.collector import Collector
from calico_debug.agent.evidence import LiveNode, LiveSource
from calico_debug.doctor.examine import examine
from calico_debug.explain.engine import Engine
from calico_debug.state.node import NodeState
from calico_debug.state.workloads import workload_prefixes
from tests.doctor.patients import codes, seen
from tests.lab import namespaces
from tests.lab.conftest import need_lab
from tests.lab.demo import MODEL
from tests.lab.lab import Lab
from tests.lab.topology import small_cluster
from tests.state.test_workloads import SAVED

pytestmark = pytest.mark.kernel

NODE, PREFIX = "node1", "azv"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    need_lab()
    with Lab(small_cluster(prefix=PREFIX)) as built:
        built.program(MODEL)
        yield built


@pytest.fixture
def inside(lab: Lab) -> Iterator[None]:
    """Within the node."""
    with namespaces.entered(lab.namespace(NODE)):
        yield


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("port", [80, 443])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_traces_are_what_happens(lab: Lab, protocol: str, port: int) -> None:
    number = {"tcp": port, "udp": 53}[protocol]
    flow = lab.flow("red/cli1", "red/web1", protocol, number)
    asked = lab.question(flow)
    engine = Engine(LiveSource(NODE))
    explained = engine.explain(engine.resolver.resolve(asked["from"], asked["to"], protocol=protocol))
    assert explained.verdict == lab.send(flow).verdict


@pytest.mark.usefixtures("inside")
def test_the_node_is_understood() -> None:
    state = NodeState(LiveNode(NODE))
    assert workload_prefixes(state) == (PREFIX,)
    assert [name for name in state.interfaces if name.startswith(PREFIX)]
    assert "unknown-interface" not in {code for _, code in codes(examine(LiveSource(NODE), [NODE]))}


@pytest.mark.usefixtures("inside")
def test_an_interface_that_felix_does_not_know_is_found(lab: Lab) -> None:
    namespaces.ip(lab.namespace(NODE), ["link add azv0 type veth peer name other0", "link set azv0 up"])
    try:
        found = examine(LiveSource(NODE), [NODE])
        assert seen(found, "unknown-interface") == ["azv0 has no endpoint among those that Felix programmed"]
    finally:
        namespaces.ip(lab.namespace(NODE), ["link del azv0"])


@pytest.mark.usefixtures("inside")
def test_drops_are_those_of_pods(lab: Lab) -> None:
    collector = Collector(LiveSource(NODE), pods=True)
    assert lab.send(lab.flow("red/cli1", "red/web1", "udp", 53)).verdict == "denied"
    dropped = [
        labels for name, labels, value in collector.listed() if name.endswith("pod_dropped_packets_total") and value
    ]
    (device,) = (pod.interface for pod in lab.topology.pods if pod.place == "red/cli1")
    assert {labels["interface"] for labels in dropped} == {device}
    assert device.startswith(PREFIX)


@pytest.mark.parametrize("restore", ["iptables-nft-restore", "iptables-legacy-restore"])
def test_rules_of_iptables_tell_it(lab: Lab, restore: str) -> None:
    (name,) = namespaces.create(["azv"]).values()
    try:
        namespaces.run(name, [restore], SAVED)
        with namespaces.entered(name):
            assert workload_prefixes(NodeState(LiveNode(NODE))) == ("azv", "gke")
    finally:
        namespaces.delete([name])
