"""Flips: exactly the pairs of pods whose verdict changes, but for the one that was asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest

import calico_debug.advice.flips as module
from calico_debug.advice.flips import flips
from calico_debug.intent.decide import Intent
from tests.advice.clusters import calico, cluster, flow

DENIES = calico("a", "p", types=["Ingress"])
ALLOWS = replace(DENIES, spec={**DENIES.spec, "ingress": [{"action": "Allow", "source": {"selector": "all()"}}]})


def test_pairs_by_both_sides() -> None:
    """Pods of a, which the policy selects, let each other in: two pairs, of which one was asked for."""
    change = flips(Intent(cluster(DENIES)), Intent(cluster(ALLOWS)), ALLOWS, "ingress", flow("a/one", "a/two").flow)
    assert (change.count, change.examples) == (1, (("a/two", "a/one"),))


def test_what_the_other_side_denies_does_not_change() -> None:
    closed = calico("a", "closed", types=["Egress"])
    before, after = Intent(cluster(DENIES, closed)), Intent(cluster(ALLOWS, closed))
    assert flips(before, after, ALLOWS, "ingress", flow("a/one", "a/two").flow).count == 0


def test_too_many_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PODS", 3)
    change = flips(Intent(cluster(DENIES)), Intent(cluster(ALLOWS)), ALLOWS, "ingress", flow("a/one", "a/two").flow)
    assert change.count is None
