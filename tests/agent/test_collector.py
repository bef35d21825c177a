from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from calico_debug.agent import collector as collector_module
from calico_debug.agent.collector import Collector
from calico_debug.errors import EvidenceError
from tests.agent.test_rule_counters import Nft, policy_chain
from tests.evidence.memory import MemoryNode, MemorySource
from tests.recordings import recordings

PACKETS, UP = "calico_debug_policy_rule_packets_total", "calico_debug_source_up"


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector_module, "CACHED_SECONDS", -1.0)


def samples(collector: Collector, name: str) -> dict[tuple[str, ...], float]:
    found = {}
    for family in text_string_to_metric_families(collector.page().decode()):
        for sample in family.samples:
            if sample.name == name:
                found[tuple(sample.labels.values())] = sample.value
    return found


def live(nft: Nft) -> MemorySource:
    node = MemoryNode({})
    node.nftables = nft
    return MemorySource({}, {"n1": node})


def test_a_source_that_fails_keeps_its_counters_and_says_so() -> None:
    nft = Nft({"filter-cali-pi-np/a/x": policy_chain(7)})
    collector = Collector(live(nft))
    before = samples(collector, PACKETS)
    assert list(before.values()) == [7]
    assert samples(collector, UP)["rules",] == 1
    nft.error = EvidenceError("no netlink today")
    assert samples(collector, PACKETS) == before
    assert samples(collector, UP)["rules",] == 0
    assert samples(collector, "calico_debug_source_age_seconds")["rules",] > 0
    nft.error = None
    nft.chains = {"filter-cali-pi-np/a/x": policy_chain(9)}
    assert list(samples(collector, PACKETS).values()) == [9]
    assert samples(collector, UP)["rules",] == 1


def test_only_so_many_series_and_how_many_are_left_out() -> None:
    nft = Nft({f"filter-cali-pi-np/a/x{number}": policy_chain(number, number) for number in range(1, 6)})
    collector = Collector(live(nft), series=3)
    assert sorted(samples(collector, PACKETS).values()) == [1, 2, 3]
    assert samples(collector, "calico_debug_series_dropped")[PACKETS,] == 2


def test_pages_that_are_close_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    nft = Nft({"filter-cali-pi-np/a/x": policy_chain(7)})
    collector = Collector(live(nft))
    monkeypatch.setattr(collector_module, "CACHED_SECONDS", 1000.0)
    first = collector.page()
    asked = nft.asked
    assert collector.page() is first
    assert collector.listed()
    assert nft.asked == asked


def test_listed_is_the_page() -> None:
    collector = Collector(recordings("1-bpf")[0].source)
    listed = {(name, *labels.values()): value for name, labels, value in collector.listed()}
    name = "calico_debug_policy_rule_evaluations_total"
    on_page = samples(collector, name)
    assert on_page
    assert {key[1:]: value for key, value in listed.items() if key[0] == name} == on_page


def test_drops_by_pod_are_asked_for() -> None:
    source = recordings("1-bpf")[0].source
    name = "calico_debug_pod_dropped_packets_total"
    assert samples(Collector(source), name) == {}
    by_pod = samples(Collector(source, pods=True), name)
    assert {(key[4], key[5]) for key in by_pod} >= {("client", "client-5f8b")}
    drops = samples(Collector(source), "calico_debug_dropped_packets_total")
    assert sum(by_pod.values()) == sum(value for key, value in drops.items() if key[3] == "workload")


def test_connections_of_ebpf_are_counted() -> None:
    collector = Collector(recordings("1-bpf")[0].source)
    assert samples(collector, "calico_debug_conntrack_entries")["ebpf-v4",] > 0
    assert samples(collector, "calico_debug_conntrack_entries_limit")["ebpf-v4",] == 512000
