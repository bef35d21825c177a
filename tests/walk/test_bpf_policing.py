"""What programs ask before they let a packet on, on the recorded eBPF cluster."""

from __future__ import annotations

import json
from ipaddress import ip_address

import pytest

from calico_debug.walk.choices import Chooser
from calico_debug.walk.context import PolicyRan, Translated
from calico_debug.walk.packet import UDP
from calico_debug.walk.passage import SENT
from tests.walk.recorded_bpf import CUSTOMER_DEVICE, RecordedCluster
from tests.walk.test_bpf_passage import (
    CUSTOMER,
    CUSTOMER_PORT,
    FRONTEND,
    FRONTEND_DEVICE,
    FRONTEND_SERVICE,
    GHOST,
    NODE1,
    OUTSIDE,
    SUMMARY,
    lost,
    new,
    packet,
    policies,
    received,
)


@pytest.fixture(scope="module")
def cluster() -> RecordedCluster:
    return RecordedCluster()


def test_overlooked_denials_are_hypothetical(cluster: RecordedCluster) -> None:
    walker = cluster.walkers["node1"]
    made = walker.receive(
        packet(CUSTOMER, FRONTEND, 81), CUSTOMER_DEVICE, new, Chooser(), cluster.engine._traveller.continuation(walker)
    )
    events = [event for event in made.trace.events if isinstance(event, PolicyRan)]
    assert [(event.result.denied, event.hypothetical) for event in events] == [(True, False), (True, True)]


def test_a_foreign_source_is_lost_before_policy(cluster: RecordedCluster) -> None:
    made = received(cluster, "node1", CUSTOMER_DEVICE, packet(SUMMARY, CUSTOMER))
    assert lost(made) == ("rpf", "")
    assert policies(made) == []


def test_packets_from_outside_need_a_way_back() -> None:
    """BPFEnforceRPF is Loose in the recording: any way will do."""

    def without_default(files: dict[str, bytes]) -> None:
        routes = json.loads(files["ip-route-all.json"])
        files["ip-route-all.json"] = json.dumps([one for one in routes if one["dst"] != "default"]).encode()

    asked = ("203.0.113.9", FRONTEND)
    assert policies(received(RecordedCluster(), "node1", "eth0", packet(*asked)))
    made = received(RecordedCluster(without_default), "node1", "eth0", packet(*asked))
    assert lost(made) == ("rpf", "")
    assert policies(made) == []


def test_a_service_without_endpoints_refuses(cluster: RecordedCluster) -> None:
    assert lost(received(cluster, "node1", CUSTOMER_DEVICE, packet(CUSTOMER, GHOST))) == (
        "no-endpoints",
        "port-unreachable",
    )


def with_connect_programs(files: dict[str, bytes]) -> None:
    """As with BPFConnectTimeLoadBalancing TCP, the default, which the recorded nodes turn off."""
    maps = json.loads(files["bpf/map-show.json"])
    services = [one["id"] for one in maps if one["name"] == "cali_v4_nat_fe3"]
    programs = json.loads(files["bpf/prog-show.json"])
    programs.append({"id": 90040, "type": "cgroup_sock_addr", "name": "calico_connect_", "map_ids": services})
    attached = {"id": 90040, "attach_type": "cgroup_inet4_connect", "name": "calico_connect_"}
    files["bpf/prog-show.json"] = json.dumps(programs).encode()
    files["bpf/cgroup-tree.json"] = json.dumps([{"cgroup": "/sys/fs/cgroup", "programs": [attached]}]).encode()


def test_processes_connect_to_backends_before_any_packet() -> None:
    connecting = RecordedCluster(with_connect_programs)
    for made in (
        received(connecting, "node1", CUSTOMER_DEVICE, packet(CUSTOMER, FRONTEND_SERVICE)),
        connecting.walkers["node1"].send(packet(NODE1, FRONTEND_SERVICE), new, Chooser()),
    ):
        first, *rest = made.trace.events
        assert isinstance(first, Translated)
        assert first.at_connect
        assert first.after.destination == int(ip_address(FRONTEND))
        assert not any(isinstance(event, Translated) and event.service for event in rest)
    udp = received(connecting, "node1", CUSTOMER_DEVICE, packet(CUSTOMER, FRONTEND_SERVICE, 80, UDP))
    assert not any(isinstance(event, Translated) and event.at_connect for event in udp.trace.events)


def test_a_process_is_told_of_a_service_without_endpoints() -> None:
    connecting = RecordedCluster(with_connect_programs)
    assert lost(received(connecting, "node1", CUSTOMER_DEVICE, packet(CUSTOMER, GHOST))) == (
        "no-endpoints",
        "connect-refused",
    )
    cluster = connecting.engine
    answer = cluster.explain(connecting.resolver.resolve(CUSTOMER, f"{FRONTEND_SERVICE}:80"))
    assert any("as the process connects" in step.detail for step in answer.steps if step.stage == "service")


def test_a_pod_that_connects_to_itself_sends_no_packet_to_the_node() -> None:
    connecting = RecordedCluster(with_connect_programs)
    made = received(connecting, "node1", FRONTEND_DEVICE, packet(FRONTEND, FRONTEND_SERVICE))
    assert (made.ending, made.interface, policies(made)) == (SENT, FRONTEND_DEVICE, [])
    answer = connecting.engine.explain(connecting.resolver.resolve(FRONTEND, f"{FRONTEND_SERVICE}:80"))
    assert answer.verdict == "allowed"


def test_outsiders_do_not_connect_here() -> None:
    made = received(RecordedCluster(with_connect_programs), "node1", "eth0", packet(OUTSIDE, NODE1, CUSTOMER_PORT))
    [translated] = [event for event in made.trace.events if isinstance(event, Translated)]
    assert not translated.at_connect
