"""Whole generated clusters: what the objects decide, against an evaluation that the kernel confirms (tests/lab)."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calico_debug.intent.decide import Intent
from calico_debug.intent.matrix import matrix
from calico_debug.intent.model import PolicyFlow
from calico_debug.state.cluster import load_cluster
from tests.evidence.memory import MemorySource
from tests.lab.cluster_objects import cluster_files
from tests.lab.generate import models
from tests.lab.meaning import Packet, allowed
from tests.lab.model import Model
from tests.lab.topology import small_cluster

CLUSTER = small_cluster()
PORTS = (("tcp", 80), ("tcp", 8080), ("tcp", 9001), ("tcp", 8500), ("udp", 53), ("icmp", 0))
NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}
UNHURRIED = [HealthCheck.too_slow, HealthCheck.data_too_large]


def intent_of(model: Model) -> Intent:
    files = {name: json.dumps(content) for name, content in cluster_files(CLUSTER, model).items()}
    return Intent(load_cluster(MemorySource(files, {})).cluster)


@settings(max_examples=150, deadline=None, suppress_health_check=UNHURRIED)
@given(model=models(CLUSTER), data=st.data())
def test_pods_to_pods(model: Model, data: st.DataObject) -> None:
    # The evaluation to compare with knows nothing of host endpoints' own policies
    model = replace(model, host_endpoints=(), policies=tuple(p for p in model.policies if not p.name.startswith("h")))
    intent = intent_of(model)
    ends = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(CLUSTER.pods),
                st.sampled_from(CLUSTER.pods),
                st.sampled_from(PORTS),
                st.sampled_from([4, 6]),
                st.sampled_from([1024, 8080, 40000]),
            ),
            min_size=10,
            max_size=20,
        )
    )
    for source, target, (protocol, port), version, own in ends:
        source_address, target_address = source.address(version), target.address(version)
        if source == target or not source_address or not target_address:
            continue
        named = "icmpv6" if (protocol, version) == ("icmp", 6) else protocol
        packet = Packet(source_address, target_address, named, own if port else 0, port)
        flow = PolicyFlow(
            ip_address(source_address),
            ip_address(target_address),
            NUMBERS[named],
            own if port else None,
            port or None,
            {"icmp": (8, 0), "icmpv6": (128, 0)}.get(named),
        )
        stages = {stage.direction: stage for stage in intent.decide(flow).stages}
        for direction, pod in (("egress", source), ("ingress", target)):
            expected = allowed(CLUSTER, model, pod, direction, packet)
            stage = stages[direction]
            assert stage.verdict == ("allowed" if expected else "denied"), (packet, direction, stage)


@settings(max_examples=30, deadline=None, suppress_health_check=UNHURRIED)
@given(model=models(CLUSTER), port=st.sampled_from(PORTS), version=st.sampled_from([4, 6]))
def test_matrices_have_what_each_flow_would_get(model: Model, port: tuple[str, int], version: int) -> None:
    intent = intent_of(replace(model, host_endpoints=()))
    protocol = NUMBERS["icmpv6" if (port[0], version) == ("icmp", 6) else port[0]]
    pods = intent.applicability.endpoints
    made = matrix(intent, pods, pods, protocol, port[1] or None, version)
    icmp = {1: (8, 0), 58: (128, 0)}.get(protocol)
    for source, row in zip(made.sources, made.rows, strict=True):
        for target, verdict in zip(made.destinations, row, strict=True):
            start, end = (next(a for a in one.addresses if a.version == version) for one in (source, target))
            flow = PolicyFlow(start, end, protocol, None, port[1] or None, icmp)
            egress, ingress = (intent.pod_decision(*one, flow) for one in ((source, "egress"), (target, "ingress")))
            verdicts = {egress.verdict, ingress.verdict}
            assert verdict == next(one for one in ("denied", "undetermined", "allowed") if one in verdicts)
    assert made.decisions <= 2 * made.groups * len(pods)
