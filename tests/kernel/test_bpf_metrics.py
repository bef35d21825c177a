"""Counters in real maps: what programs would write moves the right series; maps that Felix replaces take none away."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from calico_debug.agent import bpf_counters
from calico_debug.agent import collector as collector_module
from calico_debug.agent.bpf import LiveMaps
from calico_debug.agent.bpf_library import possible_cpus
from calico_debug.agent.collector import Collector
from calico_debug.decode.bpf_layouts import BY_NAME
from calico_debug.model.bpf_objects import MapInfo, RawEntries
from calico_debug.policy.rule_ids import rule_id
from calico_debug.state.bpf_recorded import RecordedMaps
from tests.decode.bpf_samples import map_info
from tests.evidence.bpf_node import POD, BpfNode
from tests.evidence.memory import MemoryNode, MemorySource
from tests.kernel.bpf_kernel import fill, kernel_map, need_bpf

pytestmark = pytest.mark.kernel

RULES, COUNTERS, STATES = "cali_rule_ctrs2", "cali_counters6", "cali_iface4"
ALLOWED = rule_id("API0|kns.red")
WORKLOAD, IFINDEX = 1, 3
TC_INGRESS = 0
BY_POLICY = 4


class Maps:
    """Maps of the kernel where they are known, else dumps of the made-up node. Implements `KernelMaps`."""

    def __init__(self, node: MemoryNode) -> None:
        self.live = LiveMaps()
        self.real: dict[int, MapInfo] = {}
        self._dumps = RecordedMaps(node)

    def lookup(self, info: MapInfo, key: bytes) -> bytes | None:
        return (self.live if info.id in self.real else self._dumps).lookup(self.real.get(info.id, info), key)

    def batches(self, info: MapInfo) -> Iterator[RawEntries]:
        return (self.live if info.id in self.real else self._dumps).batches(self.real.get(info.id, info))

    def close(self) -> None:
        self.live.close()


class Node(MemoryNode):
    """A made-up node with maps of the kernel."""

    def __init__(self, files: Mapping[str, bytes | str]) -> None:
        super().__init__(files)
        self.kernel_maps = Maps(self)


@contextmanager
def programmed() -> Iterator[tuple[Node, Mapping[str, int]]]:
    """A node whose programs use fresh maps of the kernel; gives it with their descriptors."""
    made: dict[str, tuple[MapInfo, int]] = {}
    contexts = [kernel_map(map_info(BY_NAME[name][-1], entries=64)) for name in (RULES, COUNTERS, STATES)]
    for name, context in zip((RULES, COUNTERS, STATES), contexts, strict=True):
        made[name] = context.__enter__()
    try:
        node = BpfNode()
        node.add_map(RULES, made[RULES][0].id)
        for name in (COUNTERS, STATES):
            old = node.ids[name]
            node.maps = [one for one in node.maps if one.id != old]
            node.add_map(name, made[name][0].id)
            for program in node.programs:
                program["map_ids"] = [node.ids[name] if one == old else one for one in program["map_ids"]]
        node.programs[2]["map_ids"].append(node.ids[RULES])
        evidence = Node(node.evidence()._files)
        evidence.kernel_maps.real = {info.id: info for info, _ in made.values()}
        yield evidence, {name: descriptor for name, (_, descriptor) in made.items()}
        evidence.kernel_maps.live.close()
    finally:
        for context in contexts:
            context.__exit__(None, None, None)


def per_cpu(*values: bytes) -> bytes:
    """The value of a per-CPU map: the given CPUs', then zeros."""
    size = len(values[0])
    return b"".join(values) + bytes(size * (possible_cpus() - len(values)))


def write_rule(descriptors: Mapping[str, int], number: int, *packets: int) -> None:
    fill(descriptors[RULES], {struct.pack("<Q", number): per_cpu(*(struct.pack("<Q", one) for one in packets))})


def write_drops(descriptors: Mapping[str, int], *packets: int) -> None:
    layout = BY_NAME[COUNTERS][-1]
    stride = (layout.value.size + 7) // 8 * 8
    key = layout.key.pack({"ifindex": IFINDEX, "hook": TC_INGRESS})
    values = [(bytes(8 * BY_POLICY) + struct.pack("<Q", one)).ljust(stride, b"\0") for one in packets]
    fill(descriptors[COUNTERS], {key: per_cpu(*values)})


def series(collector: Collector) -> dict[tuple[str, ...], float]:
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(collector.page().decode()):
        for sample in family.samples:
            found[sample.name, *sample.labels.values()] = sample.value
    assert found["calico_debug_source_up", "ebpf"] == 1
    return found


@pytest.fixture(autouse=True)
def _always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    need_bpf()
    monkeypatch.setattr(collector_module, "CACHED_SECONDS", -1.0)
    monkeypatch.setattr(bpf_counters, "FRESH_SECONDS", -1.0)


def test_counters_of_every_cpu_are_summed_and_survive_new_maps() -> None:
    if possible_cpus() < 2:
        pytest.skip("one CPU only: nothing to sum")
    source: Any = MemorySource({}, {})
    evaluations = "calico_debug_policy_rule_evaluations_total"
    rule = (evaluations, "ebpf", "", "", "", "", "", f"id:{ALLOWED:016x}", "")
    none = (evaluations, "ebpf", "", "", "", "", "", "no-profile", "Deny")
    dropped = ("calico_debug_dropped_packets_total", "ebpf", "egress", "policy", "workload")
    with programmed() as (node, descriptors):
        source._nodes = {"n1": node}
        states = BY_NAME[STATES][-1]
        interface = {"flags": WORKLOAD, "name": POD}
        fill(descriptors[STATES], {states.key.pack({"ifindex": IFINDEX}): states.value.pack(interface)})
        write_rule(descriptors, ALLOWED, 3, 4)
        write_rule(descriptors, 0, 1)
        write_drops(descriptors, 5, 6)
        collector = Collector(source)
        first = series(collector)
        assert (first[rule], first[none], first[dropped]) == (7, 1, 11)
        assert first["calico_debug_bpf_packets_total", "egress", "workload", "Dropped", "by policy"] == 11
        write_rule(descriptors, ALLOWED, 3, 9)
        assert series(collector)[rule] == 12
    # Felix starts anew with maps of its own: they begin at 0.
    with programmed() as (node, descriptors):
        collector._bpf._node = collector._node = node
        write_rule(descriptors, ALLOWED, 2)
        after = series(collector)
        assert (after[rule], after[none], after[dropped]) == (14, 1, 11)
