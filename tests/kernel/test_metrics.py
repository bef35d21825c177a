"""Metrics of rules in a real kernel: traffic moves the right series by the right amount, and nothing ever goes back."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from calico_debug.agent import collector as collector_module
from calico_debug.agent.collector import Collector
from calico_debug.agent.evidence import LiveSource
from tests.lab import namespaces
from tests.lab.conftest import need_lab
from tests.lab.lab import Lab
from tests.lab.model import Model, Policy, Rule, Selector, Tier

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.kernel

TIERS = (Tier("security", 100), Tier("default", 1_000_000))
WEB, DB = Selector("app", ("web",)), Selector("app", ("db",))
QUARANTINE = Policy(
    "GlobalNetworkPolicy", "security.quarantine", "security", selector=WEB, ingress=(Rule("Deny", "udp"), Rule("Pass"))
)
LET_IN = Policy("NetworkPolicy", "let-in", namespace="red", selector=WEB, ingress=(Rule("Allow", "tcp"),))
NOTHING = Policy("NetworkPolicy", "nothing", namespace="blue", selector=DB, ingress=(Rule("Allow", "sctp"),))
MODEL = Model(tiers=TIERS, policies=(QUARANTINE, LET_IN, NOTHING))

PACKETS, BYTES = "calico_debug_policy_rule_packets_total", "calico_debug_policy_rule_bytes_total"
DROPS, POD_DROPS = "calico_debug_dropped_packets_total", "calico_debug_pod_dropped_packets_total"
Series = dict[tuple[str, ...], float]


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector_module, "CACHED_SECONDS", -1.0)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    need_lab()
    with Lab() as built:
        yield built


class Node:
    """The metrics of one namespace."""

    def __init__(self, namespace: str, **options: bool) -> None:
        self.namespace = namespace
        with namespaces.entered(namespace):
            self.collector = Collector(LiveSource("node1"), **options)  # type: ignore[arg-type]

    def series(self) -> Series:
        """Counters by name and the values of their labels."""
        with namespaces.entered(self.namespace):
            page = self.collector.page().decode()
        found: Series = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                found[sample.name, *sample.labels.values()] = sample.value
        assert found["calico_debug_source_up", "rules"] == 1
        return {key: value for key, value in found.items() if key[0].endswith("_total")}


def moved(before: Mapping[tuple[str, ...], float], after: Series) -> Series:
    return {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)}


def rule(*labels: str, name: str = PACKETS) -> tuple[str, ...]:
    return (name, "nftables", *labels)


def test_each_packet_is_in_the_series_of_its_rules(lab: Lab) -> None:
    lab.program(MODEL)
    node = Node(lab.namespace("node1"), pods=True)
    before, counted = node.series(), lab.counters()
    assert lab.send(lab.flow("red/cli1", "red/web1", "tcp", 80)).verdict == "allowed"
    after = node.series()
    (size,) = {value for key, value in moved(before, after).items() if key[0] == BYTES}
    expected = {
        rule("egress", "", "Profile", "", "kns.red", "0", "Allow"): 1,
        rule("ingress", "security", "GlobalNetworkPolicy", "", "security.quarantine", "#1", "Pass"): 1,
        rule("ingress", "default", "NetworkPolicy", "red", "let-in", "#0", "Allow"): 1,
    }
    assert moved(before, after) == {**expected, **{(BYTES, *key[1:]): size for key in expected}}
    assert 40 <= size <= 80
    # The kernel's own counters moved, too, by as much.
    chains = {key.chain: packets for key, packets in lab.moved(counted)["node1"].items()}
    assert chains["filter-cali-pi-np/red/let-in"] == 1


def test_drops_are_told_by_reason_kind_and_pod(lab: Lab) -> None:
    lab.program(MODEL)
    node = Node(lab.namespace("node1"), pods=True)
    before, counted = node.series(), lab.counters()
    assert lab.send(lab.flow("red/cli1", "red/web1", "udp", 53)).verdict == "denied"
    assert lab.send(lab.flow("red/cli1", "blue/db1", "udp", 53)).verdict == "denied"
    changes = {key: value for key, value in moved(before, node.series()).items() if key[0] != BYTES}
    kernel: dict[str, int] = {}
    for key, packets in lab.moved(counted)["node1"].items():
        kernel[key.chain] = max(kernel.get(key.chain, 0), packets)
    by_rule = kernel["filter-cali-pi-gnp/security.quarantine"]
    pod = next(pod.interface for pod in lab.topology.pods_of("node1") if pod.place == "blue/db1")
    at_end = kernel[f"filter-cali-tw-{pod}"]
    assert changes == {
        rule("egress", "", "Profile", "", "kns.red", "0", "Allow"): by_rule + at_end,
        rule("ingress", "security", "GlobalNetworkPolicy", "", "security.quarantine", "#0", "Deny"): by_rule,
        rule("ingress", "default", "", "", "", "end-of-tier", "Deny"): at_end,
        (DROPS, "nftables", "ingress", "rule", "any"): by_rule,
        (DROPS, "nftables", "ingress", "end-of-tier", "workload"): at_end,
        (POD_DROPS, "nftables", "ingress", "end-of-tier", pod, "", ""): at_end,
    }


def test_rewritten_chains_and_pods_that_go_take_nothing_away(lab: Lab) -> None:
    lab.program(MODEL)
    node = Node(lab.namespace("node1"))
    flow = lab.flow("red/cli1", "red/web1", "tcp", 80)
    allowed = rule("ingress", "default", "NetworkPolicy", "red", "let-in", "#0", "Allow")
    start = node.series()[allowed]
    for number in range(1, 4):
        lab.send(flow)
        assert node.series()[allowed] == start + number
        # Felix begins anew: the whole table is replaced, and every counter with it.
        lab.program(MODEL)
        assert node.series()[allowed] == start + number
    namespaces.nft(lab.namespace("node1"), "flush chain ip calico filter-cali-pi-np/red/let-in")
    assert node.series()[allowed] == start + 3
    namespaces.nft(lab.namespace("node1"), "delete table ip calico")
    assert node.series()[allowed] == start + 3


steps = st.lists(
    st.sampled_from(["allowed", "denied", "rewritten", "emptied", "read", "more", "fewer"]), min_size=4, max_size=10
)


@pytest.mark.slow
@given(steps)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_counter_goes_back_whatever_felix_does(lab: Lab, done: list[str]) -> None:
    fewer = Model(tiers=TIERS, policies=(QUARANTINE, LET_IN))
    model = MODEL
    lab.program(model)
    node = Node(lab.namespace("node1"))
    before = node.series()
    for step in done:
        if step in ("allowed", "denied"):
            protocol = "tcp" if step == "allowed" else "udp"
            lab.send(lab.flow("red/cli1", "red/web1", protocol, 80 if step == "allowed" else 53), 0.05)
        elif step == "emptied":
            namespaces.nft(lab.namespace("node1"), "flush table ip calico")
        elif step != "read":
            model = {"more": MODEL, "fewer": fewer}.get(step, model)
            lab.program(model)
        after = node.series()
        assert all(after[key] >= value for key, value in before.items())
        before = after


IPTABLES = """*filter
:cali-tw-cali0000000000a - [0:0]
:cali-pi-_kAfBjDFrnkmLcWkcO5x - [0:0]
-A OUTPUT -o lo -p udp -j cali-tw-cali0000000000a
-A cali-tw-cali0000000000a -m comment --comment "cali:aaaaaaaaaaaaaaaa" -m comment --comment "Start of tier default" \
-j MARK --set-xmark 0x0/0x20000
-A cali-tw-cali0000000000a -m comment --comment "cali:bbbbbbbbbbbbbbbb" -m mark --mark 0x0/0x20000 \
-j cali-pi-_kAfBjDFrnkmLcWkcO5x
-A cali-tw-cali0000000000a -m comment --comment "cali:cccccccccccccccc" \
-m comment --comment "Return if policy accepted" -m mark --mark 0x10000/0x10000 -j RETURN
-A cali-tw-cali0000000000a -m comment --comment "cali:dddddddddddddddd" \
-m comment --comment "End of tier default. Drop if no policies passed packet" -m mark --mark 0x0/0x20000 -j DROP
-A cali-pi-_kAfBjDFrnkmLcWkcO5x -p udp -m comment --comment "cali:eeeeeeeeeeeeeeee" \
-m comment --comment "NetworkPolicy red/let-in ingress" -m multiport --dports 5000 -j MARK --set-xmark 0x10000/0x10000
COMMIT
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    need_lab()
    (name,) = namespaces.create(["metrics"]).values()
    namespaces.ip(name, ["link set lo up"])
    yield name
    namespaces.delete([name])


