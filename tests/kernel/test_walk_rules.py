"""Generated rulesets: the walk of one packet, from both decoders, against the counters and packets of the kernel."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calico_debug.walk.node import NodeWalker
from tests.kernel.probes import Probe, fresh, is_open, judge, predict, probes, told, watch
from tests.kernel.rulesets import Generated, rulesets

if TYPE_CHECKING:
    from tests.kernel.router import Router

pytestmark = pytest.mark.kernel

REFUSED_SHARE = 0.1
"""Generated rulesets that nft may refuse (combinations that contradict themselves)."""
OPEN_SHARE = 0.05
"""Packets whose walk may depend on something that nobody told it, such as their length."""

LISTING_OMITS = ("netdev", "iiftype ether")
"""Texts whose JSON by nft 1.0.6 lacks evidence: the device of a netdev chain, and the match of the Ethernet type that
nft itself puts behind ``iiftype ether``. A recording may leave open what the live rules tell."""
ASKED_SHARE = 0.005
"""Other packets about which a recording asks more than the rules: nft also leaves out a match of the protocol that a
later match of the rule implies, though one in between depends on it."""


@dataclass
class Tally:
    """What the examples of one run came to."""

    loaded: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    walked: int = 0
    open: Counter[str] = field(default_factory=Counter)
    asked: int = 0


def _check(router: Router, files: dict[str, str], tally: Tally, generated: Generated, packets: list[Probe]) -> None:
    refusal = router.load(generated.text)
    if refusal:
        tally.refused[refusal.splitlines()[0]] += 1
        return
    tally.loaded += 1
    try:
        listing = router.listing()
        recorded, live = NodeWalker(router.recorded(files, listing)), NodeWalker(router.live(files))
        for packet in packets:
            probe = fresh(packet)
            router.forget()
            expected, from_recording = predict(live, [probe.step()]), predict(recorded, [probe.step()])
            real, listing = watch(router, listing, probe)
            if told(from_recording) != told(expected):
                assert is_open(from_recording), generated.text
                tally.asked += not any(omitted in generated.text for omitted in LISTING_OMITS)
            difference = judge(expected, real, probe) or judge(from_recording, real, probe)
            assert not difference, f"{difference}\n{generated.text}"
            tally.walked += 1
            if why := is_open(expected):
                tally.open[why] += 1
    finally:
        router.clear(generated.tables)


def _run(router: Router, examples: int) -> Tally:
    files, tally = router.evidence(), Tally()

    @settings(
        max_examples=examples, deadline=None, print_blob=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(rulesets(), st.lists(probes(), min_size=4, max_size=8))
    def compare(generated: Generated, packets: list[Probe]) -> None:
        _check(router, files, tally, generated, packets)

    compare()
    return tally


def _assert_shares(tally: Tally) -> None:
    attempts = tally.loaded + tally.refused.total()
    assert tally.refused.total() <= attempts * REFUSED_SHARE + 3, tally.refused
    assert tally.open.total() <= tally.walked * OPEN_SHARE + 10, tally.open
    assert tally.asked <= tally.walked * ASKED_SHARE + 2, tally
    # An open question is named: a field, an expression, a counter of other traffic.
    assert all(why for why in tally.open), tally.open


def test_generated_rulesets(router: Router) -> None:
    tally = _run(router, 300)
    assert tally.loaded >= 250
    _assert_shares(tally)


@pytest.mark.slow
def test_many_generated_rulesets(router: Router) -> None:
    _assert_shares(_run(router, 2_000))
