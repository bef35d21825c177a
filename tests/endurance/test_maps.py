"""Scrapes of an eBPF node while Felix replaces its maps: counts go on, and no map is kept alive by whoever read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from calico_debug.agent import bpf_counters
from calico_debug.agent import collector as collector_module
from calico_debug.agent.collector import Collector
from tests.evidence.memory import MemorySource
from tests.kernel.bpf_kernel import need_bpf
from tests.kernel.test_bpf_metrics import ALLOWED, Maps, programmed, series, write_drops, write_rule

pytestmark = [pytest.mark.endurance, pytest.mark.kernel]

ROUNDS, SCRAPES = 100, 10
RULE = ("calico_debug_policy_rule_evaluations_total", "ebpf", "", "", "", "", "", f"id:{ALLOWED:016x}", "")


def descriptors_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_maps_are_replaced_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    need_bpf()
    monkeypatch.setattr(collector_module, "CACHED_SECONDS", -1.0)
    monkeypatch.setattr(bpf_counters, "FRESH_SECONDS", -1.0)
    source: Any = MemorySource({}, {})
    collector, maps = None, None
    rule, dropped, opened = 0, 0, []
    for _ in range(ROUNDS):
        with programmed() as (node, descriptors):
            own = node.kernel_maps
            # What reads maps lives as long as the agent, whatever becomes of the maps.
            maps = maps or Maps(node)
            maps.real, maps._dumps = own.real, own._dumps
            node.kernel_maps = maps
            source._nodes = {"n1": node}
            collector = collector or Collector(source)
            collector._bpf._node = collector._node = node
            for number in range(1, SCRAPES + 1):
                write_rule(descriptors, ALLOWED, number)
                write_drops(descriptors, 2 * number)
                found = series(collector)
                counted = {
                    key[3:]: value
                    for key, value in found.items()
                    if key[0] == "calico_debug_bpf_packets_total" and "by policy" in key
                }
                assert found[RULE] == rule + number
                assert sum(counted.values()) == dropped + 2 * number
            rule, dropped = rule + SCRAPES, dropped + 2 * SCRAPES
            node.kernel_maps = own
        opened.append(descriptors_open())
    assert opened[-1] <= opened[1]
