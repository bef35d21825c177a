"""Connections: the first packet, its answer and the next packet, with translations, against the kernel."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calico_debug.walk.node import NodeWalker
from tests.kernel.frames import TCP, ip_address
from tests.kernel.probes import (
    ACK,
    SYN,
    Datagram,
    Probe,
    answer,
    answer_step,
    fresh,
    judge,
    matching,
    predict,
    probes,
    watch,
)
from tests.kernel.router import ROUTER, counters, moved
from tests.kernel.rulesets import Generated, rulesets

if TYPE_CHECKING:
    from tests.kernel.router import Router, Seen

pytestmark = pytest.mark.kernel


class _Connection:
    """A flow's packets one after the other, each walked and sent."""

    def __init__(self, router: Router, files: dict[str, str], text: str) -> None:
        self._router, self._text = router, text
        self._listing = router.listing()
        self._walker = NodeWalker(router.live(files))
        self.packets = 0

    def converse(self, first: Probe) -> None:
        self._router.forget()
        steps = [first.step()]
        arrived = self._send(first, steps)
        if arrived is None or (arrived.place == ROUTER and not first.link):
            return  # to itself: the router would answer the answer
        back = "" if arrived.place == ROUTER else arrived.place
        reply = Probe(back, answer(arrived.datagram))
        steps.append(answer_step(back, ()))
        if self._send(reply, steps) is None or not first.link:
            return
        flags = ACK if first.datagram.protocol == TCP else 0
        again = replace(first, datagram=replace(first.datagram, flags=flags))
        steps.append(again.step())
        self._send(again, steps)

    def _send(self, probe: Probe, steps: list) -> Seen | None:  # type: ignore[type-arg]
        """The packet where it came out; None when it did not, or when more than one walk explains it."""
        expected = predict(self._walker, steps)
        real, self._listing = watch(self._router, self._listing, probe)
        difference = judge(expected, real, probe)
        assert not difference, f"packet {len(steps)} of the connection: {difference}\n{self._text}"
        self.packets += 1
        explained = matching(expected, real, probe)
        if len(explained) != 1 or len(real.arrivals) != 1:
            return None
        steps[-1] = replace(steps[-1], script=tuple(choice.taken for choice in explained[0].choices))
        return real.arrivals[0]


def _run(router: Router, examples: int) -> int:
    files, packets = router.evidence(), 0

    @settings(
        max_examples=examples, deadline=None, print_blob=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(rulesets(nat=True, chance=False), st.lists(probes(reasonable=True), min_size=2, max_size=4))
    def compare(generated: Generated, firsts: list[Probe]) -> None:
        nonlocal packets
        if router.load(generated.text):
            return
        try:
            connection = _Connection(router, files, generated.text)
            for first in firsts:
                connection.converse(fresh(first))
            packets += connection.packets
        finally:
            router.clear(generated.tables)

    compare()
    return packets


def test_generated_connections(router: Router) -> None:
    assert _run(router, 80) > 320


@pytest.mark.slow
def test_many_generated_connections(router: Router) -> None:
    assert _run(router, 3_000) > 12_000


def test_output_hook_keeps_the_device_of_the_first_decision(router: Router) -> None:
    """After DNAT at output the packet leaves elsewhere, but the chains at output go on seeing the old device."""
    text = """table ip t {
        chain nat { type nat hook output priority -100
            ip daddr 10.1.0.2 counter dnat to 10.2.0.2
        }
        chain after { type filter hook output priority 0
            oifname "eth-c" counter
            oifname "eth-s" counter
        }
        chain post { type filter hook postrouting priority 0
            oifname "eth-s" counter
        }
    }"""
    assert not router.load(text)
    try:
        probe = fresh(Probe("", Datagram(ip_address("10.1.0.1"), ip_address("10.1.0.2"), TCP, 20_000, 80, SYN)))
        walker = NodeWalker(router.live(router.evidence()))
        expected = predict(walker, [probe.step()])
        real, _ = watch(router, router.listing(), probe)
        assert [seen.place for seen in real.arrivals] == ["eth-s"]
        assert [chain for _, _, chain, _ in real.rules] == ["nat", "after", "post"]
        assert judge(expected, real, probe) == ""
    finally:
        router.clear([("ip", "t")])


def test_nat_chains_run_where_the_core_sits_whatever_their_priority(router: Router) -> None:
    """A nat chain of priority 250 still translates before a filter chain of priority -50 looks."""
    text = """table ip t {
        chain late { type nat hook prerouting priority 250
            ip daddr 10.96.0.1 counter dnat to 10.2.0.2
        }
        chain look { type filter hook prerouting priority -50
            ip daddr 10.2.0.2 counter
        }
    }"""
    assert not router.load(text)
    try:
        before = router.listing()
        datagram = Datagram(ip_address("10.1.0.2"), ip_address("10.96.0.1"), TCP, 20_000, 80, SYN, b"token")
        seen = router.inject("eth-c", datagram)
        assert [str(s.datagram.destination) for s in seen] == ["10.2.0.2"]
        assert sum(moved(counters(before)[0], counters(router.listing())[0]).values()) == 2
    finally:
        router.clear([("ip", "t")])