def send(namespace: str, port: int, packets: int) -> None:
    with namespaces.entered(namespace):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        for _ in range(packets):
            try:
                sender.sendto(b"x" * 72, ("127.0.0.1", port))
            except OSError:
                # What OUTPUT drops the sender is told of, and so is a port that nobody has.
                continue


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_rules_of_iptables(namespace: str, backend: str) -> None:
    restore = [f"iptables-{backend}-restore", "--noflush"]
    namespaces.run(namespace, restore, IPTABLES)
    node = Node(namespace)
    before = node.series()
    send(namespace, 5000, 3)
    send(namespace, 6000, 2)
    allowed = ("iptables", "ingress", "default", "NetworkPolicy", "red", "let-in", "#0", "Allow")
    end = ("iptables", "ingress", "default", "", "", "", "end-of-tier", "Deny")
    expected = {
        (PACKETS, *allowed): 3,
        (BYTES, *allowed): 300,
        (PACKETS, *end): 2,
        (BYTES, *end): 200,
        (DROPS, "iptables", "ingress", "end-of-tier", "workload"): 2,
    }
    assert moved(before, node.series()) == expected
    # Another rule in front: the chain is written anew, and what was counted stays.
    chain = "cali-pi-_kAfBjDFrnkmLcWkcO5x"
    namespaces.run(namespace, [f"iptables-{backend}", "-I", chain, "-p", "icmp", "-j", "MARK", "--set-mark", "0x10000"])
    changed = moved(before, node.series())
    assert sum(value for key, value in changed.items() if key[0] == PACKETS) == 5
    namespaces.run(namespace, [f"iptables-{backend}", "-Z"])
    send(namespace, 6000, 1)
    assert moved(before, node.series())[PACKETS, *end] == 3
