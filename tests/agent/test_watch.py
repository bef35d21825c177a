"""Counters of rules, as the kernel has them at the moment."""

from __future__ import annotations

from socket import AF_INET, SOCK_DGRAM, socket
from typing import TYPE_CHECKING

import pytest

from calico_debug.agent.evidence import LiveNode
from calico_debug.agent.watch import Watch, read
from calico_debug.errors import EvidenceError
from calico_debug.model.observation import RulePlace
from tests.lab import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    assert watched.seconds > 0
    assert watched.started.endswith("Z")
    assert watched.ended >= watched.started


@pytest.mark.kernel
def test_a_rule_id_that_is_none(namespace: str) -> None:
    with namespaces.entered(namespace), pytest.raises(EvidenceError, match="is no number"):
        read(LiveNode("n1"), [RulePlace(rule_id="rule")])
