"""Counters of rules, as the kernel has them at the moment."""

from __future__ import annotations

import json
from socket import AF_INET, SOCK_DGRAM, socket
from typing import TYPE_CHECKING

import pytest

from calico_debug.agent.evidence import LiveNode
from calico_debug.agent.watch import Watch, read, read_drops
from calico_debug.errors import EvidenceError
from calico_debug.model.bpf_words import counter_name
from calico_debug.model.observation import RulePlace
from tests.evidence.bpf_node import BpfNode
from tests.lab import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.evidence.memory import MemoryNode

RULES = """add table ip t
add chain ip t c { type filter hook output priority 0; }
add rule ip t c ip daddr 127.0.0.1 udp dport 9 counter
add rule ip t c ip daddr 127.0.0.1
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    if reason := namespaces.supported():
        pytest.skip(reason)
    name = namespaces.create(["watch"])["watch"]
    try:
        namespaces.ip(name, ["link set lo up"])
        namespaces.nft(name, RULES)
        yield name
    finally:
        namespaces.delete([name])


@pytest.mark.kernel
def test_each_reading_is_fresh(namespace: str) -> None:
    listed = namespaces.run(namespace, ["nft", "-a", "list", "chain", "ip", "t", "c"])
    counted, plain = (int(line.rsplit(" ", 1)[1]) for line in listed.splitlines() if "daddr" in line)
    wanted = [RulePlace("ip t", "c", handle) for handle in (counted, plain, 999)]
    wanted += [RulePlace("ip t", "none", 1), RulePlace("ip none", "c", 1)]
    with namespaces.entered(namespace):
        watch = Watch(LiveNode("n1"), wanted)
        with socket(AF_INET, SOCK_DGRAM) as client:
            for _ in range(3):
                client.sendto(b"", ("127.0.0.1", 9))
        watched = watch.finish()
    assert {place: reading.packets for place, reading in watched.before.items()} == {wanted[0]: 0}
    assert {place: reading.packets for place, reading in watched.after.items()} == {wanted[0]: 3}
    assert watched.seconds >= 0
    assert watched.started.endswith("Z")
    assert watched.ended >= watched.started


@pytest.mark.kernel
def test_a_rule_id_that_is_none(namespace: str) -> None:
    with namespaces.entered(namespace), pytest.raises(EvidenceError, match="is no number"):
        read(LiveNode("n1"), [RulePlace(rule_id="rule")])


IDENTITY = {"ifindex": 3}
CELLS = tuple(range(27))


def ebpf_node(rise: int) -> MemoryNode:
    """A node with the interface cali1, counters 0 to 26 at tc ingress, and ``rise`` drops by policy at egress."""
    at_egress = tuple(rise if number == 4 else 0 for number in range(27))
    made = BpfNode(
        {
            "cali_counters6": [
                ({**IDENTITY, "hook": 0}, {"cells": CELLS}),
                ({**IDENTITY, "hook": 1}, {"cells": at_egress}),
            ],
        }
    )
    made.files["ip-link.json"] = json.dumps([{"ifindex": 3, "ifname": "cali1"}])
    return made.evidence()


def test_drops_of_an_interface_are_those_of_both_ways() -> None:
    found = read_drops(ebpf_node(100), ["cali1", "not-there"])
    assert found["cali1", "by policy"] == 4 + 100
    assert found["cali1", "fragments not supported"] == 22
    assert all(counter_name(index).category == "Dropped" for index in DROPS)
    assert sorted(found) == sorted(("cali1", counter_name(index).caption) for index in DROPS)
    assert read_drops(ebpf_node(0), []) == {}


DROPS = (4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 20, 21, 22, 23, 25, 26)
"""Cells of felix/bpf-gpl/reasons.h that count drops."""
